//! What an attempt does at the wrong moment, where that is chosen: see [`bugs`].

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
    /// Does before the end is written what is to follow it.
    pub(super) async fn before_it_is_written(&mut self, ending: &AttemptEnding, last: &LastReport) {
        let AttemptEnding::Ended(ending, history) = ending else { return };
        let executor = self.executor;
        if bugs::is(Bug::PushBeforeWrite) {
            let frame = TerminalFrame::of(&self.request.id, ending.clone(), last.seq, last.at).json;
            for listening in &self.request.subscribers {
                let _ = executor.connections.send(listening, &frame).await;
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

    /// What is pushed once the end is told, and to whom: the last report, under the number that comes next.
    pub(super) fn late_reports(&self, audience: &Audience) -> Vec<(ConnectionId, String)> {
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
        to.map(|listens| (listens.connection.clone(), frame.clone())).collect()
    }
}
