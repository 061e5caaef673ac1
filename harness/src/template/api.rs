//! Reads the WebSocket API: `AWS::ApiGatewayV2::Api` and `AWS::ApiGatewayV2::Stage`.

use super::diagnostics::FindingKind::{Harmless, NotEmulated};
use super::diagnostics::Place;
use super::fields::{Fields, Ignored, Reader};
use super::function::Function;
use super::resource::{API, Resource, STAGE, of_type};
use super::route::{self, Route, api_id};
use streamer_fakes::gateway::{Limits, Throttle};

/// A WebSocket API of the template, with its one stage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebSocketApi {
    /// Logical id of the API in the template.
    pub logical_id: String,
    /// Name of the API, its property `Name`.
    pub name: String,
    /// Id of the API, derived from the stack's name and the logical id, so that it is the same at every
    /// start.
    pub api_id: String,
    /// Name of the API's stage, the last part of the API's URL.
    pub stage_name: String,
    /// Expression that selects the route of a message, such as `$request.body.action`.
    pub route_selection_expression: String,
    /// Routes of the API, in the order of the template.
    pub routes: Vec<Route>,
}

const API_IGNORED: &[Ignored] = &[
    ("Description", Harmless, "a description has no effect"),
    ("DisableExecuteApiEndpoint", Harmless, "the local API is always served at its own address"),
    ("DisableSchemaValidation", Harmless, "the local gateway does not validate messages against schemas"),
    ("FailOnWarnings", Harmless, "applies only to the import of an API definition"),
    ("IpAddressType", Harmless, "the local stage listens on the address that it is given"),
    ("Tags", Harmless, "tags have no effect locally"),
    ("Version", Harmless, "the version is a label without effect"),
];

const STAGE_IGNORED: &[Ignored] = &[
    ("AccessLogSettings", Harmless, "log lines go to the terminal"),
    ("AutoDeploy", Harmless, "the local gateway always serves the current routes"),
    ("DeploymentId", Harmless, "the local gateway always serves the current routes"),
    ("Description", Harmless, "a description has no effect"),
    ("Tags", Harmless, "tags have no effect locally"),
];

