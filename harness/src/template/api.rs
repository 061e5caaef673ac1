//! The WebSocket API: `AWS::ApiGatewayV2::Api` with its stage, routes, route responses and integrations.

use std::collections::BTreeMap;
use std::time::Duration;

use super::diagnostics::FindingKind::{Harmless, NotEmulated};
use super::event_source::function_name;
use super::fields::{Fields, Ignored, Reader};
use super::function::Function;
use super::resource::Resource;

pub(super) const API: &str = "AWS::ApiGatewayV2::Api";
pub(super) const STAGE: &str = "AWS::ApiGatewayV2::Stage";
pub(super) const ROUTE: &str = "AWS::ApiGatewayV2::Route";
pub(super) const ROUTE_RESPONSE: &str = "AWS::ApiGatewayV2::RouteResponse";
pub(super) const INTEGRATION: &str = "AWS::ApiGatewayV2::Integration";

/// A WebSocket API with the one stage it is deployed to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebSocketApi {
    /// Its name within the template.
    pub logical_id: String,
    /// `Name`.
    pub name: String,
    /// Its id, made of the stack's name and the logical id, so that it stays the same.
    pub api_id: String,
    /// The stage's name, the last part of the URL.
    pub stage_name: String,
    /// Which part of a message chooses its route, such as `$request.body.action`.
    pub route_selection_expression: String,
    /// Its routes, in the order of the template.
    pub routes: Vec<Route>,
}

/// What happens to the messages with one route key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// `$connect`, `$disconnect`, `$default`, or a value of the selection expression.
    pub key: String,
    /// The name of the function that is called.
    pub function: String,
    /// How long the gateway waits for the function: 50 ms to 29 s, 29 s where none is given.
    pub integration_timeout: Duration,
    /// Whether the function's reply is sent to the client.
    pub route_response: bool,
}

const API_IGNORED: &[Ignored] = &[
    ("Description", Harmless, "a description"),
    ("DisableExecuteApiEndpoint", Harmless, "the local stage always has its own address"),
    ("DisableSchemaValidation", Harmless, "the local gateway has no models"),
    ("FailOnWarnings", Harmless, "applies to imports"),
    ("IpAddressType", Harmless, "the local stage listens where it is told to"),
    ("Tags", Harmless, "tags have no effect locally"),
    ("Version", Harmless, "a description"),
];

const STAGE_IGNORED: &[Ignored] = &[
    ("AccessLogSettings", Harmless, "log lines go to the terminal"),
    ("AutoDeploy", Harmless, "the local gateway always serves the present routes"),
    ("DefaultRouteSettings", NotEmulated, "the stage's throttles do not apply locally"),
    ("DeploymentId", Harmless, "the local gateway always serves the present routes"),
    ("Description", Harmless, "a description"),
    ("RouteSettings", NotEmulated, "the routes' throttles do not apply locally"),
    ("Tags", Harmless, "tags have no effect locally"),
];

const INTEGRATION_IGNORED: &[Ignored] = &[
    ("CredentialsArn", Harmless, "permissions are not checked locally"),
    ("Description", Harmless, "a description"),
    ("IntegrationMethod", Harmless, "functions are always called by POST"),
    ("PayloadFormatVersion", Harmless, "WebSocket APIs have but one format"),
];

