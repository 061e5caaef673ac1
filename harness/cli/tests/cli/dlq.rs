//! Tests of `streamer dlq` over HTTP, against the harness's fakes of SQS and DynamoDB.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use streamer::dead_letters::{DeadLetter, Redriven, redrive};
use streamer::ids::RequestKey;
use streamer::ports::{Clock as _, SystemClock, SystemEntropy, Timestamp};
use streamer::protocol::ErrorBody;
use streamer::store::dynamodb::{DynamoRequestQueue, QueueSettings};
use streamer::store::{
    AttemptOutcome, ClaimRequests as _, Claimed, LastReport, PastAttempt, ReadRequests as _, Request,
    RunRequests as _, Runner, Status, SubmitRequests as _,
};
use streamer_harness::dynamodb::DynamoDb;
use streamer_harness::sqs::Queues;
use streamer_harness::stage::create_tables;
use streamer_harness::template::{Environment, Template};

use crate::workspace::{IDLE, Workspace, printed, serve};

const QUEUE: &str = "streamer-DeadLetterQueue";

/// The DynamoDB tables and the dead-letter queue of a stage, behind one endpoint; no functions run.
pub(crate) struct Services {
    pub(crate) workspace: Workspace,
    pub(crate) url: String,
    queues: Queues,
    pub(crate) requests: DynamoRequestQueue,
}

impl Services {
    pub(crate) fn new() -> Self {
        Self::of_stack("streamer", "")
    }

    /// Makes the services of a stack with this name. `suffix` is appended to each resource name, as
    /// CloudFormation does.
    fn of_stack(stack: &str, suffix: &str) -> Self {
        let db = DynamoDb::builder().in_memory().unwrap();
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lambdas/template.yaml");
        let offered = [("JwtKey".to_owned(), "unused".to_owned())].into();
        let environment = Environment { stack_name: stack.into(), offered, ..Environment::default() };
        let mut tables = Template::load(&template, &environment).unwrap().tables;
        tables.iter_mut().for_each(|table| table.name += suffix);
        create_tables(&db, &tables).unwrap();
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy::new()));
        let queues = Queues::in_memory(clock, entropy, "us-east-1", "000000000000").unwrap();
        queues.create(&format!("{stack}-DeadLetterQueue{suffix}"), []).unwrap();
        let table = format!("{stack}-RequestsTable{suffix}");
        let requests = DynamoRequestQueue::new(db.client(), table, QueueSettings::default());
        let url = serve(queues.layered_over(db.router()));
        Self { workspace: Workspace::new(IDLE), url, queues, requests }
    }

    fn dlq(&self, arguments: &[&str]) -> String {
        let arguments = [&["dlq"], arguments, &["--endpoint", &self.url]].concat();
        printed(&self.workspace.command_without_aws(&arguments).output().unwrap())
            .replace(&self.url, "[endpoint]")
    }

    fn send(&self, letter: &DeadLetter) {
        self.queues.send(QUEUE, serde_json::to_string(letter).unwrap()).unwrap();
    }

    fn bodies(&self) -> Vec<String> {
        self.queues.messages(QUEUE).unwrap().into_iter().map(|message| message.body).collect()
    }

    pub(crate) async fn queued(&self, id: &str) -> Request {
        let request = request(id);
        self.requests.enqueue(&request).await.unwrap();
        request
    }

    /// Stores a request that failed for good, and returns its dead letter.
    async fn failed(&self, id: &str) -> DeadLetter {
        let key = self.queued(id).await.key();
        let now = SystemClock.now();
        let lease_end = now + Duration::from_secs(60);
        let claimed = self.requests.claim(&key, "owner", Runner::Worker, now, lease_end).await.unwrap();
        let Claimed::Won(_, lease) = claimed else { panic!("{claimed:?}") };
        let last = LastReport { at: now, ..LastReport::default() };
        self.requests.fail(&key, &lease, &error(), &history(), &last).await.unwrap();
        DeadLetter::of(&self.requests.get(&key).await.unwrap().unwrap()).unwrap()
    }

    async fn get(&self, id: &str) -> Option<Request> {
        self.requests.get(&key(id)).await.unwrap()
    }
}

fn key(id: &str) -> RequestKey {
    RequestKey::new(&"acme".into(), &"ann".into(), &id.into())
}

fn request(id: &str) -> Request {
    let (user, tenant, connection) = ("ann".into(), "acme".into(), "c-ann".into());
    let request =
        Request::new(id.into(), user, tenant, connection, "print", json!({"pages": 3}), SystemClock.now());
    Request { metadata: BTreeMap::from([("k".into(), "v".into())]), max_attempts: 2, ..request }
}

fn error() -> ErrorBody {
    ErrorBody::new("OUT_OF_PAPER".into(), "The tray is \u{1b}[31mempty").with_detail("tray", 2)
}