/// Reads the WebSocket API of the template; `None` if the template has none.
pub(super) fn read(
    resources: &[Resource<'_>],
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Option<WebSocketApi> {
    let mut apis: Vec<WebSocketApi> =
        of_type(resources, API).filter_map(|resource| api(resource, reader)).collect();
    let api_ids: Vec<String> = apis.iter().map(|api| api.api_id.clone()).collect();
    let mut routes = route::read(resources, &api_ids, functions, reader);
    let stages = stages(resources, &api_ids, reader);
    let (first, others) = apis.split_first_mut()?;
    for other in others {
        let message =
            "the local stage serves one WebSocket API, but this is a second one; remove one of them";
        let place = place_of(other, reader);
        reader.report.unsupported(&place, message);
    }
    first.routes = routes.remove(&first.api_id).unwrap_or_default();
    match stages.iter().find(|(api_id, _)| *api_id == first.api_id) {
        Some((_, stage)) => {
            first.stage_name.clone_from(&stage.name);
            stage.throttle(&mut first.routes, reader);
        }
        None if of_type(resources, STAGE).next().is_none() => {
            let place = place_of(first, reader);
            reader.report.problem(&place, format!("the API has no stage; add an {STAGE} for it"));
        }
        // The template has a stage that could not be read. That problem has already been reported.
        None => {}
    }
    Some(first.clone())
}

fn place_of(api: &WebSocketApi, reader: &Reader<'_>) -> Place {
    reader.scope.resource(&api.logical_id).map(|node| node.place.clone()).unwrap_or_default()
}

fn api(resource: &Resource<'_>, reader: &mut Reader<'_>) -> Option<WebSocketApi> {
    let mut fields = resource.properties(reader)?;
    let protocol = fields.required_text("ProtocolType", "WEBSOCKET", reader)?;
    if protocol != "WEBSOCKET" {
        let message =
            format!("the local stage serves only APIs with ProtocolType WEBSOCKET, found {protocol:?}");
        reader.report.unsupported(&fields.place("ProtocolType"), message);
        return None;
    }
    let name = fields.required_text("Name", "the name of the API", reader);
    let expression = fields.required_text(
        "RouteSelectionExpression",
        "an expression such as $request.body.action",
        reader,
    );
    if let Some(keys) = fields.text("ApiKeySelectionExpression", reader) {
        let place = fields.place("ApiKeySelectionExpression");
        reader.report.finding(
            &place,
            NotEmulated,
            format!("API keys (selected by {keys}) are not checked locally"),
        );
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

/// A stage of the API, with the rate limits of its routes.
struct Stage {
    name: String,
    default: Option<Throttle>,
    routes: Vec<(String, Place, Option<Throttle>)>,
}

impl Stage {
    /// Sets the rate limit of each route: the route's own settings, otherwise the stage's default.
    fn throttle(&self, routes: &mut [Route], reader: &mut Reader<'_>) {
        for route in routes.iter_mut() {
            route.throttle = self.default;
        }
        for (key, place, throttle) in &self.routes {
            match routes.iter_mut().find(|route| route.key == *key) {
                Some(route) => route.throttle = throttle.or(self.default),
                None => reader.report.problem(place, format!("the API has no route with the key {key:?}")),
            }
        }
    }
}

const SETTINGS_IGNORED: &[Ignored] = &[
    ("DataTraceEnabled", Harmless, "log lines go to the terminal"),
    ("DetailedMetricsEnabled", Harmless, "there are no metrics locally"),
    ("LoggingLevel", Harmless, "log lines go to the terminal"),
];

/// Reads a rate limit from `DefaultRouteSettings` or from an entry of `RouteSettings`. If only the rate or
/// only the burst is set, the missing value is AWS's default for a whole account. Returns `None` if neither
/// is set.
fn throttle(mut fields: Fields, reader: &mut Reader<'_>) -> Option<Throttle> {
    let burst = fields.count("ThrottlingBurstLimit", "requests", 0..=u32::MAX, reader);
    let rate = fields.text("ThrottlingRateLimit", reader).and_then(|text| {
        let rate = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate >= 0.0);
        if rate.is_none() {
            let message = format!("expected a number of requests a second, found {text:?}");
            reader.report.problem(&fields.place("ThrottlingRateLimit"), message);
        }
        rate
    });
    fields.finish(SETTINGS_IGNORED, reader);
    let all = Limits::default().requests;
    let burst_or_all = burst.unwrap_or(all.burst);
    match rate {
        Some(rate) => Some(Throttle::per_second(rate, burst_or_all)),
        None => burst.map(|burst| Throttle { burst, ..all }),
    }
}

/// Reads all stages, each with the id of its API.
fn stages(resources: &[Resource<'_>], api_ids: &[String], reader: &mut Reader<'_>) -> Vec<(String, Stage)> {
    let mut stages = Vec::<(String, Stage)>::new();
    for resource in of_type(resources, STAGE) {
        let Some(mut fields) = resource.properties(reader) else { continue };
        let api_id = api_id(&mut fields, api_ids, reader);
        let name = fields.required_text("StageName", "the name of the stage", reader);
        let default = fields.fields("DefaultRouteSettings", reader);
        let default = default.and_then(|fields| throttle(fields, reader));
        let routes = fields.fields("RouteSettings", reader).map(Fields::into_entries).unwrap_or_default();
        let routes = routes.into_iter().map(|(key, node)| {
            let settings = Fields::of(&node, reader).and_then(|fields| throttle(fields, reader));
            (key, node.place, settings)
        });
        let routes = routes.collect();
        fields.finish(STAGE_IGNORED, reader);
        let Some((api_id, name)) = api_id.zip(name) else { continue };
        if stages.iter().any(|(other, _)| *other == api_id) {
            reader.report.unsupported(
                &resource.node.place,
                "the local gateway serves one stage per API, but this is a second one; remove one of them",
            );
        }
        stages.push((api_id, Stage { name, default, routes }));
    }
    stages
}
