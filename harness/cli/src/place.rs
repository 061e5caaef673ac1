//! Which stage an operator means: the one that runs on this machine, or a deployed stack.

use std::error::Error;

use aws_config::SdkConfig;
use clap::Args;
use streamer::store::dynamodb::{DynamoRequestQueue, QueueSettings};
use streamer_harness::tables::innermost;

use super::aws::{Whereto, expect_credentials, prefix};
use super::ready::Ready;
use super::state::State;

/// Which stage. Where nothing is said, it is the local stage of this workspace.
#[derive(Args, Debug)]
pub(super) struct Place {
    /// What the names of the stack's table and queue begin with: NAME-RequestsTable, NAME-DeadLetterQueue
    /// [default: streamer, at an --endpoint and on this machine]
    #[arg(long, value_name = "NAME", value_parser = prefix)]
    prefix: Option<String>,
    /// The requests table [default: the one of that prefix]
    #[arg(long, value_name = "NAME", value_parser = super::arguments::name)]
    requests_table: Option<String>,
    #[command(flatten)]
    whereto: Whereto,
}

/// A stage whose services can be called.
#[derive(Debug)]
pub(super) struct At {
    pub(super) config: SdkConfig,
    /// Not known of a stack on AWS that nobody has named: what it has is to be named one by one.
    prefix: Option<String>,
    requests_table: Option<String>,
}

impl Place {
    const LOCAL_PREFIX: &str = "streamer";

    /// Finds the stage; `is_named` when something else names a part of it.
    ///
    /// AWS is never meant by default: whoever forgot to start the local stage must not find himself in production.
    pub(super) async fn find(self, is_named: bool) -> Result<At, Box<dyn Error>> {
        let Self { prefix, requests_table, mut whereto } = self;
        let means_aws = is_named || prefix.is_some() || requests_table.is_some() || whereto.region.is_some();
        if whereto.endpoint.is_none() && !means_aws {
            let running = State::of(None).ok().and_then(|state| Ready::read_running(&state.running()));
            let Some(ready) = running else {
                return Err(
                    "no local stage is running in this workspace: start one with `streamer local`, name \
                            its --endpoint, or a deployed stack by --prefix"
                        .into(),
                );
            };
            whereto.endpoint = Some(ready.dynamodb_url.parse()?);
        }
        let is_endpoint_named = whereto.endpoint.is_some();
        let (config, _) = whereto.config().await?;
        expect_credentials(&config).await?;
        let prefix = prefix.or_else(|| is_endpoint_named.then(|| Self::LOCAL_PREFIX.to_owned()));
        Ok(At { config, prefix, requests_table })
    }
}

impl At {
    /// The requests of the stage.
    pub(super) async fn requests(&self) -> Result<DynamoRequestQueue, Box<dyn Error>> {
        let client = aws_sdk_dynamodb::Client::new(&self.config);
        let table = match &self.requests_table {
            Some(table) => table.clone(),
            None => {
                self.stack("table", "--requests-table NAME")?;
                let pages = client.list_tables().into_paginator().items().send();
                let names = pages.try_collect().await.map_err(|error| {
                    format!("the tables cannot be listed: {}; name it by --requests-table", innermost(&error))
                })?;
                self.the_one("table", "RequestsTable", names, "--requests-table NAME")?
            }
        };
        Ok(DynamoRequestQueue::new(client, table, QueueSettings::default()))
    }

    /// Of these names, the one of the stack's resource: CloudFormation adds random letters to a name that it makes.
    pub(super) fn the_one(
        &self,
        what: &str,
        resource: &str,
        names: impl IntoIterator<Item = String>,
        by: &str,
    ) -> Result<String, String> {
        let wanted = format!("{}-{resource}", self.stack(what, by)?);
        let is_of_stack = |name: &str| {
            let name = name.rsplit('/').next().unwrap_or(name);
            name.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let mut found: Vec<String> = names.into_iter().filter(|name| is_of_stack(name)).collect();
        match (found.pop(), found.as_slice()) {
            (Some(one), []) => Ok(one),
            (None, _) => Err(format!(
                "there is no {what} {wanted} here, nor one whose name begins with {wanted}-: name the stack by \
                 --prefix NAME, or the {what} by {by}"
            )),
            (Some(last), others) => Err(format!(
                "more than one {what} is called {wanted} or {wanted}-…: {}, {last}; name yours by {by}",
                others.join(", ")
            )),
        }
    }

    /// What the names of the stack's queues begin with, if they are of this resource.
    pub(super) fn name_of(&self, resource: &str) -> Result<String, String> {
        Ok(format!("{}-{resource}", self.stack("queue", "--queue-url URL")?))
    }

    /// The stack's name. It is never guessed on AWS: requests of one stack must not be made anew in another.
    fn stack(&self, what: &str, by: &str) -> Result<&str, String> {
        let unnamed = || {
            format!(
                "which {what} is meant is not known: name the stack by --prefix NAME, or the {what} by {by}"
            )
        };
        self.prefix.as_deref().ok_or_else(unnamed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_the_stack_alone_or_with_random_letters() {
        let config = SdkConfig::builder().build();
        let at = At { config, prefix: Some("prod".into()), requests_table: None };
        let one = |names: &[&str]| {
            at.the_one("queue", "DeadLetterQueue", names.iter().map(ToString::to_string), "--queue-url URL")
        };
        let url = "https://sqs.eu-west-1.amazonaws.com/1/prod-DeadLetterQueue-1A2B3C";
        assert_eq!(one(&["https://x/1/prod2-DeadLetterQueue", url]), Ok(url.to_owned()));
        assert_eq!(one(&["prod-DeadLetterQueue"]), Ok("prod-DeadLetterQueue".to_owned()));
        let none = one(&["prod-DeadLetterQueues"]).unwrap_err();
        assert!(none.contains("no queue prod-DeadLetterQueue") && none.contains("--prefix NAME"), "{none}");
        let two = one(&["prod-DeadLetterQueue-1", "prod-DeadLetterQueue-2"]).unwrap_err();
        assert!(two.contains("prod-DeadLetterQueue-1, prod-DeadLetterQueue-2; name yours by"), "{two}");
    }
}
