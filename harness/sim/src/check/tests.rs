//! Tests each rule in both directions: a complete story (a made-up sequence of events) breaks no rule, and a
//! story with one change breaks the rule that forbids the change.

mod story;

use serde_json::json;
use streamer::protocol::Seq;

use super::super::event::{ClientEvent, EventKind, HandlerPhase};
use super::super::plan::{FaultKind, FaultPlan};
use super::rules;
use story::{PROCESSOR, ROUTER, SWEEPER, Story, WORKER};
use streamer_fakes::observe::Observation;

#[test]
fn valid_event_sequences_break_no_rule() {
    for story in [Story::completed(), Story::failed(), Story::cancelled()] {
        assert_eq!(story.broken(), Vec::<String>::new());
    }
}

/// Name of a case, the rule that the case must break, and the change to the story.
type Case = (&'static str, &'static str, fn(&mut Story));

fn assert_broken(story: fn() -> Story, cases: &[Case]) {
    for (name, rule, change) in cases {
        let mut story = story();
        change(&mut story);
        let broken = story.broken();
        assert!(broken.iter().any(|broken| broken == rule), "{name}: expected {rule:?}, found {broken:?}");
    }
}

#[test]
fn incorrect_write_breaks_the_rule_that_forbids_it() {
    let cases: &[Case] = &[
        ("acknowledged request is not stored", rules::ACKNOWLEDGED_IS_STORED, |story| {
            story.keep_only(&["connecting", "opened", "connected", "sent", "acknowledged"]);
        }),
        ("request never becomes terminal", rules::BECOMES_TERMINAL_IN_TIME, |story| {
            story.remove(&[
                "terminal write",
                "terminal frame pushed",
                "terminal frame received",
                "delivery recorded",
            ]);
            story.last_at_secs = 100_000;
        }),
        ("request is missing from the final table", rules::BECOMES_TERMINAL_IN_TIME, |story| {
            story.items.clear()
        }),
        ("open request has no timer", rules::PENDING_WORK_HAS_A_TIMER, |story| {
            story.item("claimed", |item| item.without("timer_shard"))
        }),
        ("timer of a pending request is too late", rules::PENDING_WORK_HAS_A_TIMER, |story| {
            story.item("queued", |item| item.n("timer_at", 1_700_000_900_000))
        }),
        ("request is claimed again during its lease", rules::LEGAL_STEP, |story| {
            story.write_after("progress stored", PROCESSOR, 9, |item| {
                item.n("epoch", 2).n("attempt", 2).s("owner", "o2")
            });
        }),
        ("claim does not raise the attempt count", rules::LEGAL_STEP, |story| {
            story.item("claimed", |item| item.n("attempt", 0))
        }),
        ("sweeper completes a request", rules::LEGAL_STEP, |story| story.by("terminal write", SWEEPER, 5)),
        ("router completes a request", rules::LEGAL_STEP, |story| story.by("terminal write", ROUTER, 5)),
        ("new request begins with an epoch", rules::LEGAL_STEP, |story| {
            story.item("queued", |item| item.n("epoch", 1))
        }),
        ("sweeper reclaims a request before its lease ends", rules::LEGAL_STEP, |story| {
            story.write_after("progress stored", SWEEPER, 5, |item| {
                item.status("PENDING").without("owner").without("lease_expires_at").n("seq", 2 << 20)
            });
        }),
        ("result changes after the terminal write", rules::TERMINAL_STATE_STAYS, |story| {
            story.write_after("delivery recorded", PROCESSOR, 2, |item| item.s("result", "2"));
        }),
        ("request is cancelled after the terminal write", rules::TERMINAL_STATE_STAYS, |story| {
            story.write_after("delivery recorded", ROUTER, 1, |item| {
                item.status("CANCELLED").without("result")
            });
        }),
        ("environment without the claim stores progress", rules::FENCED, |story| {
            story.by("progress stored", PROCESSOR, 9)
        }),
        ("environment without the claim makes the terminal write", rules::FENCED, |story| {
            story.by("terminal write", WORKER, 9)
        }),
        ("router stores progress", rules::FENCED, |story| story.by("progress stored", ROUTER, 1)),
        ("stored sequence number falls", rules::STORED_SEQ_RISES, |story| {
            story.write_after("progress stored", PROCESSOR, 2, |item| item.n("seq", 1));
        }),
        ("stored sequence number belongs to a different epoch", rules::STORED_SEQ_RISES, |story| {
            story.item("progress stored", |item| item.n("seq", (7 << 20) + 1));
        }),
        ("terminal write repeats the sequence number of the last report", rules::STORED_SEQ_RISES, |story| {
            story.item("terminal write", |item| item.n("seq", (1 << 20) + 1));
        }),
        ("payload changes", rules::ONE_REQUEST, |story| {
            story.item("progress stored", |item| item.s("payload", "3"))
        }),
        ("request is queued again before it has expired", rules::ONE_REQUEST, |story| {
            let first = story.item_of("queued");
            story.write_after("delivery recorded", ROUTER, 1, |item| {
                *item = first.clone();
                item.n("created_at", 1_700_000_500_000)
            });
        }),
        ("request is stored under two keys", rules::ONE_REQUEST, |story| {
            let mut again = story.event("queued");
            if let EventKind::Fake(Observation::Wrote { keys, .. }) = &mut again {
                keys["request_id"] = json!({"S": "r1"});
            }
            story.insert_after("delivery recorded", again);
        }),
        ("stored request was never sent", rules::BELONGS_TO_ITS_USER, |story| story.sends_request = false),
        ("key and item name different users", rules::BELONGS_TO_ITS_USER, |story| {
            story.item("queued", |item| item.s("user_id", "bob"));
        }),
        ("connection of a different user is a subscriber", rules::BELONGS_TO_ITS_USER, |story| {
            story.item("progress stored", |item| item.subscribers(&["c1", "c2"]));
        }),
        ("request begins more attempts than allowed", rules::ATTEMPTS_BOUNDED, |story| {
            story.each_item(|item| item.n("max_attempts", 0));
        }),
        ("open request has a time to live", rules::ONLY_TERMINAL_EXPIRES, |story| {
            story.item("queued", |item| item.n("ttl", 1_700_604_800));
        }),
        ("terminal request has a wrong time to live", rules::ONLY_TERMINAL_EXPIRES, |story| {
            story.item("terminal write", |item| item.n("ttl", 1_700_000_900))
        }),
        ("open request is deleted", rules::ONLY_TERMINAL_EXPIRES, |story| {
            story.delete_after("progress stored")
        }),
        ("part item never expires", rules::ONLY_TERMINAL_EXPIRES, |story| {
            story.items.push(json!({"request_id": "acme/ann/r1", "part": "payload"}));
        }),
        ("status shard does not match the status", rules::ITEM_FITS_ITS_STATUS, |story| {
            story.item("claimed", |item| item.s("status_shard", "PENDING#3"));
        }),
        ("terminal request has a lease", rules::ITEM_FITS_ITS_STATUS, |story| {
            story.item("terminal write", |item| item.n("lease_expires_at", 1_700_000_900_000));
        }),
        ("terminal item cannot be parsed", rules::ITEM_FITS_ITS_STATUS, |story| {
            story.item("terminal write", |item| item.n("progress_message", 1));
        }),
        ("item has no status", rules::ITEM_FITS_ITS_STATUS, |story| {
            story.item("progress stored", |item| item.without("status"))
        }),
        ("terminal request keeps its timer", rules::NO_WORK_IS_LEFT, |story| {
            story.remove(&["delivery recorded"]);
            story.last_at_secs = 3_600;
        }),
        ("due item is never handled", rules::DUE_ITEM_IS_HANDLED, |story| {
            story.remove(&["delivery recorded"])
        }),
        ("due item is handled too late", rules::DUE_ITEM_IS_HANDLED, |story| {
            story.swap("delivery recorded", "faults ended");
            story.late(&["delivery recorded"], 500);
        }),
        ("subscriber is removed without the terminal frame", rules::SUBSCRIBERS_STAY, |story| {
            story.remove(&["terminal frame pushed", "terminal frame received"]);
        }),
        ("subscriber is removed while the request runs", rules::SUBSCRIBERS_STAY, |story| {
            story.item("progress stored", |item| item.subscribers(&[]));
        }),
        ("too many calls are made without a write", rules::WITHIN_BUDGET, |story| {
            for _ in 0..60 {
                story.calls_after("delivery recorded", PROCESSOR);
            }
        }),
        ("too many writes follow the terminal write", rules::WITHIN_BUDGET, |story| {
            for n in 0..3 {
                story.write_after("delivery recorded", PROCESSOR, 2, |item| {
                    item.n("timer_at", 1_700_000_900_000 + n)
                });
            }
        }),
        ("reports are stored too often", rules::PACED, |story| {
            for n in 0..9 {
                story.write_after("progress stored", PROCESSOR, 2, |item| {
                    item.n("lease_expires_at", 1_700_000_060_000 + n)
                });
            }
        }),
        ("job that always fails completes", rules::OUTCOME_FITS_THE_JOB, |story| {
            let payload = json!({"estimate_ms": 10_000, "end": "fail"}).to_string();
            story.each_item(|item| item.s("payload", &payload));
        }),
    ];
    assert_broken(Story::completed, cases);
}

