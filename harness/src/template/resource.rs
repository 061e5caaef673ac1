//! Finds the resources of a template whose conditions are true, and reports the resources that the local
//! stage does not support.

use super::diagnostics::FindingKind::{self, Harmless, NotEmulated};
use super::fields::{Fields, Ignored, Reader};
use super::node::{Kind, Node};

pub(super) const FUNCTION: &str = "AWS::Serverless::Function";
pub(super) const TABLE: &str = "AWS::DynamoDB::Table";
pub(super) const QUEUE: &str = "AWS::SQS::Queue";
pub(super) const EVENT_SOURCE_MAPPING: &str = "AWS::Lambda::EventSourceMapping";
pub(super) const RULE: &str = "AWS::Events::Rule";
pub(super) const API: &str = "AWS::ApiGatewayV2::Api";
pub(super) const STAGE: &str = "AWS::ApiGatewayV2::Stage";
pub(super) const AUTHORIZER: &str = "AWS::ApiGatewayV2::Authorizer";
pub(super) const ROUTE: &str = "AWS::ApiGatewayV2::Route";
pub(super) const ROUTE_RESPONSE: &str = "AWS::ApiGatewayV2::RouteResponse";
pub(super) const INTEGRATION: &str = "AWS::ApiGatewayV2::Integration";

/// A resource of the template that has no condition, or whose condition is true.
#[derive(Debug)]
pub(super) struct Resource<'t> {
    pub(super) id: &'t str,
    pub(super) kind: &'t str,
    pub(super) node: &'t Node,
}

impl Resource<'_> {
    pub(super) fn properties(&self, reader: &mut Reader<'_>) -> Option<Fields> {
        match self.node.get("Properties") {
            Some(node) => Fields::of(node, reader),
            None => Some(Fields::none(self.node.place.below("Properties"))),
        }
    }
}

/// Returns the resources of one type.
pub(super) fn of_type<'r, 't>(
    resources: &'r [Resource<'t>],
    kind: &'r str,
) -> impl Iterator<Item = &'r Resource<'t>> {
    resources.iter().filter(move |resource| resource.kind == kind)
}

const ATTRIBUTES: &[Ignored] = &[
    ("Connectors", Harmless, "permissions are not checked locally"),
    ("CreationPolicy", Harmless, "the local stage creates all resources before it runs any function"),
    (
        "DeletionPolicy",
        Harmless,
        "a local stage exists only while its process runs; the option --data keeps its tables",
    ),
    ("DependsOn", Harmless, "the local stage creates all resources before it runs any function"),
    ("UpdatePolicy", Harmless, "the local stage is created from scratch at each start"),
    ("UpdateReplacePolicy", Harmless, "the local stage is created from scratch at each start"),
];

/// Returns the resources whose conditions are true and that the stage supports, in the order of the template.
/// Reports each unsupported resource.
pub(super) fn all<'t>(root: &'t Node, reader: &mut Reader<'_>) -> Vec<Resource<'t>> {
    let mut resources = Vec::new();
    let Some(section) = root.get("Resources") else { return resources };
    if !matches!(section.kind, Kind::Map(_)) {
        reader.report.problem(&section.place, format!("expected a mapping, found {}", section.describe()));
    }
    for (id, node) in section.entries() {
        let Some(kind) = node.get("Type").and_then(Node::scalar) else {
            reader.report.problem(
                &node.place.below("Type"),
                "required, but missing; expected a resource type such as AWS::DynamoDB::Table",
            );
            continue;
        };
        let Some(true) = reader.report.keep(reader.scope.exists(node)) else { continue };
        if kind == "AWS::Lambda::EventInvokeConfig" {
            let message = format!(
                "the local stage does not support the resource type {kind}; use the property \
                 EventInvokeConfig of the function instead"
            );
            reader.report.unsupported(&node.place, message);
            continue;
        }
        let resource = Resource { id, kind, node };
        if runs(kind) {
            account_for_attributes(&resource, reader);
            resources.push(resource);
        } else {
            let (finding, reason) = finding_for(kind);
            let meaning = format!("a resource of type {kind} is ignored, because {reason}");
            reader.report.finding(&node.place, finding, meaning);
        }
    }
    resources
}

fn runs(kind: &str) -> bool {
    matches!(
        kind,
        FUNCTION
            | TABLE
            | QUEUE
            | EVENT_SOURCE_MAPPING
            | RULE
            | API
            | STAGE
            | AUTHORIZER
            | ROUTE
            | ROUTE_RESPONSE
            | INTEGRATION
    )
}

/// Returns the kind of finding for an ignored resource of this type, and the reason why the resource is
/// ignored.
fn finding_for(kind: &str) -> (FindingKind, &'static str) {
    let service = kind.split("::").nth(1).unwrap_or_default();
    match (service, kind) {
        ("SQS", _) => (Harmless, "permissions are not checked locally"),
        ("SNS", _) => {
            (NotEmulated, "topics are not emulated; the local stage logs the records for a topic instead")
        }
        ("Events" | "Scheduler", _) => (
            NotEmulated,
            "the only local schedules are scheduled rules and the function events Schedule and ScheduleV2",
        ),
        (_, "AWS::Lambda::Permission") => (Harmless, "the local gateway may invoke every function"),
        (_, "AWS::ApiGatewayV2::Deployment") => {
            (Harmless, "the local gateway always serves the current routes")
        }
        ("IAM" | "KMS", _) => (Harmless, "permissions and keys are not checked locally"),
        ("Logs" | "CloudWatch" | "ApplicationInsights" | "XRay", _) => {
            (Harmless, "log lines go to the terminal, and there are no metrics or alarms locally")
        }
        _ => (
            NotEmulated,
            "the local stage does not support this type, and no running resource refers to this one",
        ),
    }
}

fn account_for_attributes(resource: &Resource<'_>, reader: &mut Reader<'_>) {
    for (name, node) in resource.node.entries() {
        match name.as_str() {
            "Type" | "Properties" | "Condition" => {}
            // A function's build settings are read with the function; other metadata is for other tools.
            "Metadata" => {
                for (name, node) in node.entries() {
                    if resource.kind != FUNCTION
                        || !matches!(name.as_str(), "BuildMethod" | "BuildProperties")
                    {
                        reader.report.finding(&node.place, Harmless, "this metadata is for other tools");
                    }
                }
            }
            name => match ATTRIBUTES.iter().find(|(attribute, ..)| *attribute == name) {
                Some((_, kind, meaning)) => reader.report.finding(&node.place, *kind, *meaning),
                None => reader.report.unsupported(
                    &node.place,
                    "unknown resource attribute; move settings of the resource into Properties",
                ),
            },
        }
    }
}