fn history() -> Vec<PastAttempt> {
    let attempt = |attempt, outcome| PastAttempt {
        attempt,
        epoch: u64::from(attempt),
        started_at: Some(Timestamp::from_secs(1_772_323_200 + u64::from(attempt) * 10)),
        ended_at: Timestamp::from_secs(1_772_323_205 + u64::from(attempt) * 10),
        outcome,
        error: ErrorBody::new("OUT_OF_PAPER".into(), "The tray is empty"),
    };
    vec![attempt(1, AttemptOutcome::Crashed), attempt(2, AttemptOutcome::Failed)]
}

/// Returns a dead letter of a request that is not stored.
fn letter(id: &str, failed_at: u64) -> DeadLetter {
    DeadLetter {
        id: format!("acme/ann/{id}#2"),
        request_id: id.into(),
        user: "ann".into(),
        tenant: "acme".into(),
        connection: "c-ann".into(),
        action: "print".into(),
        payload: json!({"pages": 3}),
        metadata: BTreeMap::from([("k".into(), "v".into())]),
        error: error(),
        attempts: 2,
        max_attempts: 2,
        epoch: 2,
        history: history(),
        created_at: Timestamp::from_secs(1_772_323_200),
        failed_at: Timestamp::from_secs(failed_at),
        redrive_of: None,
        left_out: BTreeMap::new(),
    }
}

#[test]
fn dlq_list_and_show_leave_dead_letters_in_the_queue() {
    let services = Services::new();
    let empty = services.dlq(&["list"]);
    for (id, at) in [("later", 1_772_323_300), ("earlier", 1_772_323_290), ("later", 1_772_323_300)] {
        services.send(&letter(id, at));
    }
    services.queues.send(QUEUE, "not a letter").unwrap();
    let id = services.queues.messages(QUEUE).unwrap()[3].id.clone();
    let listed = services.dlq(&["list"]).replace(&id, "[message]");
    let shown = services.dlq(&["show", "acme/ann/later#2"]);
    let missing = services.dlq(&["show", "acme/ann/later#3"]);
    assert_snapshot!([empty, listed.clone(), shown, missing].join("\n"));

    assert_eq!(
        services.dlq(&["list"]).replace(&id, "[message]"),
        listed,
        "listing releases every message, so a second listing is equal"
    );
    assert_eq!(services.bodies().len(), 4);
}

#[test]
fn dlq_json_output_has_every_field_of_each_dead_letter() {
    let services = Services::new();
    services.send(&letter("r1", 1_772_323_300));
    services.queues.send(QUEUE, "{}").unwrap();
    let json = |arguments: &[&str]| -> Value {
        let printed = services.dlq(arguments);
        serde_json::from_str(printed.strip_prefix("0\n").unwrap_or_else(|| panic!("{printed}"))).unwrap()
    };
    let listed = json(&["list", "--json"]);
    let expected = letter("r1", 1_772_323_300);
    assert_eq!(
        serde_json::from_value::<Vec<DeadLetter>>(listed["letters"].clone()).unwrap(),
        std::slice::from_ref(&expected)
    );
    assert_eq!(listed["unreadable"][0]["problem"], "missing field `id` at line 1 column 2");
    let shown = json(&["show", "--json", "acme/ann/r1#2"]);
    assert_eq!(serde_json::from_value::<DeadLetter>(shown).unwrap(), expected);
}

#[tokio::test]
async fn redrive_queues_a_linked_new_request_and_deletes_the_dead_letter() {
    let services = Services::new();
    let (r1, r2) = (services.failed("r1").await, services.failed("r2").await);
    // The letter of r1 is in the queue twice, as after a crash of its sender.
    for letter in [&r1, &r2, &r1] {
        services.send(letter);
    }
    assert_eq!(services.dlq(&["redrive", &r1.id]), format!("0\n{}: redriven as r1.redrive.1\n", r1.id));
    let made = services.get("r1.redrive.1").await.unwrap();
    assert_eq!((made.status, made.attempt, made.max_attempts), (Status::Pending, 0, 2));
    assert_eq!((made.payload, made.history), (json!({"pages": 3}), r1.history));
    assert_eq!((made.redrive_of.as_deref(), made.runner), (Some(r1.id.as_str()), Runner::Processor));
    let old = services.get("r1").await.unwrap();
    assert_eq!((old.status, old.redriven_as), (Status::Failed, Some("r1.redrive.1".into())));
    assert_eq!(services.bodies(), [serde_json::to_string(&r2).unwrap()]);

    let again = services.dlq(&["redrive", &r1.id, &r2.id]);
    let refused = format!("1\n{}: not redriven: there is no dead letter", r1.id);
    assert!(again.starts_with(&refused), "{again}");
    assert!(again.ends_with(&format!("{}: redriven as r2.redrive.1\n", r2.id)), "{again}");
    assert_eq!(
        services.dlq(&["redrive", "--all"]),
        format!("0\nThere are no dead letters in [endpoint]/000000000000/{QUEUE}\n")
    );
}

