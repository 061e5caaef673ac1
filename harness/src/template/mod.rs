//! Converts a SAM template, the same file that is deployed to AWS, to the description of a local stage.
//!
//! Each value of a template is used, ignored or refused. An ignored value is listed as a [`Finding`], which
//! says how the local stage differs from AWS. A refused value is an error, because an unsupported setting
//! might change how a function behaves.
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

/// Description of a stage, read from a SAM template.
#[derive(Clone, Debug)]
pub struct Template {
    /// Functions of the stage, in the order of the template; at least one.
    pub functions: Vec<Function>,
    /// Tables of the stage, in the order of the template.
    pub tables: Vec<Table>,
    /// Queues of the stage, in the order of the template.
    pub queues: Vec<Queue>,
    /// WebSocket API of the stage; `None` if the template has none.
    pub api: Option<WebSocketApi>,
    /// Event source mappings, each of which invokes a function with the records of a table's stream.
    pub mappings: Vec<EventSourceMapping>,
    /// Schedules, each of which invokes a function at certain times.
    pub schedules: Vec<Schedule>,
    /// Values of the template that the local stage ignores, in the order of the template.
    pub findings: Vec<Finding>,
}

impl Template {
    /// Reads the template in the file `path`. Relative folders in the template are relative to the file's
    /// folder.
    ///
    /// # Errors
    /// [`TemplateError`] if the file cannot be read, or the template has an invalid or unsupported value.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, TemplateError> {
        let text = fs::read_to_string(path)
            .map_err(|source| TemplateError::Unreadable { file: path.to_owned(), source })?;
        let base_dir = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base_dir, environment).map_err(|error| error.in_file(path))
    }

    /// Parses a template from a text. Relative folders in the template are relative to `base_dir`.
    ///
    /// # Errors
    /// [`TemplateError`] if the template has an invalid or unsupported value. The error lists as many
    /// problems as can be found in one pass.
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

/// Reports the top-level sections, and settings in them, that the local stage ignores or does not support.
fn account_for_sections(root: &Node, reader: &mut Reader<'_>) {
    for (name, section) in root.entries() {
        match name.as_str() {
            "AWSTemplateFormatVersion" | "Description" | "Metadata" | "Outputs" => {}
            "Parameters" | "Mappings" | "Conditions" | "Resources" => {}
            "Rules" => reader.report.finding(
                &section.place,
                Harmless,
                "rules are checked only when the stack is deployed",
            ),
            "Globals" => {
                for (kind, node) in section.entries().iter().filter(|(kind, _)| kind != "Function") {
                    let message = format!(
                        "the local stage has no resource to which the global settings for {kind} apply"
                    );
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
                            "the local stage supports only AWS::Serverless-2016-10-31, found {}",
                            transform.describe()
                        );
                        reader.report.unsupported(&transform.place, message);
                    }
                }
            }
            _ => reader.report.problem(
                &section.place,
                "unknown section; expected a section of a CloudFormation template, \
                 such as Parameters or Resources",
            ),
        }
    }
    if root.get("Transform").is_none() {
        let place = root.place.below("Transform");
        reader.report.problem(&place, "required, but missing; expected AWS::Serverless-2016-10-31");
    }
}
