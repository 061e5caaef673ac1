//! Selects the stage that a command works on: the local stage of this workspace, or a deployed stack.

use std::error::Error;

use aws_config::SdkConfig;
use clap::Args;
use http::Uri;
use streamer::store::dynamodb::{DynamoRequestQueue, QueueSettings};
use streamer_harness::tables::innermost;

use super::aws::{AwsArguments, expect_credentials, parse_endpoint, parse_prefix};
use super::ready::Ready;
use super::state::State;

/// Arguments that select a stage. Without any of them, the command uses the running local stage of this
/// workspace.
#[derive(Args, Debug)]
pub(super) struct StageArguments {
    /// Name of the CloudFormation stack; its table is found as NAME-RequestsTable, its queue as
    /// NAME-DeadLetterQueue. Required on AWS unless table and queue are named directly [default elsewhere:
    /// streamer]
    #[arg(long, value_name = "NAME", value_parser = parse_prefix)]
    prefix: Option<String>,
    /// Physical name of the table that stores the requests [default: the stack's RequestsTable]
    #[arg(long, value_name = "NAME", value_parser = super::arguments::non_empty)]
    requests_table: Option<String>,
    /// URL of the AWS endpoint, such as http://127.0.0.1:4000 for a local stage [default: the running local
    /// stage; AWS if --prefix, --region or a resource is given]
    #[arg(long, value_name = "URL", value_parser = parse_endpoint)]
    endpoint: Option<Uri>,
    /// AWS region [default: the AWS CLI's region; for an endpoint on this machine, AWS_REGION or us-east-1]
    #[arg(long)]
    region: Option<String>,
}

/// A selected stage, with the SDK configuration that reaches its services.
#[derive(Debug)]
pub(super) struct SelectedStage {
    pub(super) config: SdkConfig,
    /// Name of the stack; `None` on AWS without `--prefix`. Without a name, each resource needs its own
    /// argument, such as `--requests-table`.
    prefix: Option<String>,
    requests_table: Option<String>,
}

impl StageArguments {
    const LOCAL_PREFIX: &str = "streamer";

    /// Finds the stage. `is_named` is true if another argument of the command names a resource of the stage.
    ///
    /// AWS is never the default: an operator who forgot to start the local stage must not change production.
    pub(super) async fn find(self, is_named: bool) -> Result<SelectedStage, Box<dyn Error>> {
        let Self { prefix, requests_table, mut endpoint, region } = self;
        let selects_aws = is_named || prefix.is_some() || requests_table.is_some() || region.is_some();
        if endpoint.is_none() && !selects_aws {
            let running = State::of(None).ok().and_then(|state| Ready::read_running(&state.running()));
            let Some(ready) = running else {
                return Err(
                    "no local stage is running in this workspace; start one with `streamer local`, or select another \
                     stage with --endpoint or --prefix"
                        .into(),
                );
            };
            endpoint = Some(ready.dynamodb_url.parse()?);
        }
        let has_endpoint = endpoint.is_some();
        let (config, _) = AwsArguments { endpoint, region }.config().await?;
        expect_credentials(&config).await?;
        let prefix = prefix.or_else(|| has_endpoint.then(|| Self::LOCAL_PREFIX.to_owned()));
        Ok(SelectedStage { config, prefix, requests_table })
    }
}

impl SelectedStage {
    /// Opens the requests table of the stage. Without `--requests-table`, finds the table's name in the list
    /// of all tables.
    pub(super) async fn requests(&self) -> Result<DynamoRequestQueue, Box<dyn Error>> {
        let client = aws_sdk_dynamodb::Client::new(&self.config);
        let table = match &self.requests_table {
            Some(table) => table.clone(),
            None => {
                self.stack_name("table", "--requests-table NAME")?;
                let pages = client.list_tables().into_paginator().items().send();
                let names = pages.try_collect().await.map_err(|error| {
                    format!("the tables cannot be listed ({}); pass --requests-table NAME", innermost(&error))
                })?;
                self.find_resource("table", "RequestsTable", names, "--requests-table NAME")?
            }
        };
        Ok(DynamoRequestQueue::new(client, table, QueueSettings::default()))
    }

    /// Returns the name among `names` that belongs to a resource of the stack. CloudFormation appends random
    /// characters to names that it generates, so `STACK-RESOURCE-…` matches too. `kind` and `flag` are for
    /// error messages: the kind of the resource, and the argument that names it directly.
    pub(super) fn find_resource(
        &self,
        kind: &str,
        resource: &str,
        names: impl IntoIterator<Item = String>,
        flag: &str,
    ) -> Result<String, String> {
        let wanted = format!("{}-{resource}", self.stack_name(kind, flag)?);
        let is_of_stack = |name: &str| {
            let name = name.rsplit('/').next().unwrap_or(name);
            name.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let mut found: Vec<String> = names.into_iter().filter(|name| is_of_stack(name)).collect();
        match (found.pop(), found.as_slice()) {
            (Some(one), []) => Ok(one),
            (None, _) => Err(format!(
                "there is no {kind} named {wanted} or {wanted}-…; pass the stack's name with --prefix NAME, or \
                 name the {kind} with {flag}"
            )),
            (Some(last), others) => Err(format!(
                "several {kind}s are named {wanted} or {wanted}-… ({}, {last}); choose one with {flag}",
                others.join(", ")
            )),
        }
    }

    /// Returns the prefix of the queue names that CloudFormation generates for this resource of the stack.
    pub(super) fn queue_name_prefix(&self, resource: &str) -> Result<String, String> {
        Ok(format!("{}-{resource}", self.stack_name("queue", "--queue-url URL")?))
    }

    /// Returns the name of the stack. On AWS the name is never guessed, because dead letters of one stack must
    /// not be redriven into another stack.
    fn stack_name(&self, kind: &str, flag: &str) -> Result<&str, String> {
        let unnamed = || {
            format!(
                "no stack is selected; pass the name of the stack with --prefix NAME, or the name of the {kind} with {flag}"
            )
        };
        self.prefix.as_deref().ok_or_else(unnamed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_is_found_by_the_stack_name_with_or_without_a_random_suffix() {
        let config = SdkConfig::builder().build();
        let stage = SelectedStage { config, prefix: Some("prod".into()), requests_table: None };
        let find = |names: &[&str]| {
            stage.find_resource(
                "queue",
                "DeadLetterQueue",
                names.iter().map(ToString::to_string),
                "--queue-url URL",
            )
        };
        let url = "https://sqs.eu-west-1.amazonaws.com/1/prod-DeadLetterQueue-1A2B3C";
        assert_eq!(find(&["https://x/1/prod2-DeadLetterQueue", url]), Ok(url.to_owned()));
        assert_eq!(find(&["prod-DeadLetterQueue"]), Ok("prod-DeadLetterQueue".to_owned()));
        let none = find(&["prod-DeadLetterQueues"]).unwrap_err();
        assert!(
            none.contains("no queue named prod-DeadLetterQueue") && none.contains("--prefix NAME"),
            "{none}"
        );
        let several = find(&["prod-DeadLetterQueue-1", "prod-DeadLetterQueue-2"]).unwrap_err();
        assert!(
            several.contains("(prod-DeadLetterQueue-1, prod-DeadLetterQueue-2); choose one with"),
            "{several}"
        );
    }
}
