//! Reads the routes of a WebSocket API: `AWS::ApiGatewayV2::Route`, `RouteResponse`, `Integration` and
//! `Authorizer`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::diagnostics::FindingKind::{Harmless, NotEmulated};
use super::diagnostics::Place;
use super::fields::{Fields, Ignored, Reader};
use super::function::{Function, function_name};
use super::resource::{API, AUTHORIZER, INTEGRATION, ROUTE, ROUTE_RESPONSE, Resource, of_type};
use streamer_fakes::gateway::{Authorizer, Throttle, is_identity_source};

/// A route of a WebSocket API, which selects the function for the messages with one route key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Route key: `$connect`, `$disconnect`, `$default`, or a value of the route selection expression.
    pub key: String,
    /// Name of the function that the route invokes.
    pub function: String,
    /// Maximum wait of the gateway for the function: 50 ms to 29 s. Default: 29 s.
    pub integration_timeout: Duration,
    /// True if the gateway sends the function's reply to the client.
    pub route_response: bool,
    /// Lambda authorizer that admits or refuses connections; only the route `$connect` may have one.
    pub authorizer: Option<Authorizer>,
    /// Rate limit of the route; `None` if the stage sets no limit for the route.
    pub throttle: Option<Throttle>,
}

const INTEGRATION_IGNORED: &[Ignored] = &[
    ("CredentialsArn", Harmless, "permissions are not checked locally"),
    ("Description", Harmless, "a description has no effect"),
    ("IntegrationMethod", Harmless, "functions are always invoked by POST"),
    ("PayloadFormatVersion", Harmless, "WebSocket APIs have only one payload format"),
];

