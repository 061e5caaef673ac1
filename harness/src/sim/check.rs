//! What must hold: each invariant, as soon as it can be told, and at the end.

use serde_json::Value;
use streamer::ports::Timestamp;

use super::plan::Plan;
use super::record::Event;

/// Something that must not be, and was.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Violation {
    /// Which rule was broken, such as `2: a terminal state never changes`.
    pub rule: String,
    /// When it showed, on the world's clock.
    pub at: Timestamp,
    /// The request that it is about, if it is about one, as `tenant/user/id`.
    pub request: Option<String>,
    /// What was seen.
    pub message: String,
}

/// Watches a world, and knows what was wrong with it.
#[derive(Debug)]
pub(super) struct Checker {
    violations: Vec<Violation>,
}

/// How a world stands when all is over.
#[derive(Debug)]
pub(super) struct Final {
    pub(super) at: Timestamp,
    /// Every item of the requests table.
    pub(super) requests: Vec<Value>,
    /// Every item of the connections table.
    pub(super) connections: Vec<Value>,
    /// The bodies of what lies in the dead-letter queue.
    pub(super) dead_letters: Vec<String>,
    /// The bodies of what lies in the queue for records that cannot be processed.
    pub(super) stream_failures: Vec<String>,
    /// Tasks that are there though the stage has ended.
    pub(super) tasks_left: usize,
}

impl Checker {
    pub(super) fn new(_plan: &Plan) -> Self {
        Self { violations: Vec::new() }
    }

    /// Takes note of what has happened.
    pub(super) fn saw(&mut self, _event: &Event) {}

    /// Looks at how all stands in the end.
    pub(super) fn finish(&mut self, last: &Final) {
        if last.tasks_left > 0 {
            self.violations.push(Violation {
                rule: "no task is left".to_owned(),
                at: last.at,
                request: None,
                message: format!("{} tasks are left though the stage has ended", last.tasks_left),
            });
        }
    }

    pub(super) fn violations(&self) -> &[Violation] {
        &self.violations
    }
}
