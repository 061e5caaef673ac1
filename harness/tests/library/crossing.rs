//! Attempts of one user to read or cancel the requests of another user, or to act under the identity of another
//! user.

use std::time::Duration;

use serde_json::{Value, json};
use streamer::app::App;
use streamer::handler::{Context, Handler, HandlerError, handler_fn};
use streamer::protocol::{ErrorCode, Frame};

use crate::world::World;

/// Slow handler that returns the tenant and user of its caller, and the payload.
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

/// Handler that requires the permission `delete`, and returns the tenant and user of its caller.
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

/// Pairs of tenant and user. Some pairs would share a stored key if the store did not escape delimiters in
/// keys, or if it ignored letter case or spaces.
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

/// Request ids. Some ids would result in the stored key of another request if the store did not escape
/// delimiters in keys.
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

/// The actions whose payload names a request.
const ACTIONS_ON_REQUESTS: [&str; 3] = ["status", "subscribe", "cancel"];

/// Sends `action` about the request `id` over the connection of the user with the index `user`, and returns the
/// answer.
async fn about(world: &World, action: &str, user: usize, id: &str) -> Frame {
    say(world, user, json!({"action": action, "id": "s", "payload": {"request_id": id, "seq": 0}})).await
}

async fn status(world: &World, user: usize, id: &str) -> Frame {
    about(world, "status", user, id).await
}

#[tokio::test(start_paused = true)]
async fn users_whose_names_contain_key_delimiters_share_no_request() {
    let world = world().await;
    for id in IDS {
        for user in 0..USERS.len() {
            // Each payload differs, so that two requests with the same stored key cause a conflict error.
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
                panic!("expected a snapshot of {id} for user {name} of tenant {tenant}")
            };
            assert_eq!((&snapshot["status"], &snapshot["result"]), (&json!("completed"), &own));
        }
        let frames = world.clients.frames(&connection(user));
        assert_eq!(frames.len(), IDS.len());
        for frame in frames {
            let Frame::Complete { result, .. } = frame else { panic!("{frame:?}") };
            assert_eq!(
                (&result[0], &result[1]),
                (&json!(tenant), &json!(name)),
                "each user receives only the results of that user's requests"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn request_of_another_user_is_answered_as_if_it_did_not_exist() {
    let world = world().await;
    let code = |answer: &Frame| {
        let Frame::Error { error, .. } = answer else { panic!("{answer:?}") };
        error.code.clone()
    };
    for (owner, _) in USERS.into_iter().enumerate() {
        let id = format!("of-{owner}");
        say(&world, owner, json!({"action": "report", "id": id, "payload": 1})).await;
        for other in (0..USERS.len()).filter(|other| *other != owner) {
            for action in ACTIONS_ON_REQUESTS {
                let missing = about(&world, action, other, "missing").await;
                assert_eq!(code(&missing), ErrorCode::NotFound);
                assert_eq!(about(&world, action, other, &id).await, missing, "{other}: {action} {id}");
            }
        }
    }
    // Stored keys, relative paths, and a user and tenant in the payload do not give access to the request of
    // another user either.
    for id in ["acme/eve/of-0", "../eve/of-0", "eve/of-0", "acme%2Feve%2Fof-0", "of-0#request", "of-0 "] {
        for action in ACTIONS_ON_REQUESTS {
            assert_eq!(code(&about(&world, action, 1, id).await), ErrorCode::NotFound, "{action} {id}");
        }
    }
    for action in ACTIONS_ON_REQUESTS {
        let payload = json!({"request_id": "of-0", "user": "eve", "tenant": "acme", "connection_id": "c-0"});
        let answer = say(&world, 1, json!({"action": action, "payload": payload})).await;
        assert_eq!(code(&answer), ErrorCode::NotFound);
    }
    // Each request still runs, and only its own user receives the terminal frame.
    world.process().await;
    for (user, _) in USERS.into_iter().enumerate() {
        let frames = world.clients.frames(&connection(user));
        assert!(matches!(&frames[..], [Frame::Complete { .. }]), "{user}: {frames:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn subscribe_and_cancel_with_key_delimiters_in_ids_affect_only_the_users_own_request() {
    let world = world().await;
    for id in IDS {
        for user in 0..USERS.len() {
            say(&world, user, json!({"action": "report", "id": id, "payload": [user, id]})).await;
        }
    }
    for id in IDS {
        for user in 0..USERS.len() {
            // Users with an even index cancel; users with an odd index subscribe.
            let (action, expected) =
                if user % 2 == 0 { ("cancel", "cancelled") } else { ("subscribe", "queued") };
            let answer = about(&world, action, user, id).await;
            let Frame::Response { data: Some(snapshot), .. } = answer else { panic!("{answer:?}") };
            assert_eq!((&snapshot["request_id"], &snapshot["status"]), (&json!(id), &json!(expected)));
        }
    }
    world.process().await;
    for (user, (tenant, name)) in USERS.into_iter().enumerate() {
        let frames = world.clients.frames(&connection(user));
        assert_eq!(frames.len(), IDS.len());
        for frame in frames {
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
async fn user_tenant_and_permissions_inside_a_message_are_ignored() {
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
    assert_eq!(world.clients.frames("c-ann"), [], "the impersonated user receives no frame");
    for (n, (tenant, user)) in USERS.into_iter().enumerate() {
        let frames = world.clients.frames(&connection(n));
        let [Frame::Complete { result, .. }] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((&result[0], &result[1]), (&json!(tenant), &json!(user)));
    }
}
