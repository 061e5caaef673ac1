use std::process::ExitCode;

use clap::Args;
use streamer::ids::{RequestId, RequestKey};
use streamer::ports::{Clock as _, SystemClock};
use streamer::store::{Cancelled, Status, StoreErrorKind, SubmitRequests as _};

use super::arguments::non_empty;
use super::place::StageArguments;
use super::process::{CommandResult, print, runtime};

/// The `cancel` command: cancels one request of a user.
#[derive(Args, Debug)]
pub(super) struct Cancel {
    /// Request id, which the client chose
    #[arg(value_parser = RequestId::parse)]
    id: RequestId,
    /// User who sent the request
    #[arg(long, value_parser = non_empty)]
    user: String,
    /// Tenant of the user who sent the request
    #[arg(long, value_parser = non_empty)]
    tenant: String,
    #[command(flatten)]
    stage: StageArguments,
}

impl Cancel {
    pub(super) fn run(self) -> CommandResult {
        let Self { id, user, tenant, stage } = self;
        runtime()?.block_on(async {
            let requests = stage.find(false).await?.requests().await?;
            let key = RequestKey::new(&tenant.as_str().into(), &user.as_str().into(), &id);
            let outcome = match requests.cancel(&key, SystemClock.now()).await {
                Ok(Cancelled::Now { .. }) => {
                    "cancelled; clients are told within two minutes"
                }
                Ok(Cancelled::Requested) => {
                    "cancel requested; the handler is told at its next stored progress report or lease renewal (by \
                     default within 20 s)"
                }
                Ok(Cancelled::Ended(Status::Cancelled)) => "already cancelled",
                Ok(Cancelled::Ended(status)) => {
                    return Err(format!("request {key} is already {}", status.as_str()).into());
                }
                // Only the cancel at the end of a connection has this outcome: `cancel` ignores other
                // subscribers.
                Ok(Cancelled::HasOtherSubscribers) => {
                    return Err(format!("request {key} is not cancelled, because it has other subscribers").into());
                }
                Err(error) if error.kind() == StoreErrorKind::NotFound => {
                    return Err(format!(
                        "user {user} of tenant {tenant} has no request {id} (quick requests are not stored, and \
                         finished requests expire)"
                    )
                    .into());
                }
                Err(error) => return Err(error.into()),
            };
            print(&format!("{key}: {outcome}\n"))?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
