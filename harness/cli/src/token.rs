use std::process::ExitCode;

use clap::Args;
use streamer::ports::{Clock as _, SystemClock};

use super::arguments::Whom;
use super::process::{CommandResult, say};
use super::state::State;

/// The `token` command.
#[derive(Args, Debug)]
pub(super) struct Token {
    #[command(flatten)]
    whom: Whom,
}

impl Token {
    pub(super) fn run(self) -> CommandResult {
        let key = State::of(None)?.signing_key()?;
        say(&(key.sign(&self.whom.into(), SystemClock.now()) + "\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}
