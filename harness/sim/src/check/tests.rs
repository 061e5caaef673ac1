//! Each rule, in both directions: a story in which all is well breaks none, and one thing that goes otherwise breaks it.

mod story;

use serde_json::json;
use streamer::protocol::Seq;

use super::super::event::{ClientEvent, EventKind, HandlerPhase};
use super::super::plan::{FaultKind, FaultPlan};
use super::rules;
use story::{PROCESSOR, ROUTER, SWEEPER, Story, WORKER};
use streamer_fakes::observe::Observation;

#[test]
fn stories_in_which_all_is_well_break_no_rule() {
    for story in [Story::completed(), Story::failed(), Story::cancelled()] {
        assert_eq!(story.broken(), Vec::<String>::new());
    }
}

/// What is otherwise in a story, and the rule that it breaks before all others.
type Otherwise = (&'static str, &'static str, fn(&mut Story));

fn assert_broken(story: fn() -> Story, cases: &[Otherwise]) {
    for (name, rule, otherwise) in cases {
        let mut story = story();
        otherwise(&mut story);
        let broken = story.broken();
        assert!(broken.iter().any(|broken| broken == rule), "{name}: expected {rule:?}, found {broken:?}");
    }
}

#[test]
fn what_is_stored_otherwise_breaks_its_rule() {
    let cases: &[Otherwise] = &[
        ("an acknowledgment without an item", rules::ACKNOWLEDGED_IS_STORED, |story| {
            story.keep_only(&["connecting", "opened", "connected", "sent", "acknowledged"]);
        }),
        ("it never ends", rules::ENDS_IN_TIME, |story| {
            story.remove(&["ended", "told", "heard the end", "noted"]);
            story.last_at_secs = 100_000;
        }),
        ("it is deleted", rules::ENDS_IN_TIME, |story| story.items.clear()),
        ("it has no timer", rules::HAS_A_TIMER, |story| {
            story.item("claimed", |item| item.gone("timer_shard"))
        }),
        ("its timer is too late", rules::HAS_A_TIMER, |story| {
            story.item("queued", |item| item.n("timer_at", 1_700_000_900_000))
        }),
        ("it is claimed again under its lease", rules::LEGAL_STEP, |story| {
            story.write_after("stored", PROCESSOR, 9, |item| {
                item.n("epoch", 2).n("attempt", 2).s("owner", "o2")
            });
        }),
        ("a claim does not count", rules::LEGAL_STEP, |story| {
            story.item("claimed", |item| item.n("attempt", 0))
        }),
        ("the sweeper completes it", rules::LEGAL_STEP, |story| story.by("ended", SWEEPER, 5)),
        ("the router completes it", rules::LEGAL_STEP, |story| story.by("ended", ROUTER, 5)),
        ("it begins as claimed", rules::LEGAL_STEP, |story| story.item("queued", |item| item.n("epoch", 1))),
        ("the sweeper takes its lease before the end", rules::LEGAL_STEP, |story| {
            story.write_after("stored", SWEEPER, 5, |item| {
                item.status("PENDING").gone("owner").gone("lease_expires_at").n("seq", 2 << 20)
            });
        }),
        ("its result changes", rules::END_STANDS, |story| {
            story.write_after("noted", PROCESSOR, 2, |item| item.s("result", "2"));
        }),
        ("it is cancelled after its end", rules::END_STANDS, |story| {
            story.write_after("noted", ROUTER, 1, |item| item.status("CANCELLED").gone("result"));
        }),
        ("another environment stores progress", rules::FENCED, |story| story.by("stored", PROCESSOR, 9)),
        ("another environment ends it", rules::FENCED, |story| story.by("ended", WORKER, 9)),
        ("the router stores progress", rules::FENCED, |story| story.by("stored", ROUTER, 1)),
        ("the stored number falls", rules::STORED_SEQ_RISES, |story| {
            story.write_after("stored", PROCESSOR, 2, |item| item.n("seq", 1));
        }),
        ("the stored number is another attempt's", rules::STORED_SEQ_RISES, |story| {
            story.item("stored", |item| item.n("seq", (7 << 20) + 1));
        }),
        ("it ends under its last report's number", rules::STORED_SEQ_RISES, |story| {
            story.item("ended", |item| item.n("seq", (1 << 20) + 1));
        }),
        ("its payload changes", rules::ONE_REQUEST, |story| {
            story.item("stored", |item| item.s("payload", "3"))
        }),
        ("it is queued anew before it has expired", rules::ONE_REQUEST, |story| {
            let first = story.item_of("queued");
            story.write_after("noted", ROUTER, 1, |item| {
                *item = first.clone();
                item.n("created_at", 1_700_000_500_000)
            });
        }),
        ("it is stored under two keys", rules::ONE_REQUEST, |story| {
            let mut again = story.event("queued");
            if let EventKind::Fake(Observation::Wrote { keys, .. }) = &mut again {
                keys["request_id"] = json!({"S": "r1"});
            }
            story.insert_after("noted", again);
        }),
        ("nobody has sent it", rules::ITS_USERS_ALONE, |story| story.asks = false),
        ("its key is another's", rules::ITS_USERS_ALONE, |story| {
            story.item("queued", |item| item.s("user_id", "bob"));
        }),
        ("another's connection listens", rules::ITS_USERS_ALONE, |story| {
            story.item("stored", |item| item.subscribers(&["c1", "c2"]));
        }),
        ("more attempts than allowed", rules::ATTEMPTS_BOUNDED, |story| {
            story.each_item(|item| item.n("max_attempts", 0));
        }),
        ("a time to live from the begin", rules::EXPIRES_ONLY_ENDED, |story| {
            story.item("queued", |item| item.n("ttl", 1_700_604_800));
        }),
        ("another time to live", rules::EXPIRES_ONLY_ENDED, |story| {
            story.item("ended", |item| item.n("ttl", 1_700_000_900))
        }),
        ("it is deleted while it is open", rules::EXPIRES_ONLY_ENDED, |story| story.delete_after("stored")),
        ("a part that never expires", rules::EXPIRES_ONLY_ENDED, |story| {
            story.items.push(json!({"request_id": "acme/ann/r1", "part": "payload"}));
        }),
        ("a status in another's shard", rules::ITEM_IS_SOUND, |story| {
            story.item("claimed", |item| item.s("status_shard", "PENDING#3"));
        }),
        ("a lease that nobody holds", rules::ITEM_IS_SOUND, |story| {
            story.item("ended", |item| item.n("lease_expires_at", 1_700_000_900_000));
        }),
        ("an end that cannot be read", rules::ITEM_IS_SOUND, |story| {
            story.item("ended", |item| item.n("progress_message", 1));
        }),
        ("no status at all", rules::ITEM_IS_SOUND, |story| story.item("stored", |item| item.gone("status"))),
        ("it is left with a timer", rules::NOTHING_IS_LEFT, |story| {
            story.remove(&["noted"]);
            story.last_at_secs = 3_600;
        }),
        ("nobody looks when its timer fires", rules::DUE_ITEM_IS_HANDLED, |story| story.remove(&["noted"])),
        ("its timer is moved on too late", rules::DUE_ITEM_IS_HANDLED, |story| {
            story.swap("noted", "calm");
            story.late(&["noted"], 500);
        }),
        ("a listener is taken off without a word", rules::SUBSCRIBERS_STAY, |story| {
            story.remove(&["told", "heard the end"]);
        }),
        ("a listener is taken off while it runs", rules::SUBSCRIBERS_STAY, |story| {
            story.item("stored", |item| item.subscribers(&[]));
        }),
        ("calls in vain", rules::WITHIN_BUDGET, |story| {
            for _ in 0..60 {
                story.calls_after("noted", PROCESSOR);
            }
        }),
        ("its part in the costs is too large", rules::WITHIN_BUDGET, |story| {
            for n in 0..3 {
                story.write_after("noted", PROCESSOR, 2, |item| item.n("timer_at", 1_700_000_900_000 + n));
            }
        }),
        ("stored far too often", rules::PACED, |story| {
            for n in 0..9 {
                story.write_after("stored", PROCESSOR, 2, |item| {
                    item.n("lease_expires_at", 1_700_000_060_000 + n)
                });
            }
        }),
        ("a job that cannot succeed does", rules::ENDS_AS_ITS_JOB, |story| {
            let payload = json!({"estimate_ms": 10_000, "end": "fail"}).to_string();
            story.each_item(|item| item.s("payload", &payload));
        }),
    ];
    assert_broken(Story::completed, cases);
}

