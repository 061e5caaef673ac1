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
use streamer_harness::tables::{self as at, Comparison, Encryption};
use streamer_harness::template::{Environment, Table, Template};

use super::aws::{Whereto, expect_credentials, prefix};
use super::process::{CommandResult, runtime, say};
use super::state::State;

/// The `tables` command.
#[derive(Debug, Subcommand)]
pub(super) enum Tables {
    /// Make the tables that are not there, and wait until all are active
    Create(Place),
    /// Print every difference between the tables and the template; exits with 1 if there is any
    Check(Place),
    /// Delete the tables, with everything in them
    Delete {
        #[command(flatten)]
        place: Place,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which tables, and where.
#[derive(Args, Debug)]
pub(super) struct Place {
    /// What the tables' names begin with: NAME-RequestsTable
    #[arg(long, value_name = "NAME", value_parser = prefix)]
    prefix: String,
    /// The real name of a table, by its name in the template; CloudFormation adds random letters to one that it names,
    /// as in RequestsTable=prod-RequestsTable-1A2B3C (once for each table)
    #[arg(long = "table", value_name = "ID=NAME", value_parser = assignment)]
    names: Vec<(String, String)>,
    /// The value of one of the template's parameters (once for each)
    #[arg(long = "parameter", value_name = "KEY=VALUE", value_parser = assignment)]
    parameters: Vec<(String, String)>,
    #[command(flatten)]
    whereto: Whereto,
    /// The SAM template that describes the tables [default: template.yaml of the workspace, or lambdas/template.yaml]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
}

impl Tables {
    pub(super) fn run(self) -> CommandResult {
        let place = match &self {
            Self::Create(place) | Self::Check(place) | Self::Delete { place, .. } => place,
        };
        runtime()?.block_on(async {
            let (config, region) = place.whereto.config().await?;
            let tables = place.tables(&region)?;
            let at = place.connect(&config).await?;
            match &self {
                Self::Create(_) => create(&at, &tables).await,
                Self::Check(_) => check(&at, &tables).await,
                Self::Delete { place, yes } => delete(&at, &tables, place, *yes).await,
            }
        })
    }
}

async fn create(at: &at::Tables, tables: &[Table]) -> CommandResult {
    let mut differences = 0;
    for table in tables {
        let created = at.create(&table.name, &table.layout).await?;
        let became = if created.is_new { "made" } else { "stands already" };
        say(&format!("{}: {became}\n{}", table.name, remarks(table, &created.comparison)))?;
        differences += created.comparison.differences.len();
    }
    if differences == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!(
        "{} between what stands and the template, and what stands is left as it is: \
         change it by hand, or delete the tables and create them again",
        count(differences, "difference")
    )
    .into())
}

async fn check(at: &at::Tables, tables: &[Table]) -> CommandResult {
    let mut differences = 0;
    for table in tables {
        let Some(comparison) = at.check(&table.name, &table.layout).await? else {
            say(&format!("{}: missing\n", table.name))?;
            differences += 1;
            continue;
        };
        let verdict = match comparison.differences.len() {
            0 => "as the template says".to_owned(),
            found => count(found, "difference"),
        };
        say(&format!("{}: {verdict}\n{}", table.name, remarks(table, &comparison)))?;
        differences += comparison.differences.len();
    }
    Ok(if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn delete(at: &at::Tables, tables: &[Table], place: &Place, yes: bool) -> CommandResult {
    let mut standing = Vec::new();
    for table in tables {
        if let Some(arn) = at.arn(&table.name).await? {
            standing.push((&table.name, arn));
        }
    }
    if standing.is_empty() {
        say(&format!("There is no table to delete under the prefix {}.\n", place.prefix))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !yes {
        let list = standing.iter().fold(String::new(), |list, (_, arn)| list + "  " + arn + "\n");
        say(&format!(
            "This deletes, with everything in them, at {}:\n\n{list}\nType the prefix ({}) to go on: ",
            at.endpoint(),
            place.prefix
        ))?;
        let mut typed = String::new();
        io::stdin().read_line(&mut typed)?;
        if typed.trim_end() != place.prefix {
            return Err("the prefix was not typed: nothing is deleted (--yes does not ask)".into());
        }
    }
    for (name, _) in standing {
        at.delete(name).await?;
        say(&format!("{name}: deleted\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is to say of a table: a line for each difference, and for what was not compared.
fn remarks(table: &Table, comparison: &Comparison) -> String {
    let mut text = String::new();
    for difference in &comparison.differences {
        writeln!(text, "  {difference}").expect("a string takes any text");
    }
    for (aspect, why) in &comparison.unknown {
        writeln!(text, "  {aspect}: not compared, {why}").expect("a string takes any text");
    }
    for property in &table.beyond_layout {
        writeln!(text, "  {property}: not compared, this command does not set it")
            .expect("a string takes any text");
    }
    text
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

impl Place {
    /// The tables that the template describes, under this prefix.
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
            // No table depends on it, and the template asks for one.
            offered: [("JwtKey".to_owned(), "unused".to_owned())].into(),
        };
        let mut tables = Template::load(&template, &environment)?.tables;
        for table in &mut tables {
            if matches!(&table.layout.encryption, Encryption::Kms { key: Some(key) } if key.contains(ACCOUNT))
            {
                table.layout.encryption = Encryption::KmsUnknown;
            }
        }
        for (id, name) in &self.names {
            let Some(table) = tables.iter_mut().find(|table| table.logical_id == *id) else {
                return Err(format!("{}: the template has no table {id}", template.display()).into());
            };
            table.name.clone_from(name);
        }
        let is_named = |table: &Table| self.names.iter().any(|(id, _)| *id == table.logical_id);
        let is_elsewhere =
            |table: &&Table| !is_named(table) && !table.name.starts_with(&format!("{}-", self.prefix));
        if let Some(table) = tables.iter().find(|table| table.name.contains(ACCOUNT)) {
            return Err(format!(
                "{}: the name of {} has the account in it ({}), which is not known here: say what it is with \
                 --table {}=NAME",
                template.display(),
                table.logical_id,
                table.name,
                table.logical_id
            )
            .into());
        }
        match tables.iter().find(is_elsewhere) {
            Some(table) => Err(format!(
                "{}: the template names {} {:?}, whatever the prefix: write \
                 !Sub \"${{AWS::StackName}}-{}\" as its TableName, or leave that out; or mean that very table with \
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

    async fn connect(&self, config: &SdkConfig) -> Result<at::Tables, Box<dyn Error>> {
        expect_credentials(config).await?;
        let client = Client::new(config);
        let endpoint = Endpoint::of(&client).await;
        Ok(at::Tables::new(client, endpoint))
    }
}

/// Learns where a client's calls go, which has many sources: the command line, variables, profiles, the region and the
/// account.
#[derive(Clone, Debug, Default)]
struct Endpoint(Arc<OnceLock<String>>);

impl Endpoint {
    async fn of(client: &Client) -> String {
        let endpoint = Self::default();
        let call = client.describe_table().table_name("none").customize();
        // It fails, since it is not let out.
        let said = match call.interceptor(endpoint.clone()).send().await {
            Ok(_) => String::new(),
            Err(error) => at::innermost(&error),
        };
        endpoint.0.get().cloned().unwrap_or_else(|| format!("DynamoDB ({said})"))
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
        Err("only the endpoint was asked for".into())
    }
}

/// Stands for the account, which is not known before a call; no name of a table can have it in it.
const ACCOUNT: &str = "[account]";

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected a name, '=' and a value".to_owned()),
    }
}