#[tokio::test]
async fn dead_letter_that_cannot_be_redriven_stays_in_the_queue_and_is_reported() {
    let services = Services::new();
    services.queued("taken.redrive.2").await;
    for (id, at) in [("taken", 1), ("begun", 2), ("expired", 3)] {
        services.send(&letter(id, at));
    }
    services.queues.send(QUEUE, "nonsense").unwrap();
    // An earlier redrive queued the request, and crashed before it deleted the letter.
    let begun = redrive(&services.requests, &letter("begun", 2), SystemClock.now()).await.unwrap();
    assert_eq!(begun, Redriven::New("begun.redrive.2".into()));

    let id = services.queues.messages(QUEUE).unwrap()[3].id.clone();
    assert_snapshot!(services.dlq(&["redrive", "--all"]).replace(&id, "[message]"), @r"
    1
    acme/ann/taken#2: not redriven: user ann of tenant acme already has a request taken.redrive.2 that was not made from this dead letter; wait until that request expires, or delete its item
    acme/ann/begun#2: already redriven as begun.redrive.2
    acme/ann/expired#2: redriven as expired.redrive.2
    message [message]: not redriven: not a dead letter (expected ident at line 1 column 2)
    ");
    assert_eq!(services.bodies(), [serde_json::to_string(&letter("taken", 1)).unwrap(), "nonsense".into()]);
    assert_eq!(services.get("expired.redrive.2").await.unwrap().runner, Runner::Worker);
    assert_eq!(services.get("taken.redrive.2").await.unwrap().redrive_of, None);
}

#[tokio::test]
async fn dlq_without_stage_arguments_uses_the_running_local_stage_and_never_aws() {
    let services = Services::new();
    services.send(&letter("r1", 1_772_323_300));
    let run = || printed(&services.workspace.command_without_aws(&["dlq", "list"]).output().unwrap());
    let refused = run();
    assert!(
        refused.starts_with("1\nstreamer: no local stage is running in this workspace; start one"),
        "{refused}"
    );
    let folder = services.workspace.path().join("target/streamer");
    fs::create_dir_all(&folder).unwrap();
    let ready = json!({ "ws_url": "", "token": "", "management_url": "", "dynamodb_url": services.url });
    fs::write(folder.join("running.json"), ready.to_string()).unwrap();
    assert!(run().contains("acme/ann/r1#2"));
}

/// The queue URL or the table name alone does not select a stack, so the command fails before it calls AWS.
#[tokio::test]
async fn redrive_on_aws_without_a_stack_name_is_refused() {
    let services = Services::new();
    for named in [["--queue-url", "https://sqs.eu-west-1.amazonaws.com/1/q"], ["--requests-table", "t"]] {
        let arguments = [&["dlq", "redrive", "--all", "--region", "eu-west-1"][..], &named].concat();
        let mut command = services.workspace.command_without_aws(&arguments);
        command.env("AWS_ACCESS_KEY_ID", "none").env("AWS_SECRET_ACCESS_KEY", "none");
        let refused = printed(&command.output().unwrap());
        assert!(
            refused.starts_with("1\nstreamer: no stack is selected") && refused.contains("--prefix NAME"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn resources_of_a_deployed_stack_are_found_by_the_stack_name() {
    let services = Services::of_stack("prod", "-1A2B3C");
    let body = serde_json::to_string(&letter("r1", 1_772_323_300)).unwrap();
    services.queues.send("prod-DeadLetterQueue-1A2B3C", body).unwrap();
    let unnamed = services.dlq(&["list"]);
    assert!(
        unnamed.starts_with("1\nstreamer: there is no queue named streamer-DeadLetterQueue"),
        "{unnamed}"
    );
    let done = services.dlq(&["redrive", "--all", "--prefix", "prod"]);
    assert_eq!(done, "0\nacme/ann/r1#2: redriven as r1.redrive.2\n");
    assert!(services.get("r1.redrive.2").await.is_some());
    let elsewhere = services.dlq(&["list", "--queue-url", "http://127.0.0.1/000000000000/other"]);
    assert!(elsewhere.starts_with("1\n") && elsewhere.contains("cannot be read"), "{elsewhere}");
}

#[tokio::test]
async fn redrive_of_an_oversized_payload_works_until_the_failed_request_expires() {
    let services = Services::new();
    let whole = services.failed("kept").await;
    let cut = |letter: DeadLetter| DeadLetter {
        payload: Value::Null,
        left_out: BTreeMap::from([("payload".to_owned(), 2_000_000)]),
        ..letter
    };
    let whole_id = whole.id.clone();
    services.send(&cut(whole));
    services.send(&cut(letter("expired", 1)));
    let output = services.dlq(&["redrive", "--all"]);
    assert!(output.contains(&format!("{whole_id}: redriven as kept.redrive.1\n")), "{output}");
    assert!(
        output.contains("acme/ann/expired#2: not redriven: the dead letter omits a large value"),
        "{output}"
    );
    assert_eq!(services.get("kept.redrive.1").await.unwrap().payload, json!({"pages": 3}));
    assert_eq!(services.bodies().len(), 1);
}
