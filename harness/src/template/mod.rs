//! The SAM template: the file that deploys, read into what a stage is made of.
//!
//! Everything in a template is either acted upon, or listed as a [`Finding`] that says what its absence means
//! locally, or refused: a property that the stage does not know might change what a function does.
//!
//! ```
//! use streamer_harness::template::{Environment, Template};
//!
//! let text = "
//! Transform: AWS::Serverless-2016-10-31
//! Resources:
//!   Hello:
//!     Type: AWS::Serverless::Function
//!     Metadata: { BuildMethod: rust-cargolambda, BuildProperties: { Binary: hello } }
//!     Properties: { Runtime: provided.al2023, Handler: bootstrap, CodeUri: ., Timeout: 5 }
//! ";
//! let template = Template::parse(text, "lambdas".as_ref(), &Environment::default())?;
//! assert_eq!(template.functions[0].name, "streamer-Hello");
//! # Ok::<(), streamer_harness::template::TemplateError>(())
//! ```

mod api;
mod diagnostics;
mod environment;
mod event_source;
mod events;
mod fields;
mod function;
mod globals;
mod intrinsics;
mod invoke_config;
mod node;
mod parameters;
mod queue;
mod resource;
mod route;
mod schedule;
mod scope;
mod table;

use std::fs;
use std::path::Path;

pub use api::WebSocketApi;
pub use diagnostics::{Finding, FindingKind, Place, Problem, TemplateError};
pub use environment::Environment;
pub use event_source::{EventSourceMapping, StartingPosition};
pub use function::Function;
pub use queue::Queue;
pub use route::Route;
pub use table::Table;

use diagnostics::{FindingKind::Harmless, Report};
use fields::Reader;
use node::{Kind, Node};
use scope::Scope;

use streamer_fakes::lambda::Schedule;

/// A stage as its template describes it.
#[derive(Clone, Debug)]
pub struct Template {
    /// The functions, in the order of the template; there is at least one.
    pub functions: Vec<Function>,
    /// The tables, in the order of the template.
    pub tables: Vec<Table>,
    /// The queues, in the order of the template.
    pub queues: Vec<Queue>,
    /// The WebSocket API, if there is one.
    pub api: Option<WebSocketApi>,
    /// Which functions are called for which streams.
    pub mappings: Vec<EventSourceMapping>,
    /// Which functions the clock invokes.
    pub schedules: Vec<Schedule>,
    /// What the stage does not act upon, in the order of the template.
    pub findings: Vec<Finding>,
}

impl Template {
    /// Reads the template at `path`; folders that it names are relative to its own.
    ///
    /// # Errors
    /// When the file cannot be read, or no stage can be made from it: see [`TemplateError`].
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, TemplateError> {
        let text = fs::read_to_string(path)
            .map_err(|source| TemplateError::Unreadable { file: path.to_owned(), source })?;
        let base_dir = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base_dir, environment).map_err(|error| error.in_file(path))
    }

    /// Reads a template; folders that it names are relative to `base_dir`.
    ///
    /// # Errors
    /// When no stage can be made from it. As far as one can go on after a problem, all are reported at once.
    pub fn parse(text: &str, base_dir: &Path, environment: &Environment) -> Result<Self, TemplateError> {
        let root = node::parse(text)?;
        let mut report = Report::default();
        let scope = Scope::new(&root, environment, &mut report);
        let mut reader = Reader { scope, report };
        account_for_sections(&root, &mut reader);

        let resources = resource::all(&root, &mut reader);
        let tables = table::read(&resources, &mut reader);
        let (functions, events) = function::read(&resources, base_dir, &mut reader);
        let queues = queue::read(&resources, &mut reader);
        let mappings =
            event_source::read(&resources, events.streams, &functions, &tables, &queues, &mut reader);
        let schedules = schedule::read(&resources, events.schedules, &functions, &mut reader);
        let api = api::read(&resources, &functions, &mut reader);
        let findings = reader.report.verdict()?;
        Ok(Self { functions, tables, queues, api, mappings, schedules, findings })
    }
}

/// The top level of the template, but for what is read elsewhere.
fn account_for_sections(root: &Node, reader: &mut Reader<'_>) {
    for (name, section) in root.entries() {
        match name.as_str() {
            "AWSTemplateFormatVersion" | "Description" | "Metadata" | "Outputs" => {}
            "Parameters" | "Mappings" | "Conditions" | "Resources" => {}
            "Rules" => reader.report.finding(
                &section.place,
                Harmless,
                "rules are checked when the stack is deployed",
            ),
            "Globals" => {
                for (kind, node) in section.entries().iter().filter(|(kind, _)| kind != "Function") {
                    let message =
                        format!("the local stage runs nothing that the defaults for {kind} apply to");
                    reader.report.finding(&node.place, Harmless, message);
                }
            }
            "Transform" => {
                let transforms = match &section.kind {
                    Kind::List(items) => items.iter().collect(),
                    Kind::Null | Kind::Scalar(_) | Kind::Map(_) | Kind::StreamArn(_) => vec![section],
                };
                for transform in transforms {
                    if transform.scalar() != Some("AWS::Serverless-2016-10-31") {
                        let message = format!(
                            "the local stage applies AWS::Serverless-2016-10-31, not {}",
                            transform.describe()
                        );
                        reader.report.unsupported(&transform.place, message);
                    }
                }
            }
            _ => reader
                .report
                .problem(&section.place, "a template has no such section; see the anatomy of a template"),
        }
    }
    if root.get("Transform").is_none() {
        let place = root.place.below("Transform");
        reader.report.problem(&place, "is missing; it must be AWS::Serverless-2016-10-31");
    }
}
