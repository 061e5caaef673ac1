//! What one user tries to learn of another, or to do as them.

use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, handler_fn};
use streamer::protocol::{ErrorCode, Frame};

use crate::world::World;

/// Says who asked, and what for; slowly.
struct Report;

impl Handler for Report {
    type Input = Value;
    type Output = Value;

    fn estimated_duration(&self, _: &Value) -> Duration {
        Duration::from_secs(60)
    }

    async fn process(&self, payload: Value, context: Context) -> Result<Value, HandlerError> {
        Ok(json!([context.tenant, context.user, payload]))
    }
}

/// Says who asked, to whoever may delete.
struct Delete;

impl Handler for Delete {
    type Input = Value;
    type Output = Value;

    fn required_permission(&self) -> Option<&str> {
        Some("delete")
    }

    async fn process(&self, _: Value, context: Context) -> Result<Value, HandlerError> {
        Ok(json!([context.tenant, context.user]))
    }
}

/// Pairs of tenant and user that a careless key would take for one another.
const USERS: [(&str, &str); 12] = [
    ("acme", "eve"),
    ("other", "eve"),
    ("acme", "Eve"),
    ("acme", "eve "),
    ("a", "b/c"),
    ("a/b", "c"),
    ("a%2Fb", "c"),
    ("a", "b%2Fc"),
    ("a%252Fb", "c"),
    ("a#b", "c"),
    ("a", "b#c"),
    ("a", "b"),
];

/// Ids of requests, of the same kind.
const IDS: [&str; 5] = ["r1", "c/r1", "/r1", "c%2Fr1", "r1#request"];

async fn world() -> World {
    let mut app = App::new();
    let whoami = |_: Value, context: Context| async move { Ok(json!([context.tenant, context.user])) };
    app.handle("report", Report).unwrap();
    app.handle("delete", Delete).unwrap();
    app.handle("whoami", handler_fn(whoami)).unwrap();
    let world = World::new(app).await;
    for (n, (tenant, user)) in USERS.into_iter().enumerate() {
        world.connect(&connection(n), tenant, user).await;
    }
    world
}

fn connection(user: usize) -> String {
    format!("c-{user}")
}

async fn say(world: &World, user: usize, message: Value) -> Frame {
    serde_json::from_str(&world.say(&connection(user), message).await).unwrap()
}

/// The actions that are about a request.
const ABOUT: [&str; 3] = ["status", "subscribe", "cancel"];

async fn about(world: &World, action: &str, user: usize, id: &str) -> Frame {
    say(world, user, json!({"action": action, "id": "s", "payload": {"request_id": id, "seq": 0}})).await
}

async fn status(world: &World, user: usize, id: &str) -> Frame {
    about(world, "status", user, id).await
}

