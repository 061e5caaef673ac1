//! Reads schedules: a function's events `Schedule` and `ScheduleV2`, and `AWS::Events::Rule`.

use super::diagnostics::FindingKind::{Harmless, NotEmulated};
use super::events::ScheduleEvent;
use super::fields::{Fields, Ignored, Reader};
use super::function::{Function, function_name};
use super::resource::{RULE, Resource, of_type};
use streamer_fakes::lambda::{Expression, Schedule, Scheduler};

const IGNORED: &[Ignored] = &[
    (
        "DeadLetterConfig",
        Harmless,
        "locally an event always reaches the queue of its function, so that retries are not needed",
    ),
    ("Description", Harmless, "a description has no effect"),
    ("EventBusName", Harmless, "scheduled rules always use the default event bus"),
    ("KmsKeyArn", Harmless, "nothing is encrypted locally"),
    ("OmitName", Harmless, "generated names contain no random letters locally"),
    ("PermissionsBoundary", Harmless, "permissions are not checked locally"),
    (
        "RetryPolicy",
        Harmless,
        "locally an event always reaches the queue of its function, so that retries are not needed",
    ),
    ("RoleArn", Harmless, "permissions are not checked locally"),
    ("Tags", Harmless, "tags have no effect locally"),
];

/// Reads the schedules that are declared as events of functions or as rules. Omits disabled schedules.
pub(super) fn read(
    resources: &[Resource<'_>],
    events: Vec<ScheduleEvent>,
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Vec<Schedule> {
    let mut schedules: Vec<_> =
        events.into_iter().filter_map(|event| schedule_of_event(event, reader)).collect();
    for resource in of_type(resources, RULE) {
        schedules.extend(schedules_of_rule(resource, functions, reader));
    }
    schedules
}

fn schedule_of_event(event: ScheduleEvent, reader: &mut Reader<'_>) -> Option<Schedule> {
    let ScheduleEvent { function, id, service, properties: mut fields } = event;
    let property = match service {
        Scheduler::Rule => "Schedule",
        Scheduler::Schedule => "ScheduleExpression",
    };
    let expression = expression(&mut fields, property, reader);
    let name = fields.text("Name", reader);
    let arn = match service {
        Scheduler::Rule => {
            let stack = &reader.scope.environment.stack_name;
            let name = name.unwrap_or_else(|| format!("{stack}-{id}"));
            reader.scope.arn("events", &format!("rule/{name}"))
        }
        Scheduler::Schedule => {
            let group = fields.text("GroupName", reader).unwrap_or_else(|| "default".to_owned());
            let name = name.unwrap_or(id);
            reader.scope.arn("scheduler", &format!("schedule/{group}/{name}"))
        }
    };
    let input = fields.text("Input", reader);
    let enabled = enabled(&mut fields, reader);
    if service == Scheduler::Schedule {
        only_utc(&mut fields, reader);
        if let Some(mut window) = fields.fields("FlexibleTimeWindow", reader) {
            // `Mode` has no local effect: a local event comes at the start of its window, which every mode
            // allows.
            window.text("Mode", reader);
            window.finish(
                &[("MaximumWindowInMinutes", Harmless, "a local event comes at the start of its window")],
                reader,
            );
        }
    }
    fields.finish(IGNORED, reader);
    expression.filter(|_| enabled).map(|expression| Schedule { function, arn, expression, input, service })
}

fn schedules_of_rule(
    resource: &Resource<'_>,
    functions: &[Function],
    reader: &mut Reader<'_>,
) -> Vec<Schedule> {
    let Some(mut fields) = resource.properties(reader) else { return Vec::new() };
    if !fields.has("ScheduleExpression") {
        let message = "only rules with a ScheduleExpression are emulated; this rule invokes no function";
        reader.report.finding(&resource.node.place, NotEmulated, message);
        return Vec::new();
    }
    let expression = expression(&mut fields, "ScheduleExpression", reader);
    let name = fields.text("Name", reader);
    let name = name.unwrap_or_else(|| format!("{}-{}", reader.scope.environment.stack_name, resource.id));
    let arn = reader.scope.arn("events", &format!("rule/{name}"));
    let enabled = enabled(&mut fields, reader);
    let mut schedules = Vec::new();
    for node in fields.list("Targets", reader) {
        let Some(mut target) = Fields::of(&node, reader) else { continue };
        target.text("Id", reader);
        let called = target.required_text("Arn", "the ARN of a function", reader);
        let input = target.text("Input", reader);
        let function = called.as_deref().and_then(|called| {
            let function = functions.iter().find(|function| function.name == function_name(called));
            if function.is_none() {
                let message = format!(
                    "the local stage invokes only functions of this template; this target is ignored: \
                     {called:?}"
                );
                reader.report.finding(&target.place("Arn"), NotEmulated, message);
            }
            function
        });
        target.finish(IGNORED, reader);
        if let (Some(function), Some(expression), true) = (function, &expression, enabled) {
            schedules.push(Schedule {
                function: function.name.clone(),
                arn: arn.clone(),
                expression: expression.clone(),
                input,
                service: Scheduler::Rule,
            });
        }
    }
    fields.finish(IGNORED, reader);
    schedules
}

fn expression(fields: &mut Fields, property: &'static str, reader: &mut Reader<'_>) -> Option<Expression> {
    let text = fields.required_text(
        property,
        "an expression such as rate(5 minutes) or cron(0 12 * * ? *)",
        reader,
    )?;
    match text.parse() {
        Ok(expression) => Some(expression),
        Err(error) => {
            reader.report.problem(&fields.place(property), format!("invalid schedule: {error}"));
            None
        }
    }
}

fn enabled(fields: &mut Fields, reader: &mut Reader<'_>) -> bool {
    let state = fields.text("State", reader);
    fields.flag("Enabled", reader).unwrap_or(state.as_deref() != Some("DISABLED"))
}

/// Reports a start date, an end date, or a time zone other than UTC as unsupported, because each would change
/// the times at which the function is invoked.
fn only_utc(fields: &mut Fields, reader: &mut Reader<'_>) {
    if let Some(zone) = fields.text("ScheduleExpressionTimezone", reader).filter(|zone| zone != "UTC") {
        let message = format!("local schedules support only UTC, found {zone:?}");
        reader.report.unsupported(&fields.place("ScheduleExpressionTimezone"), message);
    }
    for property in ["StartDate", "EndDate"] {
        if fields.text(property, reader).is_some() {
            reader.report.unsupported(
                &fields.place(property),
                "local schedules do not support a start or end date; remove this property",
            );
        }
    }
}
