use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, Region, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use clap::{Args, Subcommand};
use streamer_harness::tables::{self, Comparison, Encryption};
use streamer_harness::template::{Environment, Table, Template};

use super::aws::{AwsArguments, expect_credentials, parse_prefix};
use super::process::{CommandResult, print, runtime};
use super::state::State;

/// The `tables` command: creates, checks or deletes the tables of a template.
#[derive(Debug, Subcommand)]
pub(super) enum Tables {
    /// Create the missing tables, and wait until all tables are active
    Create(TablesArguments),
    /// Print every difference between the tables and the template (exits with 1 if there is a difference)
    Check(TablesArguments),
    /// Delete the tables and all their items
    Delete {
        #[command(flatten)]
        arguments: TablesArguments,
        /// Delete without asking for confirmation
        #[arg(long)]
        yes: bool,
    },
}

/// Arguments that select the tables, and the DynamoDB endpoint of the tables.
#[derive(Args, Debug)]
pub(super) struct TablesArguments {
    /// Name of the CloudFormation stack, with which the names of its tables begin: NAME-RequestsTable
    #[arg(long, value_name = "NAME", value_parser = parse_prefix)]
    prefix: String,
    /// Physical name of a table whose logical ID in the template is ID, for example
    /// RequestsTable=prod-RequestsTable-1A2B3C; may be repeated
    #[arg(long = "table", value_name = "ID=NAME", value_parser = parse_assignment)]
    names: Vec<(String, String)>,
    /// Value of one template parameter; may be repeated
    #[arg(long = "parameter", value_name = "KEY=VALUE", value_parser = parse_assignment)]
    parameters: Vec<(String, String)>,
    #[command(flatten)]
    aws: AwsArguments,
    /// SAM template that describes the tables [default: template.yaml or lambdas/template.yaml in the
    /// workspace]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
}

impl Tables {
    pub(super) fn run(self) -> CommandResult {
        let arguments = match &self {
            Self::Create(arguments) | Self::Check(arguments) | Self::Delete { arguments, .. } => arguments,
        };
        runtime()?.block_on(async {
            let (config, region) = arguments.aws.config().await?;
            let tables = arguments.tables(&region)?;
            let dynamodb = arguments.connect(&config).await?;
            match &self {
                Self::Create(_) => create(&dynamodb, &tables).await,
                Self::Check(_) => check(&dynamodb, &tables).await,
                Self::Delete { arguments, yes } => delete(&dynamodb, &tables, arguments, *yes).await,
            }
        })
    }
}

async fn create(dynamodb: &tables::Tables, tables: &[Table]) -> CommandResult {
    let mut differences = 0;
    for table in tables {
        let created = dynamodb.create(&table.name, &table.layout).await?;
        let outcome = if created.is_new { "created" } else { "exists already" };
        print(&format!("{}: {outcome}\n{}", table.name, remarks(table, &created.comparison)))?;
        differences += created.comparison.differences.len();
    }
    if differences == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!(
        "{} between the tables and the template; change the tables by hand, or delete and create them again",
        count(differences, "difference")
    )
    .into())
}

