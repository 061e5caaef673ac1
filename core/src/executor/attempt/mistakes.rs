//! Seeded bugs (deliberate mistakes that the simulator must catch) that make an attempt act at the wrong
//! time; see [`bugs`].

use super::Attempt;
use crate::bugs::{self, Bug};
use crate::connections::Connections;
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::delivery::TerminalFrame;
use crate::executor::ending::AttemptEnding;
use crate::ids::ConnectionId;
use crate::protocol::Frame;
use crate::store::{Audience, LastReport, RequestQueue};

impl<Q: RequestQueue, P: Connections, D: DeadLetters> Attempt<'_, Q, P, D> {
    /// Pushes the terminal frame or sends the dead letter before the terminal write, if the matching seeded bug
    /// is selected.
    pub(super) async fn run_early_side_effects(&mut self, ending: &AttemptEnding, last: &LastReport) {
        let AttemptEnding::Terminal(ending, history) = ending else { return };
        let executor = self.executor;
        if bugs::is(Bug::PushBeforeWrite) {
            let frame = TerminalFrame::of(&self.request.id, ending.clone(), last.seq, last.at).json;
            for subscriber in &self.request.subscribers {
                let _ = executor.connections.send(subscriber, &frame).await;
            }
        }
        if bugs::is(Bug::DeadLetterBeforeStatus) {
            let mut failed = self.request.clone();
            failed.payload = (*self.payload).clone();
            failed.history = history.clone();
            failed.seq = last.seq;
            failed.finished_at = Some(last.at);
            failed.ending = Some(ending.clone());
            if let Some(letter) = DeadLetter::of(&failed) {
                let _ = executor.dead_letters.send(&letter).await;
            }
        }
    }

    /// Returns the progress frames to push after the terminal frame; empty unless the matching seeded bug is
    /// selected.
    ///
    /// Each frame repeats the latest progress under the next sequence number.
    pub(super) fn late_progress(&self, audience: &Audience) -> Vec<(ConnectionId, String)> {
        if !bugs::is(Bug::ProgressAfterTerminal) {
            return Vec::new();
        }
        let frame = Frame::Progress {
            request_id: self.request.id.clone(),
            percentage: self.pushed.percentage,
            message: self.pushed.message.clone(),
            timestamp: self.executor.clock.now().as_secs(),
            metadata: self.pushed.metadata.clone(),
            seq: self.seq.next(),
        }
        .to_json();
        let to = audience.subscribers.iter();
        to.map(|subscriber| (subscriber.connection.clone(), frame.clone())).collect()
    }
}
