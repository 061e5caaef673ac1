use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError};
use streamer::store::dynamodb::{item_of_image, part_item, request_item};
use streamer::store::{ReadRequests as _, Status};

use crate::world::{World, key, queue};

/// Returns the new image of each stream record that is about a request's item, in write order. Records about part
/// items are left out.
fn images(world: &World) -> Vec<Value> {
    let is_request = |record: &Value| record["dynamodb"]["Keys"]["part"]["S"] == request_item::REQUEST_PART;
    let records = world.records().into_iter().filter(is_request);
    records.map(|record| record["dynamodb"]["NewImage"].clone()).collect()
}

/// Handler that returns its payload. It estimates a duration of a minute, so that its requests are queued.
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

/// Creates a world in which ann's request `r1` has completed.
async fn world_with_one_completed_request() -> World {
    let mut app = App::new();
    app.handle("slow", Slow).unwrap();
    let world = World::new(app).await;
    world.ask("slow", "r1", json!({"text": "ä\u{1f600}\n\"", "n": 1e-7})).await;
    world.process().await;
    world
}

/// The same decoder reads stream images and table items, so that both decode to the same request.
#[tokio::test(start_paused = true)]
async fn stream_image_decodes_to_the_same_request_as_the_stored_item() {
    let world = world_with_one_completed_request().await;
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

/// The event source mapping delivers only images whose status is PENDING to the processor. A part item has no
/// status.
#[tokio::test(start_paused = true)]
async fn part_item_appears_in_the_stream_but_is_not_run_as_a_request() {
    let world = world_with_one_completed_request().await;
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