async fn check(dynamodb: &tables::Tables, tables: &[Table]) -> CommandResult {
    let mut differences = 0;
    for table in tables {
        let Some(comparison) = dynamodb.check(&table.name, &table.layout).await? else {
            print(&format!("{}: missing\n", table.name))?;
            differences += 1;
            continue;
        };
        let verdict = match comparison.differences.len() {
            0 => "matches the template".to_owned(),
            found => count(found, "difference"),
        };
        print(&format!("{}: {verdict}\n{}", table.name, remarks(table, &comparison)))?;
        differences += comparison.differences.len();
    }
    Ok(if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn delete(
    dynamodb: &tables::Tables,
    tables: &[Table],
    arguments: &TablesArguments,
    yes: bool,
) -> CommandResult {
    let mut existing = Vec::new();
    for table in tables {
        if let Some(arn) = dynamodb.arn(&table.name).await? {
            existing.push((&table.name, arn));
        }
    }
    if existing.is_empty() {
        print(&format!("There are no tables to delete for the prefix {}.\n", arguments.prefix))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !yes {
        let list = existing.iter().fold(String::new(), |list, (_, arn)| list + "  " + arn + "\n");
        print(&format!(
            "This deletes the following tables and all their items at {}:\n\n{list}\n\
             Type the prefix ({}) to continue: ",
            dynamodb.endpoint(),
            arguments.prefix
        ))?;
        let mut typed = String::new();
        io::stdin().read_line(&mut typed)?;
        if typed.trim_end() != arguments.prefix {
            return Err(
                "the prefix was not typed, so no table was deleted (--yes skips this question)".into()
            );
        }
    }
    for (name, _) in existing {
        dynamodb.delete(name).await?;
        print(&format!("{name}: deleted\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns one line for each difference of a table, and for each property that was not compared.
fn remarks(table: &Table, comparison: &Comparison) -> String {
    let mut text = String::new();
    for difference in &comparison.differences {
        writeln!(text, "  {difference}").expect("writing to a String cannot fail");
    }
    for (aspect, why) in &comparison.unknown {
        writeln!(text, "  {aspect}: not compared, {why}").expect("writing to a String cannot fail");
    }
    for property in &table.properties_not_in_layout {
        writeln!(text, "  {property}: not compared, `streamer tables` does not set this property")
            .expect("writing to a String cannot fail");
    }
    text
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

impl TablesArguments {
    /// Returns the tables that the template describes, with the names of this stack.
    fn tables(&self, region: &Region) -> Result<Vec<Table>, Box<dyn Error>> {
        let template = match &self.template {
            Some(template) => template.clone(),
            None => State::of(None)?.template()?,
        };
        let environment = Environment {
            region: region.to_string(),
            account_id: ACCOUNT.to_owned(),
            stack_name: self.prefix.clone(),
            parameters: self.parameters.iter().cloned().collect(),
            // The template requires this parameter, but no table uses its value.
            offered: [("JwtKey".to_owned(), "unused".to_owned())].into(),
        };
        let mut tables = Template::load(&template, &environment)?.tables;
        for table in &mut tables {
            if matches!(&table.layout.encryption, Encryption::Kms { key: Some(key) } if key.contains(ACCOUNT))
            {
                table.layout.encryption = Encryption::KmsFromCloudFormation;
            }
        }
        for (id, name) in &self.names {
            let Some(table) = tables.iter_mut().find(|table| table.logical_id == *id) else {
                return Err(format!("{}: the template has no table {id}", template.display()).into());
            };
            table.name.clone_from(name);
        }
        let is_named = |table: &Table| self.names.iter().any(|(id, _)| *id == table.logical_id);
        let lacks_prefix =
            |table: &&Table| !is_named(table) && !table.name.starts_with(&format!("{}-", self.prefix));
        if let Some(table) = tables.iter().find(|table| table.name.contains(ACCOUNT)) {
            return Err(format!(
                "{}: the name of {} contains the AWS account id ({}), which this command does not know; pass the \
                 name with --table {}=NAME",
                template.display(),
                table.logical_id,
                table.name,
                table.logical_id
            )
            .into());
        }
        match tables.iter().find(lacks_prefix) {
            Some(table) => Err(format!(
                "{}: the TableName of {} is {:?}, which does not begin with the prefix; write \
                 !Sub \"${{AWS::StackName}}-{}\", remove the TableName, or select exactly that table with \
                 --table {}={}",
                template.display(),
                table.logical_id,
                table.name,
                table.name,
                table.logical_id,
                table.name
            )
            .into()),
            None if tables.is_empty() => {
                Err(format!("{}: the template has no tables", template.display()).into())
            }
            None => Ok(tables),
        }
    }

    async fn connect(&self, config: &SdkConfig) -> Result<tables::Tables, Box<dyn Error>> {
        expect_credentials(config).await?;
        let client = Client::new(config);
        let endpoint = Endpoint::of(&client).await;
        Ok(tables::Tables::new(client, endpoint))
    }
}

/// Finds the URL that a client's calls go to, by intercepting a call before it is sent. The URL depends on many
/// sources: the command line, environment variables, profiles, the region and the account.
#[derive(Clone, Debug, Default)]
struct Endpoint(Arc<OnceLock<String>>);

impl Endpoint {
    async fn of(client: &Client) -> String {
        let endpoint = Self::default();
        let call = client.describe_table().table_name("none").customize();
        // The call always fails, because the interceptor stops the call before it is sent.
        let problem = match call.interceptor(endpoint.clone()).send().await {
            Ok(_) => String::new(),
            Err(error) => tables::innermost(&error),
        };
        endpoint.0.get().cloned().unwrap_or_else(|| format!("DynamoDB ({problem})"))
    }
}

impl Intercept for Endpoint {
    fn name(&self) -> &'static str {
        "Endpoint"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let url = context.request().uri().trim_end_matches('/').to_owned();
        self.0.get_or_init(|| url);
        Err("the call is not sent; it only resolves the endpoint".into())
    }
}

/// Placeholder for the AWS account id, which is unknown before the first call. Table names cannot contain
/// brackets, so no real name contains the placeholder.
const ACCOUNT: &str = "[account]";

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected NAME=VALUE".to_owned()),
    }
}
