use std::process::ExitCode;

use clap::Args;
use streamer::ports::{Clock as _, SystemClock};

use super::{Outcome, State, Whom, say};

/// The `token` command.
#[derive(Args, Debug)]
pub(super) struct Token {
    #[command(flatten)]
    whom: Whom,
}

impl Token {
    pub(super) fn run(self) -> Outcome {
        let key = State::of(None)?.signing_key()?;
        say(&(key.sign(&self.whom.into(), SystemClock.now()) + "\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}
