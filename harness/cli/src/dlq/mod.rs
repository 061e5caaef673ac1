mod letter_box;
mod shown;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use streamer::dead_letters::{Redriven, redrive};
use streamer::ports::{Clock as _, SystemClock};
use streamer::store::dynamodb::DynamoRequestQueue;

use self::letter_box::{Found, LetterBox, Reading};
use super::place::Place;
use super::process::{CommandResult, runtime, say};

/// The `dlq` command.
#[derive(Debug, Subcommand)]
pub(super) enum Dlq {
    /// List the requests that have failed for good; they stay in the queue
    List {
        #[command(flatten)]
        from: From,
        /// As JSON, each with everything that is known of it
        #[arg(long)]
        json: bool,
    },
    /// Show everything about one: its payload, what its client was told, its attempts
    Show {
        /// Its id, as `list` shows it
        id: String,
        #[command(flatten)]
        from: From,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a new request from each, and take it out of the queue; exits with 1 if one is left there
    Redrive {
        /// Their ids, as `list` shows them
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All that there are
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        from: From,
    },
}

/// Which letters.
#[derive(Args, Debug)]
pub(super) struct From {
    /// The dead-letter queue [default: the one of the stack]
    #[arg(long, value_name = "URL", value_parser = super::arguments::name)]
    queue_url: Option<String>,
    /// How many messages are looked at
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    place: Place,
}

impl Dlq {
    pub(super) fn run(self) -> CommandResult {
        runtime()?.block_on(async {
            match self {
                Self::List { from, json } => {
                    let (letters, reading) = from.read().await?;
                    let said = if json {
                        shown::list_as_json(&reading)
                    } else {
                        shown::list(&reading, letters.url())
                    };
                    letters.give_back(&reading.receipts()).await;
                    say(&said)?;
                    Ok(ExitCode::SUCCESS)
                }
                Self::Show { id, from, json } => {
                    let (letters, reading) = from.read().await?;
                    letters.give_back(&reading.receipts()).await;
                    let found = reading.letter(&id).ok_or_else(|| unknown(&id, &reading))?;
                    say(&if json { shown::letter_as_json(found) } else { shown::letter(found) })?;
                    Ok(ExitCode::SUCCESS)
                }
                Self::Redrive { ids, all, from } => {
                    let at = from.place.find(from.queue_url.is_some()).await?;
                    // First of all: where it is not known to whom the letters belong, none is touched.
                    let requests = at.requests().await?;
                    let letters = LetterBox::open(&at, from.queue_url).await?;
                    let reading = letters.read(from.limit).await?;
                    let outcome = Redrive { letters: &letters, requests: &requests, reading: &reading }
                        .run(if all { None } else { Some(&ids) })
                        .await;
                    // Those whose messages were deleted are gone, whatever is asked of them.
                    letters.give_back(&reading.receipts()).await;
                    outcome
                }
            }
        })
    }
}

impl From {
    async fn read(self) -> Result<(LetterBox, Reading), Box<dyn std::error::Error>> {
        let at = self.place.find(self.queue_url.is_some()).await?;
        let letters = LetterBox::open(&at, self.queue_url).await?;
        let reading = letters.read(self.limit).await?;
        Ok((letters, reading))
    }
}

fn unknown(id: &str, reading: &Reading) -> String {
    if reading.is_whole {
        format!("there is no dead letter {id}: `streamer dlq list` shows which there are")
    } else {
        format!("there is no dead letter {id} among the first that were looked at: raise --limit")
    }
}

/// Makes requests from letters, and says of each what became of it.
struct Redrive<'a> {
    letters: &'a LetterBox,
    requests: &'a DynamoRequestQueue,
    reading: &'a Reading,
}

impl Redrive<'_> {
    /// Of these, or of all.
    async fn run(&self, ids: Option<&[String]>) -> CommandResult {
        let mut is_all_done = true;
        match ids {
            Some(ids) => {
                for id in ids {
                    let became = match self.reading.letter(id) {
                        Some(found) => self.one(found).await,
                        None => Err(unknown(id, self.reading)),
                    };
                    is_all_done &= tell(id, became)?;
                }
            }
            None => {
                for found in &self.reading.letters {
                    is_all_done &= tell(&found.letter.id, self.one(found).await)?;
                }
                for unreadable in &self.reading.unreadable {
                    let problem = format!("it is no dead letter: {}", unreadable.problem);
                    is_all_done &= tell(&format!("message {}", unreadable.message_id), Err(problem))?;
                }
                if !self.reading.is_whole {
                    say("There may be more: run this again, or raise --limit.\n")?;
                    is_all_done = false;
                }
                if self.reading.is_empty() {
                    say(&format!("There are no dead letters in {}\n", self.letters.url()))?;
                }
            }
        }
        Ok(if is_all_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn one(&self, found: &Found) -> Result<String, String> {
        let letter = &found.letter;
        let redriven = redrive(self.requests, letter, SystemClock.now()).await;
        let made = match redriven.map_err(|error| format!("{}; try again", streamer_causes(&error)))? {
            Redriven::New(id) => format!("queued anew as {id}"),
            Redriven::Already(id) => format!("had been queued anew as {id}"),
            Redriven::Conflict(id) => {
                return Err(format!(
                    "user {} in tenant {} has another request {id}, which is not from this letter: wait until it has \
                     expired, or delete its item",
                    letter.user, letter.tenant
                ));
            }
            Redriven::Incomplete => {
                return Err("its payload was too large for the letter, and the request itself has expired: \
                            its client must send it again"
                    .to_owned());
            }
        };
        match self.letters.delete(found).await {
            Ok(()) => Ok(made),
            Err(problem) => Err(format!(
                "{made}, but its message could not be deleted ({problem}): it will be listed again, and a redrive \
                 makes no second request"
            )),
        }
    }
}

/// Says what became of a letter, and returns whether all is done.
fn tell(id: &str, became: Result<String, String>) -> std::io::Result<bool> {
    let (done, text) = match became {
        Ok(text) => (true, text),
        Err(text) => (false, format!("left in the queue: {text}")),
    };
    say(&format!("{}: {text}\n", shown::plain(id)))?;
    Ok(done)
}

fn streamer_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
