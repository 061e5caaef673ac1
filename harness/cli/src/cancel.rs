use std::process::ExitCode;

use clap::Args;
use streamer::ids::{RequestId, RequestKey};
use streamer::ports::{Clock as _, SystemClock};
use streamer::store::{Cancelled, Status, StoreErrorKind, SubmitRequests as _};

use super::arguments::name;
use super::place::Place;
use super::process::{CommandResult, runtime, say};

/// The `cancel` command.
#[derive(Args, Debug)]
pub(super) struct Cancel {
    /// The request, as its client named it
    #[arg(value_parser = RequestId::parse)]
    id: RequestId,
    /// The user whose it is
    #[arg(long, value_parser = name)]
    user: String,
    /// The tenant that the user belongs to
    #[arg(long, value_parser = name)]
    tenant: String,
    #[command(flatten)]
    place: Place,
}

impl Cancel {
    pub(super) fn run(self) -> CommandResult {
        let Self { id, user, tenant, place } = self;
        runtime()?.block_on(async {
            let requests = place.find(false).await?.requests().await?;
            let key = RequestKey::new(&tenant.as_str().into(), &user.as_str().into(), &id);
            let became = match requests.cancel(&key, SystemClock.now()).await {
                Ok(Cancelled::Now { .. }) => "cancelled; whoever listens is told within a minute or two",
                Ok(Cancelled::Requested) => {
                    "it runs: whoever runs it is asked to stop, and learns of it at the next report or heartbeat"
                }
                Ok(Cancelled::Ended(Status::Cancelled)) => "it was cancelled already",
                Ok(Cancelled::Ended(status)) => {
                    return Err(format!("{key} has ended already: it is {}", status.as_str()).into());
                }
                // Only a connection's end spares what others listen to.
                Ok(Cancelled::HasOtherSubscribers) => return Err(format!("{key} goes on, since somebody listens").into()),
                Err(error) if error.kind() == StoreErrorKind::NotFound => {
                    return Err(format!(
                        "there is no request {id} of user {user} in tenant {tenant}: quick ones keep no record, and \
                         ended ones expire"
                    )
                    .into());
                }
                Err(error) => return Err(error.into()),
            };
            say(&format!("{key}: {became}\n"))?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
