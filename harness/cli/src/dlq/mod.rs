mod display;
mod queue;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use streamer::dead_letters::{Redriven, redrive};
use streamer::ports::{Clock as _, SystemClock};
use streamer::store::dynamodb::DynamoRequestQueue;

use self::queue::{DeadLetterQueue, Reading, ReceivedLetter};
use super::place::StageArguments;
use super::process::{CommandResult, print, runtime};

/// The `dlq` command: lists, shows and redrives the dead letters of a stage.
#[derive(Debug, Subcommand)]
pub(super) enum Dlq {
    /// List the dead letters, without removing them from the queue
    List {
        #[command(flatten)]
        source: Source,
        /// Print JSON, with every field of each dead letter
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter: the request, its payload, its error and its attempts
    Show {
        /// Id of the dead letter, as `streamer dlq list` prints it
        id: String,
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Queue a new request for each dead letter, and delete the dead letter from the queue
    ///
    /// A dead letter that cannot be redriven stays in the queue, and the command exits with 1.
    Redrive {
        /// Ids of the dead letters, as `streamer dlq list` prints them
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// Redrive all dead letters in the queue (at most --limit)
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        source: Source,
    },
}

/// Arguments that select the dead-letter queue, and the number of messages to read.
#[derive(Args, Debug)]
pub(super) struct Source {
    /// URL of the dead-letter queue [default: the stack's DeadLetterQueue]
    #[arg(long, value_name = "URL", value_parser = super::arguments::non_empty)]
    queue_url: Option<String>,
    /// Maximum number of messages to read from the queue
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    stage: StageArguments,
}

impl Dlq {
    pub(super) fn run(self) -> CommandResult {
        runtime()?.block_on(async {
            match self {
                Self::List { source, json } => {
                    let (queue, reading) = source.read().await?;
                    let text = if json {
                        display::list_as_json(&reading)
                    } else {
                        display::list(&reading, queue.url())
                    };
                    queue.release(&reading.receipts()).await;
                    print(&text)?;
                    Ok(ExitCode::SUCCESS)
                }
                Self::Show { id, source, json } => {
                    let (queue, reading) = source.read().await?;
                    queue.release(&reading.receipts()).await;
                    let received = reading.letter(&id).ok_or_else(|| unknown(&id, &reading))?;
                    print(&if json { display::letter_as_json(received) } else { display::letter(received) })?;
                    Ok(ExitCode::SUCCESS)
                }
                Self::Redrive { ids, all, source } => {
                    let stage = source.stage.find(source.queue_url.is_some()).await?;
                    // The requests table is found first, so that an unknown table fails the command before it
                    // receives messages.
                    let requests = stage.requests().await?;
                    let queue = DeadLetterQueue::open(&stage, source.queue_url).await?;
                    let reading = queue.read(source.limit).await?;
                    let outcome = Redrive { queue: &queue, requests: &requests, reading: &reading }
                        .run(if all { None } else { Some(&ids) })
                        .await;
                    // SQS ignores the receipt handles of the messages that were deleted.
                    queue.release(&reading.receipts()).await;
                    outcome
                }
            }
        })
    }
}

impl Source {
    async fn read(self) -> Result<(DeadLetterQueue, Reading), Box<dyn std::error::Error>> {
        let stage = self.stage.find(self.queue_url.is_some()).await?;
        let queue = DeadLetterQueue::open(&stage, self.queue_url).await?;
        let reading = queue.read(self.limit).await?;
        Ok((queue, reading))
    }
}

fn unknown(id: &str, reading: &Reading) -> String {
    if reading.is_complete {
        format!("there is no dead letter {id}; `streamer dlq list` prints the ids")
    } else {
        format!("there is no dead letter {id} among the messages that were read; raise --limit")
    }
}

/// Redrives dead letters one after the other, and prints the outcome of each.
struct Redrive<'a> {
    queue: &'a DeadLetterQueue,
    requests: &'a DynamoRequestQueue,
    reading: &'a Reading,
}

impl Redrive<'_> {
    /// Redrives the letters with these ids, or all letters if `ids` is `None`.
    async fn run(&self, ids: Option<&[String]>) -> CommandResult {
        let mut all_redriven = true;
        match ids {
            Some(ids) => {
                for id in ids {
                    let outcome = match self.reading.letter(id) {
                        Some(received) => self.redrive_one(received).await,
                        None => Err(format!("not redriven: {}", unknown(id, self.reading))),
                    };
                    all_redriven &= report(id, outcome)?;
                }
            }
            None => {
                for received in &self.reading.letters {
                    all_redriven &= report(&received.letter.id, self.redrive_one(received).await)?;
                }
                for unreadable in &self.reading.unreadable {
                    let problem = format!("not redriven: not a dead letter ({})", unreadable.problem);
                    all_redriven &= report(&format!("message {}", unreadable.message_id), Err(problem))?;
                }
                if !self.reading.is_complete {
                    print("There may be more dead letters; run this command again, or raise --limit.\n")?;
                    all_redriven = false;
                }
                if self.reading.is_empty() {
                    print(&format!("There are no dead letters in {}\n", self.queue.url()))?;
                }
            }
        }
        Ok(if all_redriven { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn redrive_one(&self, received: &ReceivedLetter) -> Result<String, String> {
        let letter = &received.letter;
        let redriven = redrive(self.requests, letter, SystemClock.now()).await;
        let redriven =
            redriven.map_err(|error| format!("not redriven: {}; try again", with_causes(&error)))?;
        let outcome = match redriven {
            Redriven::New(id) => format!("redriven as {id}"),
            Redriven::Already(id) => format!("already redriven as {id}"),
            Redriven::Conflict(id) => {
                return Err(format!(
                    "not redriven: user {} of tenant {} already has a request {id} that was not made from this dead \
                     letter; wait until that request expires, or delete its item",
                    letter.user, letter.tenant
                ));
            }
            Redriven::Incomplete => {
                return Err(
                    "not redriven: the dead letter omits a large value such as the payload, and the request \
                            has expired; the client must send the request again"
                        .to_owned(),
                );
            }
        };
        match self.queue.delete(received).await {
            Ok(()) => Ok(outcome),
            Err(problem) => Err(format!(
                "{outcome}, but the message could not be deleted ({problem}); the dead letter stays in the queue, and \
                 a repeated redrive creates no second request"
            )),
        }
    }
}

/// Prints the outcome for one dead letter, and returns whether the letter was redriven and deleted.
fn report(id: &str, outcome: Result<String, String>) -> std::io::Result<bool> {
    let is_redriven = outcome.is_ok();
    let (Ok(text) | Err(text)) = outcome;
    print(&format!("{}: {text}\n", display::plain(id)))?;
    Ok(is_redriven)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