#[test]
fn what_is_said_otherwise_breaks_its_rule() {
    let cases: &[Otherwise] = &[
        ("the end is told before it is written", rules::WRITTEN_BEFORE_DELIVERED, |story| {
            story.swap("ended", "told")
        }),
        ("progress of another environment", rules::ITS_USERS_ALONE, |story| {
            story.posted_by("reported", PROCESSOR, 9)
        }),
        ("progress of an epoch that never was", rules::SILENT_WITHOUT_LEASE, |story| {
            story.frame("reported", |frame| frame["seq"] = json!((4 << 20) + 1));
        }),
        ("progress after the lease was given back", rules::SILENT_WITHOUT_LEASE, |story| {
            story.write_after("stored", PROCESSOR, 2, |item| {
                item.status("RETRYING")
                    .n("seq", 2 << 20)
                    .gone("lease_expires_at")
                    .n("timer_at", 1_700_000_900_000)
            });
            story.repeat_after("reported", "stored", |frame| frame["seq"] = json!((1 << 20) + 2));
        }),
        ("progress after the terminal frame", rules::SEQ_RISES, |story| {
            story.repeat_after("reported", "told", |frame| frame["seq"] = json!((1 << 20) + 9));
        }),
        ("a number twice", rules::SEQ_RISES, |story| story.repeat_after("reported", "reported", |_| ())),
        ("numbers that rise too fast", rules::PACED, |story| {
            story.frame("reported", |frame| frame["seq"] = json!((1 << 20) + 500));
        }),
        ("another result than is stored", rules::ONE_TERMINAL_FRAME, |story| {
            story.frame("told", |frame| frame["result"] = json!(7));
        }),
        ("another number than is stored", rules::ONE_TERMINAL_FRAME, |story| {
            story.frame("told", |frame| frame["seq"] = json!(7));
        }),
        ("a terminal frame that differs from the first", rules::ONE_TERMINAL_FRAME, |story| {
            story.repeat_after("told", "told", |frame| frame["timestamp"] = json!(1));
        }),
        ("a frame to another user", rules::ITS_USERS_ALONE, |story| story.to("reported", "c2")),
        ("the end, to another user", rules::ITS_USERS_ALONE, |story| story.to("told", "c2")),
        ("a result that was made for another", rules::ITS_USERS_ALONE, |story| {
            let result = json!({"user": "bob", "tenant": "acme", "id": "r1"});
            story.item("ended", |item| item.s("result", &result.to_string()));
            story.frame("told", |frame| frame["result"] = result.clone());
        }),
        ("a client does not hear the end", rules::END_IS_DELIVERED, |story| story.remove(&["heard the end"])),
        ("a client hears another end", rules::ONE_TERMINAL_FRAME, |story| {
            story.hears("heard the end", |frame| frame["result"] = json!(7));
        }),
        ("a client hears a number twice", rules::SEQ_RISES, |story| {
            let heard = story.event("heard");
            story.insert_after("heard", heard);
        }),
        ("a client is told of a status that never was", rules::ACKNOWLEDGED_IS_STORED, |story| {
            story.hears("acknowledged", |frame| frame["status"] = json!("completed"));
        }),
        ("an error without an id, for a message with one", rules::ERRORS_NAME_REQUESTS, |story| {
            story.gets_after("acknowledged", &json!({"type": "error", "error": {"code": "INTERNAL_ERROR"}}));
        }),
        ("a conflict without another payload", rules::ID_IS_KNOWN, |story| {
            let frame = json!({"type": "error", "request_id": "r1", "error": {"code": "CONFLICT"}});
            story.gets_after("acknowledged", &frame);
        }),
        ("a request that is there is not found", rules::ID_IS_KNOWN, |story| {
            story.asks_after("acknowledged", "status");
            let frame = json!({"type": "error", "request_id": "q1", "error": {"code": "NOT_FOUND"}});
            story.gets_after("asked", &frame);
        }),
        ("a snapshot of what has not come yet", rules::SNAPSHOT_IS_TRUE, |story| {
            story.asks_after("acknowledged", "status");
            let data = json!({"request_id": "r1", "status": "completed", "seq": 0});
            let frame = json!({"type": "response", "request_id": "q1", "success": true, "data": data});
            story.gets_after("asked", &frame);
        }),
        ("a handler runs twice", rules::RUNS_ONCE, |story| {
            let ran = story.event("ran");
            story.insert_after("ran", ran);
        }),
        ("a handler runs without a claim", rules::RUNS_ONCE, |story| story.swap("claimed", "ran")),
        ("an open connection has no record", rules::CONNECTIONS_ARE_TRUE, |story| story.connections.clear()),
        ("a record is left", rules::CONNECTIONS_ARE_TRUE, |story| {
            story.connections.push(json!({"connection_id": "c7", "ttl": 1}));
        }),
        ("a task is left", rules::NO_TASK_IS_LEFT, |story| story.tasks_left = 1),
        ("the stream gives up a record", rules::STREAM_GIVES_UP_NOTHING, |story| {
            story.stream_failures.push("{}".to_owned());
        }),
        ("a letter of what has not failed", rules::LETTER_AFTER_END, |story| {
            let letter = Story::failed().event("lettered");
            story.insert_after("noted", letter);
        }),
    ];
    assert_broken(Story::completed, cases);
}