/// Reads the routes of every API, grouped by the API's id.
pub(super) fn read(
    resources: &[Resource<'_>],
    api_ids: &[String],
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> BTreeMap<String, Vec<Route>> {
    let integrations = integrations(resources, api_ids, functions, reader);
    let authorizers = authorizers(resources, api_ids, functions, reader);
    let declared = routes(resources, api_ids, &integrations, &authorizers, reader);
    let responses = route_responses(resources, api_ids, reader);
    let mut routes = BTreeMap::<String, Vec<Route>>::new();
    for Declared { id, place, api_id, two_way, mut route } in declared {
        let responds = responses.contains(&id);
        if two_way != responds {
            let missing = if responds {
                "RouteResponseSelectionExpression $default"
            } else {
                "RouteResponse for $default"
            };
            let message =
                format!("the function's reply is not sent to the client, because the route has no {missing}");
            reader.report.finding(&place, NotEmulated, message);
        }
        route.route_response = two_way && responds;
        routes.entry(api_id).or_default().push(route);
    }
    routes
}

/// Function and timeout of each integration by logical id; `None` for an integration that could not be read.
type Integrations = BTreeMap<String, Option<(String, Duration)>>;

fn integrations(
    resources: &[Resource<'_>],
    api_ids: &[String],
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Integrations {
    let mut integrations = BTreeMap::new();
    for resource in of_type(resources, INTEGRATION) {
        let integration = integration(resource, api_ids, functions, reader);
        integrations.insert(resource.id.to_owned(), integration);
    }
    integrations
}

fn integration(
    resource: &Resource<'_>,
    api_ids: &[String],
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Option<(String, Duration)> {
    let mut fields = resource.properties(reader)?;
    api_id(&mut fields, api_ids, reader);
    is_only_value(&mut fields, "ConnectionType", "INTERNET", reader);
    let kind = fields.required_text("IntegrationType", "AWS_PROXY", reader);
    if let Some(kind) = kind.filter(|kind| kind != "AWS_PROXY") {
        let message =
            format!("the local gateway supports only integrations of type AWS_PROXY, found {kind:?}");
        reader.report.unsupported(&fields.place("IntegrationType"), message);
    }
    let timeout = fields.count("TimeoutInMillis", "milliseconds", 50..=29_000, reader).unwrap_or(29_000);
    let function = function_of(&mut fields, "IntegrationUri", functions, reader);
    fields.finish(INTEGRATION_IGNORED, reader);
    Some((function?, Duration::from_millis(timeout.into())))
}

/// Returns the id of the API to which the resource belongs.
pub(super) fn api_id(fields: &mut Fields, api_ids: &[String], reader: &mut Reader<'_>) -> Option<String> {
    let id = fields.required_text("ApiId", "a Ref to the API", reader)?;
    // If no API could be read, that problem has already been reported.
    if !api_ids.is_empty() && !api_ids.contains(&id) {
        let message = format!("expected a Ref to an {API} in this template, found {id:?}");
        reader.report.problem(&fields.place("ApiId"), message);
        return None;
    }
    Some(id)
}

/// Returns the name of the function whose invocation ARN is the value of `property`.
fn function_of(
    fields: &mut Fields,
    property: &'static str,
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Option<String> {
    let uri = fields.required_text(property, "the invocation ARN of a function", reader)?;
    let place = fields.place(property);
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
        reader.report.problem(&place, format!("the template has no function {name:?}"));
        return None;
    }
    Some(name.to_owned())
}

/// Authorizers by logical id; `None` for an authorizer that could not be read, which has been reported.
type Authorizers = BTreeMap<String, Option<Authorizer>>;

const AUTHORIZER_IGNORED: &[Ignored] = &[
    ("AuthorizerCredentialsArn", Harmless, "permissions are not checked locally"),
    ("Name", Harmless, "the name of an authorizer has no effect"),
];

fn authorizers(
    resources: &[Resource<'_>],
    api_ids: &[String],
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Authorizers {
    let authorizers = of_type(resources, AUTHORIZER);
    authorizers
        .map(|resource| (resource.id.to_owned(), authorizer(resource, api_ids, functions, reader)))
        .collect()
}

fn authorizer(
    resource: &Resource<'_>,
    api_ids: &[String],
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Option<Authorizer> {
    let mut fields = resource.properties(reader)?;
    api_id(&mut fields, api_ids, reader);
    let kind = fields.required_text("AuthorizerType", "REQUEST", reader);
    if let Some(kind) = kind.filter(|kind| kind != "REQUEST") {
        let message = format!("expected REQUEST, the only authorizer type of WebSocket APIs, found {kind:?}");
        reader.report.problem(&fields.place("AuthorizerType"), message);
    }
    let function = function_of(&mut fields, "AuthorizerUri", functions, reader);
    let mut sources = Vec::new();
    for node in fields.list("IdentitySource", reader) {
        let text = node.scalar().unwrap_or_default();
        if is_identity_source(text) {
            sources.push(text.to_owned());
        } else {
            let message = format!(
                "the local gateway supports only route.request.header.NAME and \
                 route.request.querystring.NAME, found {}",
                node.describe()
            );
            reader.report.unsupported(&node.place, message);
        }
    }
    fields.finish(AUTHORIZER_IGNORED, reader);
    Some(sources.into_iter().fold(Authorizer::new(function?), Authorizer::identity_source))
}

/// A route, with the ids that connect it to its API and its route response.
struct Declared {
    id: String,
    place: Place,
    api_id: String,
    two_way: bool,
    route: Route,
}

fn routes(
    resources: &[Resource<'_>],
    api_ids: &[String],
    integrations: &Integrations,
    authorizers: &Authorizers,
    reader: &mut Reader<'_>,
) -> Vec<Declared> {
    let mut routes = Vec::<Declared>::new();
    for resource in of_type(resources, ROUTE) {
        let Some(declared) = route(resource, api_ids, integrations, authorizers, reader) else { continue };
        let same =
            |other: &&Declared| other.api_id == declared.api_id && other.route.key == declared.route.key;
        if let Some(other) = routes.iter().find(same) {
            let message = format!(
                "the route key {1} is already used by route {0}; choose another route key",
                other.id, declared.route.key
            );
            reader.report.problem(&declared.place, message);
        }
        routes.push(declared);
    }
    routes
}

fn route(
    resource: &Resource<'_>,
    api_ids: &[String],
    integrations: &Integrations,
    authorizers: &Authorizers,
    reader: &mut Reader<'_>,
) -> Option<Declared> {
    let mut fields = resource.properties(reader)?;
    let api_id = api_id(&mut fields, api_ids, reader);
    let authorizer = authorizer_of(&mut fields, authorizers, reader);
    is_only_value(&mut fields, "ApiKeyRequired", "false", reader);
    let key = fields.required_text("RouteKey", "a route key such as $default", reader);
    let target = fields.required_text("Target", "integrations/ followed by a Ref to an integration", reader);
    let two_way = is_only_value(&mut fields, "RouteResponseSelectionExpression", "$default", reader);
    let place = fields.place("Target");
    fields.finish(&[("OperationName", Harmless, "the name of an operation has no effect")], reader);
    let target = target?;
    let integration = target.strip_prefix("integrations/").and_then(|id| integrations.get(id));
    if integration.is_none() {
        let message = format!(
            "expected integrations/ followed by a Ref to an integration in this template, found {target:?}"
        );
        reader.report.problem(&place, message);
    }
    let (function, integration_timeout) = integration?.clone()?;
    Some(Declared {
        id: resource.id.to_owned(),
        place: resource.node.place.clone(),
        api_id: api_id?,
        two_way,
        route: Route {
            key: key?,
            function,
            integration_timeout,
            route_response: false,
            authorizer,
            throttle: None,
        },
    })
}

/// Returns the authorizer of a route. Only `$connect` may have one.
fn authorizer_of(
    fields: &mut Fields,
    authorizers: &Authorizers,
    reader: &mut Reader<'_>,
) -> Option<Authorizer> {
    let kind = fields.text("AuthorizationType", reader);
    let id = fields.text("AuthorizerId", reader);
    let place = fields.place("AuthorizationType");
    match (kind.as_deref(), id) {
        (None | Some("NONE"), None) => None,
        (None | Some("NONE"), Some(_)) => {
            reader.report.problem(&place, "expected CUSTOM, because the route has an AuthorizerId");
            None
        }
        (Some("CUSTOM"), None) => {
            let place = fields.place("AuthorizerId");
            reader.report.problem(&place, "required, but missing; expected a Ref to an authorizer");
            None
        }
        (Some("CUSTOM"), Some(id)) => {
            let place = fields.place("AuthorizerId");
            if fields.text("RouteKey", reader).is_some_and(|key| key != "$connect") {
                reader
                    .report
                    .problem(&place, "only the route $connect may have an authorizer; remove AuthorizerId");
            }
            let authorizer = authorizers.get(&id);
            if authorizer.is_none() {
                let message = format!("expected a Ref to an {AUTHORIZER} in this template, found {id:?}");
                reader.report.problem(&place, message);
            }
            authorizer?.clone()
        }
        (Some(other), _) => {
            let message = format!("the local gateway supports only NONE and CUSTOM, found {other:?}");
            reader.report.unsupported(&place, message);
            None
        }
    }
}

/// Returns the logical ids of the routes that have a route response for `$default`.
fn route_responses(resources: &[Resource<'_>], api_ids: &[String], reader: &mut Reader<'_>) -> Vec<String> {
    let mut responses = Vec::new();
    for resource in of_type(resources, ROUTE_RESPONSE) {
        let Some(mut fields) = resource.properties(reader) else { continue };
        api_id(&mut fields, api_ids, reader);
        let before = reader.report.problems.len();
        if !is_only_value(&mut fields, "RouteResponseKey", "$default", reader)
            && reader.report.problems.len() == before
        {
            reader
                .report
                .problem(&fields.place("RouteResponseKey"), "required, but missing; expected $default");
        }
        let route = fields.required_text("RouteId", "a Ref to a route", reader);
        let place = fields.place("RouteId");
        fields.finish(&[], reader);
        let Some(route) = route else { continue };
        if of_type(resources, ROUTE).any(|resource| resource.id == route) {
            responses.push(route);
        } else {
            reader
                .report
                .problem(&place, format!("expected a Ref to a route in this template, found {route:?}"));
        }
    }
    responses
}

/// Returns true if the property is set to `value`. Reports any other value as unsupported.
fn is_only_value(fields: &mut Fields, name: &'static str, value: &str, reader: &mut Reader<'_>) -> bool {
    let Some(found) = fields.text(name, reader) else { return false };
    if found != value {
        let message = format!("the local gateway supports only {value}, found {found:?}");
        reader.report.unsupported(&fields.place(name), message);
    }
    found == value
}