#[test]
fn incorrect_frame_or_message_breaks_the_rule_that_forbids_it() {
    let cases: &[Case] = &[
        ("terminal frame is pushed before the terminal write", rules::WRITTEN_BEFORE_DELIVERED, |story| {
            story.swap("terminal write", "terminal frame pushed")
        }),
        ("environment without the claim pushes progress", rules::BELONGS_TO_ITS_USER, |story| {
            story.posted_by("progress pushed", PROCESSOR, 9)
        }),
        ("progress has an epoch that was never claimed", rules::NO_PUSH_WITHOUT_LEASE, |story| {
            story.frame("progress pushed", |frame| frame["seq"] = json!((4 << 20) + 1));
        }),
        ("progress is pushed after the lease was released", rules::NO_PUSH_WITHOUT_LEASE, |story| {
            story.write_after("progress stored", PROCESSOR, 2, |item| {
                item.status("RETRYING")
                    .n("seq", 2 << 20)
                    .without("lease_expires_at")
                    .n("timer_at", 1_700_000_900_000)
            });
            story.repeat_after("progress pushed", "progress stored", |frame| {
                frame["seq"] = json!((1 << 20) + 2)
            });
        }),
        ("progress is pushed after the terminal frame", rules::SEQ_RISES, |story| {
            story.repeat_after("progress pushed", "terminal frame pushed", |frame| {
                frame["seq"] = json!((1 << 20) + 9)
            });
        }),
        ("sequence number is pushed twice", rules::SEQ_RISES, |story| {
            story.repeat_after("progress pushed", "progress pushed", |_| ())
        }),
        ("sequence numbers rise too fast", rules::PACED, |story| {
            story.frame("progress pushed", |frame| frame["seq"] = json!((1 << 20) + 500));
        }),
        ("pushed result differs from the stored result", rules::ONE_TERMINAL_FRAME, |story| {
            story.frame("terminal frame pushed", |frame| frame["result"] = json!(7));
        }),
        ("terminal frame has a wrong sequence number", rules::ONE_TERMINAL_FRAME, |story| {
            story.frame("terminal frame pushed", |frame| frame["seq"] = json!(7));
        }),
        ("second terminal frame differs from the first terminal frame", rules::ONE_TERMINAL_FRAME, |story| {
            story.repeat_after("terminal frame pushed", "terminal frame pushed", |frame| {
                frame["timestamp"] = json!(1)
            });
        }),
        ("progress is pushed to a stranger", rules::BELONGS_TO_ITS_USER, |story| {
            story.to("progress pushed", "c2")
        }),
        ("terminal frame is pushed to a stranger", rules::BELONGS_TO_ITS_USER, |story| {
            story.to("terminal frame pushed", "c2")
        }),
        ("result names a stranger", rules::BELONGS_TO_ITS_USER, |story| {
            let result = json!({"user": "bob", "tenant": "acme", "id": "r1"});
            story.item("terminal write", |item| item.s("result", &result.to_string()));
            story.frame("terminal frame pushed", |frame| frame["result"] = result.clone());
        }),
        (
            "subscribed client does not receive the terminal frame",
            rules::TERMINAL_FRAME_IS_DELIVERED,
            |story| story.remove(&["terminal frame received"]),
        ),
        (
            "received terminal frame differs from the pushed terminal frame",
            rules::ONE_TERMINAL_FRAME,
            |story| {
                story.change_received("terminal frame received", |frame| frame["result"] = json!(7));
            },
        ),
        ("client receives a sequence number twice", rules::SEQ_RISES, |story| {
            let received = story.event("progress received");
            story.insert_after("progress received", received);
        }),
        ("acknowledged status never existed", rules::ACKNOWLEDGED_IS_STORED, |story| {
            story.change_received("acknowledged", |frame| frame["status"] = json!("completed"));
        }),
        ("message with an id is answered by an error without an id", rules::ERRORS_NAME_REQUESTS, |story| {
            story.gets_after("acknowledged", &json!({"type": "error", "error": {"code": "INTERNAL_ERROR"}}));
        }),
        ("CONFLICT for an id that was sent with only one payload", rules::REFUSAL_HAS_A_CAUSE, |story| {
            let frame = json!({"type": "error", "request_id": "r1", "error": {"code": "CONFLICT"}});
            story.gets_after("acknowledged", &frame);
        }),
        ("NOT_FOUND for a stored request", rules::REFUSAL_HAS_A_CAUSE, |story| {
            story.asks_after("acknowledged", "status");
            let frame = json!({"type": "error", "request_id": "q1", "error": {"code": "NOT_FOUND"}});
            story.gets_after("query sent", &frame);
        }),
        ("snapshot shows a status that never existed", rules::SNAPSHOT_MATCHES, |story| {
            story.asks_after("acknowledged", "status");
            let data = json!({"request_id": "r1", "status": "completed", "seq": 0});
            let frame = json!({"type": "response", "request_id": "q1", "success": true, "data": data});
            story.gets_after("query sent", &frame);
        }),
        ("handler runs twice for one claim", rules::RUNS_ONCE, |story| {
            let ran = story.event("ran");
            story.insert_after("ran", ran);
        }),
        ("handler runs without a claim", rules::RUNS_ONCE, |story| story.swap("claimed", "ran")),
        ("open connection has no item", rules::CONNECTIONS_MATCH, |story| story.connections.clear()),
        ("closed connection keeps its item", rules::CONNECTIONS_MATCH, |story| {
            story.connections.push(json!({"connection_id": "c7", "ttl": 1}));
        }),
        ("task outlives the stage", rules::NO_TASK_OUTLIVES_THE_STAGE, |story| story.tasks_left = 1),
        ("stream record is discarded without a fault", rules::NO_RECORD_IS_DISCARDED, |story| {
            story.stream_failures.push("{}".to_owned());
        }),
        ("dead letter of a request that has not failed", rules::LETTER_MATCHES_A_FAILURE, |story| {
            let letter = Story::failed().event("dead letter sent");
            story.insert_after("delivery recorded", letter);
        }),
    ];
    assert_broken(Story::completed, cases);
}