/// Reads the template's WebSocket API, if it has one.
pub(super) fn read(
    resources: &[Resource<'_>],
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Option<WebSocketApi> {
    let mut apis: Vec<WebSocketApi> =
        of_type(resources, API).filter_map(|api| self::api(api, reader)).collect();
    let integrations = integrations(resources, &apis, functions, reader);
    let mut routes = routes(resources, &apis, &integrations, reader);
    let responses = route_responses(resources, &apis, reader);
    for route in &mut routes {
        let responds = responses.contains(&route.id);
        if route.two_way != responds {
            let missing = if responds {
                "RouteResponseSelectionExpression $default"
            } else {
                "RouteResponse for $default"
            };
            let message = format!("a reply reaches the client only if the route also has a {missing}");
            reader.report.finding(&route.place, NotEmulated, message);
        }
        route.route.route_response = route.two_way && responds;
    }
    let stages = stages(resources, &apis, reader);
    let (first, others) = apis.split_first_mut()?;
    for other in others {
        let place =
            reader.scope.resource(&other.logical_id).map(|node| node.place.clone()).unwrap_or_default();
        reader
            .report
            .unsupported(&place, "the local stage serves one WebSocket API, and this is a second one");
    }
    first.routes =
        routes.into_iter().filter(|route| route.api_id == first.api_id).map(|route| route.route).collect();
    match stages.iter().find(|(api_id, _)| *api_id == first.api_id) {
        Some((_, name)) => first.stage_name.clone_from(name),
        None if of_type(resources, STAGE).next().is_none() => {
            let place =
                reader.scope.resource(&first.logical_id).map(|node| node.place.clone()).unwrap_or_default();
            reader.report.problem(&place, format!("the API has no stage; add an {STAGE}"));
        }
        None => {}
    }
    Some(first.clone())
}

fn of_type<'r, 't>(resources: &'r [Resource<'t>], kind: &'r str) -> impl Iterator<Item = &'r Resource<'t>> {
    resources.iter().filter(move |resource| resource.kind == kind)
}

fn api(resource: &Resource<'_>, reader: &mut Reader<'_>) -> Option<WebSocketApi> {
    let mut fields = resource.properties(reader)?;
    let protocol = fields.required_text("ProtocolType", "WEBSOCKET", reader)?;
    if protocol != "WEBSOCKET" {
        let message = format!("the local stage serves WEBSOCKET APIs, found {protocol:?}");
        reader.report.unsupported(&fields.place("ProtocolType"), message);
        return None;
    }
    let name = fields.required_text("Name", "the API's name", reader);
    let expression = fields.required_text("RouteSelectionExpression", "such as $request.body.action", reader);
    if let Some(keys) = fields.text("ApiKeySelectionExpression", reader) {
        let place = fields.place("ApiKeySelectionExpression");
        reader.report.finding(&place, NotEmulated, format!("API keys ({keys}) are not checked locally"));
    }
    fields.finish(API_IGNORED, reader);
    Some(WebSocketApi {
        logical_id: resource.id.to_owned(),
        name: name?,
        api_id: reader.scope.api_id(resource.id),
        stage_name: String::new(),
        route_selection_expression: expression?,
        routes: Vec::new(),
    })
}

/// The stages by their API's id.
fn stages(
    resources: &[Resource<'_>],
    apis: &[WebSocketApi],
    reader: &mut Reader<'_>,
) -> Vec<(String, String)> {
    let mut stages = Vec::<(String, String)>::new();
    for resource in of_type(resources, STAGE) {
        let Some(mut fields) = resource.properties(reader) else { continue };
        let api_id = api_id(&mut fields, apis, reader);
        let name = fields.required_text("StageName", "the stage's name", reader);
        fields.finish(STAGE_IGNORED, reader);
        let Some((api_id, name)) = api_id.zip(name) else { continue };
        if stages.iter().any(|(other, _)| *other == api_id) {
            reader
                .report
                .unsupported(&resource.node.place, "the local stage is one, and this is a second one");
        }
        stages.push((api_id, name));
    }
    stages
}

/// The function and timeout that an integration stands for.
type Integrations = BTreeMap<String, Option<(String, Duration)>>;

fn integrations(
    resources: &[Resource<'_>],
    apis: &[WebSocketApi],
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Integrations {
    let mut integrations = BTreeMap::new();
    for resource in of_type(resources, INTEGRATION) {
        let integration = integration(resource, apis, functions, reader);
        integrations.insert(resource.id.to_owned(), integration);
    }
    integrations
}

fn integration(
    resource: &Resource<'_>,
    apis: &[WebSocketApi],
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Option<(String, Duration)> {
    let mut fields = resource.properties(reader)?;
    api_id(&mut fields, apis, reader);
    only(&mut fields, "ConnectionType", "INTERNET", reader);
    let kind = fields.required_text("IntegrationType", "AWS_PROXY", reader);
    if let Some(kind) = kind.filter(|kind| kind != "AWS_PROXY") {
        let message = format!("the local gateway calls functions (AWS_PROXY), found {kind:?}");
        reader.report.unsupported(&fields.place("IntegrationType"), message);
    }
    let timeout = fields.count("TimeoutInMillis", "milliseconds", 50..=29_000, reader).unwrap_or(29_000);
    let uri = fields.required_text("IntegrationUri", "the invocation ARN of a function", reader);
    let place = fields.place("IntegrationUri");
    fields.finish(INTEGRATION_IGNORED, reader);
    let uri = uri?;
    let called = uri.split_once("/functions/").and_then(|(_, rest)| rest.strip_suffix("/invocations"));
    let Some(called) = called else {
        let message = format!(
            "expected arn:…:lambda:path/2015-03-31/functions/<function ARN>/invocations, found {uri:?}"
        );
        reader.report.problem(&place, message);
        return None;
    };
    let name = function_name(called);
    if !functions.iter().any(|function| function.name == name) {
        reader.report.problem(&place, format!("there is no function {name:?} in this template"));
        return None;
    }
    Some((name.to_owned(), Duration::from_millis(timeout.into())))
}

/// A route with what it takes to tie it to its API and its response.
struct Declared {
    id: String,
    place: super::Place,
    api_id: String,
    two_way: bool,
    route: Route,
}

fn routes(
    resources: &[Resource<'_>],
    apis: &[WebSocketApi],
    integrations: &Integrations,
    reader: &mut Reader<'_>,
) -> Vec<Declared> {
    let mut routes = Vec::<Declared>::new();
    for resource in of_type(resources, ROUTE) {
        let Some(declared) = route(resource, apis, integrations, reader) else { continue };
        let same =
            |other: &&Declared| other.api_id == declared.api_id && other.route.key == declared.route.key;
        if let Some(other) = routes.iter().find(same) {
            let message = format!("{} has the route key {} already", other.id, declared.route.key);
            reader.report.problem(&declared.place, message);
        }
        routes.push(declared);
    }
    routes
}

fn route(
    resource: &Resource<'_>,
    apis: &[WebSocketApi],
    integrations: &Integrations,
    reader: &mut Reader<'_>,
) -> Option<Declared> {
    let mut fields = resource.properties(reader)?;
    let api_id = api_id(&mut fields, apis, reader);
    only(&mut fields, "AuthorizationType", "NONE", reader);
    only(&mut fields, "ApiKeyRequired", "false", reader);
    let key = fields.required_text("RouteKey", "such as $default", reader);
    let target = fields.required_text("Target", "integrations/ and the Ref of an integration", reader);
    let two_way = only(&mut fields, "RouteResponseSelectionExpression", "$default", reader);
    let place = fields.place("Target");
    fields.finish(&[("OperationName", Harmless, "a description")], reader);
    let target = target?;
    let integration = target.strip_prefix("integrations/").and_then(|id| integrations.get(id));
    if integration.is_none() {
        let message = format!(
            "expected integrations/ and the Ref of an integration in this template, found {target:?}"
        );
        reader.report.problem(&place, message);
    }
    let (function, integration_timeout) = integration?.clone()?;
    Some(Declared {
        id: resource.id.to_owned(),
        place: resource.node.place.clone(),
        api_id: api_id?,
        two_way,
        route: Route { key: key?, function, integration_timeout, route_response: false },
    })
}

/// The routes, by their logical ids, that have a response for `$default`.
fn route_responses(
    resources: &[Resource<'_>],
    apis: &[WebSocketApi],
    reader: &mut Reader<'_>,
) -> Vec<String> {
    let mut responses = Vec::new();
    for resource in of_type(resources, ROUTE_RESPONSE) {
        let Some(mut fields) = resource.properties(reader) else { continue };
        api_id(&mut fields, apis, reader);
        let before = reader.report.problems.len();
        if !only(&mut fields, "RouteResponseKey", "$default", reader)
            && reader.report.problems.len() == before
        {
            reader.report.problem(&fields.place("RouteResponseKey"), "is missing; it must be $default");
        }
        let route = fields.required_text("RouteId", "the Ref of a route", reader);
        let place = fields.place("RouteId");
        fields.finish(&[], reader);
        let Some(route) = route else { continue };
        if of_type(resources, ROUTE).any(|resource| resource.id == route) {
            responses.push(route);
        } else {
            reader
                .report
                .problem(&place, format!("expected the Ref of a route in this template, found {route:?}"));
        }
    }
    responses
}

fn api_id(fields: &mut Fields, apis: &[WebSocketApi], reader: &mut Reader<'_>) -> Option<String> {
    let id = fields.required_text("ApiId", "the Ref of the API", reader)?;
    // An API that could not be read has been reported already.
    if !apis.is_empty() && !apis.iter().any(|api| api.api_id == id) {
        let message = format!("expected the Ref of an {API} in this template, found {id:?}");
        reader.report.problem(&fields.place("ApiId"), message);
        return None;
    }
    Some(id)
}

/// Whether the property is there; it may have but one value.
fn only(fields: &mut Fields, name: &'static str, value: &str, reader: &mut Reader<'_>) -> bool {
    let Some(found) = fields.text(name, reader) else { return false };
    if found != value {
        let message = format!("the local gateway knows only {value}, found {found:?}");
        reader.report.unsupported(&fields.place(name), message);
    }
    found == value
}
