//! The resources of a template: which exist, which the stage runs, and what becomes of the others.

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

/// A resource that exists under the conditions that hold.
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

/// The resources of one type.
pub(super) fn of_type<'r, 't>(
    resources: &'r [Resource<'t>],
    kind: &'r str,
) -> impl Iterator<Item = &'r Resource<'t>> {
    resources.iter().filter(move |resource| resource.kind == kind)
}

const ATTRIBUTES: &[Ignored] = &[
    ("Connectors", Harmless, "permissions are not checked locally"),
    ("CreationPolicy", Harmless, "all is made before anything runs"),
    ("DeletionPolicy", Harmless, "a local stage ends with its process; --data keeps its tables"),
    ("DependsOn", Harmless, "all is made before anything runs"),
    ("UpdatePolicy", Harmless, "a local stage is made anew at each start"),
    ("UpdateReplacePolicy", Harmless, "a local stage is made anew at each start"),
];

/// The resources that exist, in the order of the template; what the stage does not run becomes a finding.
pub(super) fn all<'t>(root: &'t Node, reader: &mut Reader<'_>) -> Vec<Resource<'t>> {
    let mut resources = Vec::new();
    let Some(section) = root.get("Resources") else { return resources };
    if !matches!(section.kind, Kind::Map(_)) {
        reader.report.problem(&section.place, format!("expected a mapping, found {}", section.describe()));
    }
    for (id, node) in section.entries() {
        let Some(kind) = node.get("Type").and_then(Node::scalar) else {
            reader
                .report
                .problem(&node.place.below("Type"), "is missing; it must be such as AWS::DynamoDB::Table");
            continue;
        };
        let Some(true) = reader.report.keep(reader.scope.exists(node)) else { continue };
        if kind == "AWS::Lambda::EventInvokeConfig" {
            let message =
                "write it as the property EventInvokeConfig of its function, which the local stage reads";
            reader.report.unsupported(&node.place, format!("{kind}: {message}"));
            continue;
        }
        let resource = Resource { id, kind, node };
        if runs(kind) {
            account_for_attributes(&resource, reader);
            resources.push(resource);
        } else {
            let (finding, meaning) = absence(kind);
            reader.report.finding(&node.place, finding, format!("{kind}: {meaning}"));
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

/// What it means locally that there is no resource of this type.
fn absence(kind: &str) -> (FindingKind, &'static str) {
    let service = kind.split("::").nth(1).unwrap_or_default();
    match (service, kind) {
        ("SQS", _) => (Harmless, "permissions are not checked locally"),
        ("SNS", _) => (NotEmulated, "topics are not emulated; what would be published there is logged"),
        ("Events" | "Scheduler", _) => (
            NotEmulated,
            "only scheduled rules and the events Schedule and ScheduleV2 of functions happen locally",
        ),
        (_, "AWS::Lambda::Permission") => (Harmless, "the local gateway may call every function"),
        (_, "AWS::ApiGatewayV2::Deployment") => {
            (Harmless, "the local gateway always serves the present routes")
        }
        ("IAM" | "KMS", _) => (Harmless, "permissions and keys are not checked locally"),
        ("Logs" | "CloudWatch" | "ApplicationInsights" | "XRay", _) => {
            (Harmless, "log lines go to the terminal; there are no metrics and alarms locally")
        }
        _ => (NotEmulated, "the local stage makes no such resource; nothing that runs refers to it"),
    }
}

fn account_for_attributes(resource: &Resource<'_>, reader: &mut Reader<'_>) {
    for (name, node) in resource.node.entries() {
        match name.as_str() {
            "Type" | "Properties" | "Condition" => {}
            // What a function's metadata says about its build is acted upon; the rest is for other tools.
            "Metadata" => {
                for (name, node) in node.entries() {
                    if resource.kind != FUNCTION
                        || !matches!(name.as_str(), "BuildMethod" | "BuildProperties")
                    {
                        reader.report.finding(&node.place, Harmless, "metadata for other tools");
                    }
                }
            }
            name => match ATTRIBUTES.iter().find(|(attribute, ..)| *attribute == name) {
                Some((_, kind, meaning)) => reader.report.finding(&node.place, *kind, *meaning),
                None => reader.report.unsupported(
                    &node.place,
                    "a resource has no such attribute; its settings belong under Properties",
                ),
            },
        }
    }
}