#[test]
fn incorrect_failure_or_cancellation_breaks_the_rule_that_forbids_it() {
    let cases: &[Case] = &[
        ("dead letter is sent before the terminal write", rules::LETTER_MATCHES_A_FAILURE, |story| {
            story.swap("terminal write", "dead letter sent");
        }),
        (
            "epoch of the dead letter differs from the request's epoch",
            rules::LETTER_MATCHES_A_FAILURE,
            |story| {
                story.letter(|letter| letter["id"] = json!("acme/ann/r1#1@1700000000000"));
            },
        ),
        (
            "payload of the dead letter differs from the request's payload",
            rules::LETTER_MATCHES_A_FAILURE,
            |story| {
                story.letter(|letter| letter["payload"] = json!(7));
            },
        ),
        (
            "error of the dead letter differs from the request's error",
            rules::LETTER_MATCHES_A_FAILURE,
            |story| {
                story.letter(|letter| letter["error"]["code"] = json!("TIMEOUT"));
            },
        ),
        ("failed request has no dead letter", rules::LETTERS_ARE_FAILURES, |story| {
            story.dead_letters.clear()
        }),
        ("dead letter belongs to no request", rules::LETTERS_ARE_FAILURES, |story| {
            let stray = story.dead_letters[0].replace("#2@", "#3@");
            story.dead_letters.push(stray);
        }),
        ("retry loses the attempt count", rules::LEGAL_STEP, |story| {
            story.item("pending again", |item| item.n("attempt", 0));
        }),
        ("retry is made pending before it is due", rules::LEGAL_STEP, |story| {
            story.item("retry scheduled", |item| item.n("timer_at", 1_700_000_900_000));
        }),
        ("sweeper's terminal write keeps the owner", rules::FENCED, |story| {
            story.item("pending again", |item| {
                item.status("FAILED")
                    .s("error", r#"{"code":"NO_GOOD","message":"this job always fails"}"#)
                    .s("owner", "o1")
            });
        }),
        ("job that succeeds fails for good", rules::OUTCOME_FITS_THE_JOB, |story| {
            let payload = json!({"estimate_ms": 10_000, "end": "succeed"}).to_string();
            story.each_item(|item| item.s("payload", &payload));
        }),
        ("pushed error differs from the stored error", rules::ONE_TERMINAL_FRAME, |story| {
            story.frame("terminal frame pushed", |frame| frame["error"]["code"] = json!("TIMEOUT"));
        }),
    ];
    assert_broken(Story::failed, cases);
    let cases: &[Case] = &[
        ("request is cancelled without a cancel from its user", rules::CANCEL_WAS_REQUESTED, |story| {
            story.remove(&["cancel sent"])
        }),
        ("cancelled request ends too late", rules::CANCEL_TAKES_EFFECT, |story| {
            story.late(&["terminal write", "terminal frame pushed", "terminal frame received"], 50)
        }),
        ("lease is reclaimed without a fault", rules::LEASE_IS_KEPT, |story| {
            story.by("terminal write", SWEEPER, 5);
            story.item("terminal write", |item| item.without("owner"));
        }),
    ];
    assert_broken(Story::cancelled, cases);
}

/// A late frame cannot be fenced. If a fault can freeze or delay its sender, one late frame is allowed for
/// each client and epoch.
#[test]
fn one_late_frame_is_excused_only_if_a_fault_can_delay_it() {
    let late = |times: u64, kind: FaultKind| {
        let mut story = Story::failed();
        story.plan.faults = vec![FaultPlan { kind, rate: 0.1, from_ms: 0, until_ms: 1 }];
        for n in (0..times).rev() {
            let seq = Seq::start_of(1).as_u64() + 2 + n;
            story.repeat_after("progress pushed", "claimed again", |frame| frame["seq"] = json!(seq));
        }
        story.broken()
    };
    assert_eq!(late(1, FaultKind::Freeze), Vec::<String>::new());
    assert_eq!(late(1, FaultKind::SlowPost), Vec::<String>::new());
    assert_eq!(late(1, FaultKind::Throttle), [rules::NO_PUSH_WITHOUT_LEASE]);
    assert_eq!(late(2, FaultKind::Freeze), [rules::NO_PUSH_WITHOUT_LEASE]);
}

#[test]
fn function_with_a_fast_clock_may_act_slightly_early() {
    let early = |faults: Vec<FaultPlan>| {
        let mut story = Story::failed();
        story.plan.faults = faults;
        story.item("retry scheduled", |item| item.n("timer_at", story::moment(8) + 2_000));
        story.broken()
    };
    assert_eq!(early(Vec::new()), [rules::LEGAL_STEP]);
    let skew = FaultPlan { kind: FaultKind::ClockSkew, rate: 1.0, from_ms: 0, until_ms: 1 };
    assert_eq!(early(vec![skew]), Vec::<String>::new());
}

/// With faults, the rules that hold only without faults are not applied.
#[test]
fn leftovers_that_a_fault_can_cause_break_no_rule_in_a_world_with_faults() {
    let kill = FaultPlan { kind: FaultKind::Kill, rate: 0.1, from_ms: 0, until_ms: 1 };
    let mut story = Story::completed();
    story.plan.faults = vec![kill];
    story.connections.push(json!({"connection_id": "c7", "ttl": 1}));
    story.stream_failures.push("{}".to_owned());
    assert_eq!(story.broken(), Vec::<String>::new());
    story.connections.push(json!({"connection_id": "c8"}));
    assert_eq!(story.broken(), [rules::CONNECTIONS_MATCH]);
}

#[test]
fn broken_rule_is_reported_once_for_each_request() {
    let mut story = Story::completed();
    let ran = story.event("ran");
    for _ in 0..3 {
        story.insert_after("ran", ran.clone());
    }
    assert_eq!(story.broken(), [rules::RUNS_ONCE]);
}

/// The last three assertions check that events of the story have the kinds that their names say.
#[test]
fn handler_that_starts_twice_for_a_quick_request_breaks_no_rule() {
    let mut story = Story::completed();
    story.estimate_ms = 10;
    let ran = story.event("ran");
    story.insert_after("ran", ran);
    assert_eq!(story.broken(), Vec::<String>::new());
    let is_begin =
        |kind: &EventKind| matches!(kind, EventKind::Handler(event) if event.phase == HandlerPhase::Begin);
    assert!(is_begin(&story.event("ran")));
    assert!(matches!(story.event("terminal frame pushed"), EventKind::Fake(Observation::Posted { .. })));
    assert!(matches!(story.event("progress received"), EventKind::Client(0, ClientEvent::Got(_))));
}
