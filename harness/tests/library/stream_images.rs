use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError};
use streamer::store::dynamodb::{item_of_image, part_item, request_item};
use streamer::store::{ReadRequests as _, Status};

use crate::world::{World, key, queue};

/// The images of the requests' own items, in the order in which they were written.
fn images(world: &World) -> Vec<Value> {
    let is_request = |record: &Value| record["dynamodb"]["Keys"]["part"]["S"] == request_item::REQUEST_PART;
    let records = world.records().into_iter().filter(is_request);
    records.map(|record| record["dynamodb"]["NewImage"].clone()).collect()
}

/// Returns what it is given, and is queued for it.
struct Slow;

impl Handler for Slow {
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_secs(60)
    }

    async fn process(&self, payload: Value, _: Context) -> Result<Value, HandlerError> {
        Ok(payload)
    }
}

async fn world_in_which_one_was_run() -> World {
    let mut app = App::new();
    app.handle("slow", Slow).unwrap();
    let world = World::new(app).await;
    world.ask("slow", "r1", json!({"text": "ä\u{1f600}\n\"", "n": 1e-7})).await;
    world.process().await;
    world
}

/// What the stream shows of a request is the same as what is read of it, by the same code.
#[tokio::test(start_paused = true)]
async fn the_images_of_a_stream_are_decoded_as_items_are() {
    let world = world_in_which_one_was_run().await;
    let images = images(&world);
    let items: Vec<_> = images.iter().map(|image| item_of_image(image).unwrap()).collect();
    let statuses: Vec<_> =
        items.iter().map(|item| request_item::decode_summary(item).unwrap().status).collect();
    assert_eq!(statuses, [Status::Pending, Status::Processing, Status::Completed, Status::Completed]);
    let last = items.last().unwrap();
    assert_eq!(*last, world.item("r1").await);
    let stored = queue(&world.db).get(&key("r1")).await.unwrap().unwrap();
    assert_eq!(request_item::decode(last, &[]).unwrap(), stored);
}

/// The mapping's filter lets through what is PENDING, and so no part.
#[tokio::test(start_paused = true)]
async fn a_part_is_in_the_stream_and_no_request_to_run() {
    let world = world_in_which_one_was_run().await;
    world.ask("slow", "big", json!("x".repeat(9_000))).await;
    let is_part = |record: &&Value| record["dynamodb"]["Keys"]["part"]["S"] == part_item::PAYLOAD_PART;
    let records = world.records();
    let part = records.iter().find(is_part).unwrap();
    let item = item_of_image(&part["dynamodb"]["NewImage"]).unwrap();
    assert_eq!(part_item::decode(&item).unwrap(), json!("x".repeat(9_000)));
    assert!(!world.pending().iter().any(|record| is_part(&record)));
    world.process().await;
    assert_eq!(world.request("big").await.status, Status::Completed);
}