#[tokio::test(start_paused = true)]
async fn users_and_tenants_of_any_names_share_no_request() {
    let world = world().await;
    for id in IDS {
        for user in 0..USERS.len() {
            // Another payload each: who met another's request would be told of a conflict.
            let message = json!({"action": "report", "id": id, "payload": {"of": user, "id": id}});
            let answer = say(&world, user, message).await;
            assert!(
                matches!(&answer, Frame::Acknowledgment { status, .. } if status == "queued"),
                "{answer:?}"
            );
        }
    }
    assert_eq!(world.pending().len(), USERS.len() * IDS.len());
    world.process().await;
    for (user, (tenant, name)) in USERS.into_iter().enumerate() {
        for id in IDS {
            let own = json!([tenant, name, {"of": user, "id": id}]);
            let Frame::Response { data: Some(snapshot), .. } = status(&world, user, id).await else {
                panic!("{tenant}, {name} has {id}")
            };
            assert_eq!((&snapshot["status"], &snapshot["result"]), (&json!("completed"), &own));
        }
        let told = world.clients.frames(&connection(user));
        assert_eq!(told.len(), IDS.len());
        for frame in told {
            let Frame::Complete { result, .. } = frame else { panic!("{frame:?}") };
            assert_eq!((&result[0], &result[1]), (&json!(tenant), &json!(name)), "told of another's request");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn anothers_request_is_as_one_that_does_not_exist() {
    let world = world().await;
    let code = |answer: &Frame| {
        let Frame::Error { error, .. } = answer else { panic!("{answer:?}") };
        error.code.clone()
    };
    for (owner, _) in USERS.into_iter().enumerate() {
        let id = format!("of-{owner}");
        say(&world, owner, json!({"action": "report", "id": id, "payload": 1})).await;
        for other in (0..USERS.len()).filter(|other| *other != owner) {
            for action in ABOUT {
                let nobodys = about(&world, action, other, "nobodys").await;
                assert_eq!(code(&nobodys), ErrorCode::NotFound);
                assert_eq!(about(&world, action, other, &id).await, nobodys, "{other}: {action} {id}");
            }
        }
    }
    // Nor under its stored key, or what leads to it, or as whoever a payload claims to be.
    for id in ["acme/eve/of-0", "../eve/of-0", "eve/of-0", "acme%2Feve%2Fof-0", "of-0#request", "of-0 "] {
        for action in ABOUT {
            assert_eq!(code(&about(&world, action, 1, id).await), ErrorCode::NotFound, "{action} {id}");
        }
    }
    for action in ABOUT {
        let payload = json!({"request_id": "of-0", "user": "eve", "tenant": "acme", "connection_id": "c-0"});
        let answer = say(&world, 1, json!({"action": action, "payload": payload})).await;
        assert_eq!(code(&answer), ErrorCode::NotFound);
    }
    // Whatever was tried, each is run, and told to its user alone.
    world.process().await;
    for (user, _) in USERS.into_iter().enumerate() {
        let told = world.clients.frames(&connection(user));
        assert!(matches!(&told[..], [Frame::Complete { .. }]), "{user}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ids_of_any_names_are_listened_to_and_cancelled_by_their_own_user_alone() {
    let world = world().await;
    for id in IDS {
        for user in 0..USERS.len() {
            say(&world, user, json!({"action": "report", "id": id, "payload": [user, id]})).await;
        }
    }
    for id in IDS {
        for user in 0..USERS.len() {
            // Every other user cancels, the others listen.
            let (action, stands) =
                if user % 2 == 0 { ("cancel", "cancelled") } else { ("subscribe", "queued") };
            let answer = about(&world, action, user, id).await;
            let Frame::Response { data: Some(snapshot), .. } = answer else { panic!("{answer:?}") };
            assert_eq!((&snapshot["request_id"], &snapshot["status"]), (&json!(id), &json!(stands)));
        }
    }
    world.process().await;
    for (user, (tenant, name)) in USERS.into_iter().enumerate() {
        let told = world.clients.frames(&connection(user));
        assert_eq!(told.len(), IDS.len());
        for frame in told {
            if user % 2 == 0 {
                let Frame::Error { error, .. } = frame else { panic!("{user}: {frame:?}") };
                assert_eq!(error.code, ErrorCode::Cancelled);
            } else {
                let Frame::Complete { result, .. } = frame else { panic!("{user}: {frame:?}") };
                assert_eq!(
                    (&result[0], &result[1], &result[2][0]),
                    (&json!(tenant), &json!(name), &json!(user))
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_message_says_of_its_sender_is_not_heard() {
    let world = world().await;
    let forged = json!({
        "user": "ann", "user_id": "ann", "sub": "ann", "tenant": "acme", "tenant_id": "acme",
        "permissions": ["delete"], "identity": {"user": "ann", "tenant": "acme", "permissions": ["delete"]},
        "connection_id": "c-ann", "connectionId": "c-ann", "requestContext": {"connectionId": "c-ann"},
    });
    let strings =
        json!({"user": "ann", "tenant_id": "acme", "permissions": "delete", "connection_id": "c-ann"});
    for (n, (tenant, user)) in USERS.into_iter().enumerate() {
        let with = |action: &str| {
            let mut message = forged.clone();
            message["action"] = action.into();
            message["id"] = "r1".into();
            message["payload"] = forged.clone();
            message["metadata"] = strings.clone();
            message
        };
        let answer = say(&world, n, with("whoami")).await;
        let Frame::Response { data: Some(who), .. } = answer else { panic!("{answer:?}") };
        assert_eq!(who, json!([tenant, user]));
        let refused = say(&world, n, with("delete")).await;
        assert!(
            matches!(&refused, Frame::Error { error, .. } if error.code == ErrorCode::Forbidden),
            "{refused:?}"
        );
        say(&world, n, with("report")).await;
    }
    world.process().await;
    assert_eq!(world.clients.frames("c-ann"), [], "nobody else is told");
    for (n, (tenant, user)) in USERS.into_iter().enumerate() {
        let told = world.clients.frames(&connection(n));
        let [Frame::Complete { result, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!((&result[0], &result[1]), (&json!(tenant), &json!(user)));
    }
}