#[test]
fn what_fails_otherwise_breaks_its_rule() {
    let cases: &[Otherwise] = &[
        ("its letter is sent before it has failed", rules::LETTER_AFTER_END, |story| {
            story.swap("ended", "lettered");
        }),
        ("its letter is of another epoch", rules::LETTER_AFTER_END, |story| {
            story.letter(|letter| letter["id"] = json!("acme/ann/r1#1@1700000000000"));
        }),
        ("its letter has another payload", rules::LETTER_AFTER_END, |story| {
            story.letter(|letter| letter["payload"] = json!(7));
        }),
        ("its letter tells another error", rules::LETTER_AFTER_END, |story| {
            story.letter(|letter| letter["error"]["code"] = json!("TIMEOUT"));
        }),
        ("there is no letter", rules::LETTERS_ARE_FAILURES, |story| story.dead_letters.clear()),
        ("there is a letter of nothing", rules::LETTERS_ARE_FAILURES, |story| {
            let stray = story.dead_letters[0].replace("#2@", "#3@");
            story.dead_letters.push(stray);
        }),
        ("the next attempt loses the count", rules::LEGAL_STEP, |story| {
            story.item("again", |item| item.n("attempt", 0));
        }),
        ("it is made pending before it is due", rules::LEGAL_STEP, |story| {
            story.item("given back", |item| item.n("timer_at", 1_700_000_900_000));
        }),
        ("the sweeper leaves an owner to what it ends", rules::FENCED, |story| {
            story.item("again", |item| {
                item.status("FAILED")
                    .s("error", r#"{"code":"NO_GOOD","message":"it never will"}"#)
                    .s("owner", "o1")
            });
        }),
        ("what fails once for all has been made to fail", rules::ENDS_AS_ITS_JOB, |story| {
            let payload = json!({"estimate_ms": 10_000, "end": "succeed"}).to_string();
            story.each_item(|item| item.s("payload", &payload));
        }),
        ("another error is told than is stored", rules::ONE_TERMINAL_FRAME, |story| {
            story.frame("told", |frame| frame["error"]["code"] = json!("TIMEOUT"));
        }),
    ];
    assert_broken(Story::failed, cases);
    let cases: &[Otherwise] = &[
        ("nobody has asked for it", rules::CANCELLED_ON_DEMAND, |story| story.remove(&["asked to cancel"])),
        ("it takes long to hear of it", rules::CANCEL_TAKES_EFFECT, |story| {
            story.late(&["ended", "told", "heard the end"], 50)
        }),
        ("its lease is taken though nothing went wrong", rules::LEASE_IS_KEPT, |story| {
            story.by("ended", SWEEPER, 5);
            story.item("ended", |item| item.gone("owner"));
        }),
    ];
    assert_broken(Story::cancelled, cases);
}

/// What cannot be fenced is no one's fault where it can happen, and only as far.
#[test]
fn one_frame_may_be_late_where_something_can_stand_still() {
    let late = |times: u64, kind: FaultKind| {
        let mut story = Story::failed();
        story.plan.faults = vec![FaultPlan { kind, rate: 0.1, from_ms: 0, until_ms: 1 }];
        for n in (0..times).rev() {
            let seq = Seq::start_of(1).as_u64() + 2 + n;
            story.repeat_after("reported", "claimed again", |frame| frame["seq"] = json!(seq));
        }
        story.broken()
    };
    assert_eq!(late(1, FaultKind::Freeze), Vec::<String>::new());
    assert_eq!(late(1, FaultKind::SlowPost), Vec::<String>::new());
    assert_eq!(late(1, FaultKind::Throttle), [rules::SILENT_WITHOUT_LEASE]);
    assert_eq!(late(2, FaultKind::Freeze), [rules::SILENT_WITHOUT_LEASE]);
}

#[test]
fn a_function_whose_clock_is_fast_may_act_a_little_early() {
    let early = |faults: Vec<FaultPlan>| {
        let mut story = Story::failed();
        story.plan.faults = faults;
        story.item("given back", |item| item.n("timer_at", story::moment(8) + 2_000));
        story.broken()
    };
    assert_eq!(early(Vec::new()), [rules::LEGAL_STEP]);
    let skew = FaultPlan { kind: FaultKind::ClockSkew, rate: 1.0, from_ms: 0, until_ms: 1 };
    assert_eq!(early(vec![skew]), Vec::<String>::new());
}

/// What goes wrong on purpose is not held to what is exact.
#[test]
fn with_faults_only_what_faults_cannot_excuse_is_broken() {
    let kill = FaultPlan { kind: FaultKind::Kill, rate: 0.1, from_ms: 0, until_ms: 1 };
    let mut story = Story::completed();
    story.plan.faults = vec![kill];
    story.connections.push(json!({"connection_id": "c7", "ttl": 1}));
    story.stream_failures.push("{}".to_owned());
    assert_eq!(story.broken(), Vec::<String>::new());
    story.connections.push(json!({"connection_id": "c8"}));
    assert_eq!(story.broken(), [rules::CONNECTIONS_ARE_TRUE]);
}

#[test]
fn of_each_request_a_rule_is_reported_once() {
    let mut story = Story::completed();
    let ran = story.event("ran");
    for _ in 0..3 {
        story.insert_after("ran", ran.clone());
    }
    assert_eq!(story.broken(), [rules::RUNS_ONCE]);
}

/// The words in which a test says what it changes are those of the story.
#[test]
fn what_quick_handlers_do_is_nobodys_claim() {
    let mut story = Story::completed();
    story.estimate_ms = 10;
    let ran = story.event("ran");
    story.insert_after("ran", ran);
    assert_eq!(story.broken(), Vec::<String>::new());
    let is_begin =
        |what: &EventKind| matches!(what, EventKind::Handler(event) if event.phase == HandlerPhase::Begin);
    assert!(is_begin(&story.event("ran")));
    assert!(matches!(story.event("told"), EventKind::Fake(Observation::Posted { .. })));
    assert!(matches!(story.event("heard"), EventKind::Client(0, ClientEvent::Got(_))));
}
