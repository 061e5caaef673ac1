use std::process::ExitCode;

use clap::Args;
use streamer::ports::{Clock as _, SystemClock};

use super::arguments::TokenArguments;
use super::process::{CommandResult, print};
use super::state::State;

/// The `token` command: prints a token that the local stage accepts.
#[derive(Args, Debug)]
pub(super) struct Token {
    #[command(flatten)]
    claims: TokenArguments,
}

impl Token {
    pub(super) fn run(self) -> CommandResult {
        let key = State::of(None)?.signing_key()?;
        print(&(key.sign(&self.claims.into(), SystemClock.now()) + "\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}
