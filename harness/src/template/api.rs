//! The WebSocket API: `AWS::ApiGatewayV2::Api` and `AWS::ApiGatewayV2::Stage`.

use super::diagnostics::FindingKind::{Harmless, NotEmulated};
use super::diagnostics::Place;
use super::fields::{Fields, Ignored, Reader};
use super::function::Function;
use super::resource::{API, Resource, STAGE, of_type};
use super::route::{self, Route, api_id};
use streamer_fakes::gateway::{Limits, Throttle};

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
    ("DeploymentId", Harmless, "the local gateway always serves the present routes"),
    ("Description", Harmless, "a description"),
    ("Tags", Harmless, "tags have no effect locally"),
];

/// Reads the template's WebSocket API, if it has one.
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
        let message = "the local stage serves one WebSocket API, and this is a second one";
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
            reader.report.problem(&place, format!("the API has no stage; add an {STAGE}"));
        }
        // The stage that there is could not be read, which has been reported.
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

/// A stage and its throttles.
struct Stage {
    name: String,
    default: Option<Throttle>,
    routes: Vec<(String, Place, Option<Throttle>)>,
}

impl Stage {
    /// Has each route be called as often as its own settings say, or else the stage's.
    fn throttle(&self, routes: &mut [Route], reader: &mut Reader<'_>) {
        for route in routes.iter_mut() {
            route.throttle = self.default;
        }
        for (key, place, throttle) in &self.routes {
            match routes.iter_mut().find(|route| route.key == *key) {
                Some(route) => route.throttle = throttle.or(self.default),
                None => reader.report.problem(place, format!("the API has no route {key:?}")),
            }
        }
    }
}

const SETTINGS_IGNORED: &[Ignored] = &[
    ("DataTraceEnabled", Harmless, "log lines go to the terminal"),
    ("DetailedMetricsEnabled", Harmless, "there are no metrics locally"),
    ("LoggingLevel", Harmless, "log lines go to the terminal"),
];

/// The throttle in `DefaultRouteSettings`, or in one of `RouteSettings`. What it leaves out is as for all requests.
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

/// The stages by their API's id.
fn stages(resources: &[Resource<'_>], api_ids: &[String], reader: &mut Reader<'_>) -> Vec<(String, Stage)> {
    let mut stages = Vec::<(String, Stage)>::new();
    for resource in of_type(resources, STAGE) {
        let Some(mut fields) = resource.properties(reader) else { continue };
        let api_id = api_id(&mut fields, api_ids, reader);
        let name = fields.required_text("StageName", "the stage's name", reader);
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
            reader
                .report
                .unsupported(&resource.node.place, "the local stage is one, and this is a second one");
        }
        stages.push((api_id, Stage { name, default, routes }));
    }
    stages
}
