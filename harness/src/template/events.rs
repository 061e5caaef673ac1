//! Collects the `Events` of `AWS::Serverless::Function`.

use super::diagnostics::FindingKind::NotEmulated;
use super::fields::{Fields, Reader};
use streamer_fakes::lambda::Scheduler;

/// Stream events and schedule events of all functions. The properties of the events are still unread.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) streams: Vec<StreamEvent>,
    pub(super) schedules: Vec<ScheduleEvent>,
}

/// An event of a function whose source is a table's stream. The properties of the event are still unread.
#[derive(Debug)]
pub(super) struct StreamEvent {
    pub(super) function: String,
    pub(super) properties: Fields,
}

/// An event of a function whose source is a schedule. The properties of the event are still unread.
#[derive(Debug)]
pub(super) struct ScheduleEvent {
    pub(super) function: String,
    /// Logical id of the resource that SAM generates for the event.
    pub(super) id: String,
    pub(super) service: Scheduler,
    pub(super) properties: Fields,
}

impl Events {
    /// Collects the stream events and schedules of one function.
    pub(super) fn collect(
        &mut self,
        fields: &mut Fields,
        logical_id: &str,
        function: &str,
        reader: &mut Reader<'_>,
    ) {
        let Some(all) = fields.fields("Events", reader) else { return };
        for (event_id, node) in all.into_entries() {
            let Some(mut event) = Fields::of(&node, reader) else { continue };
            let Some(kind) = event.required_text("Type", "a type of event source, such as DynamoDB", reader)
            else {
                continue;
            };
            if kind == "DynamoDB" {
                match event.fields("Properties", reader) {
                    Some(properties) => {
                        self.streams.push(StreamEvent { function: function.to_owned(), properties })
                    }
                    None => reader.report.problem(
                        &event.place("Properties"),
                        "required, but missing; expected a mapping with the property Stream",
                    ),
                }
                event.finish(&[], reader);
            } else if let Some(service) = scheduler(&kind) {
                if let Some(properties) = event.fields("Properties", reader) {
                    let (function, id) = (function.to_owned(), format!("{logical_id}{event_id}"));
                    self.schedules.push(ScheduleEvent { function, id, service, properties });
                } else {
                    reader.report.problem(
                        &event.place("Properties"),
                        "required, but missing; expected a mapping with a schedule expression",
                    );
                }
                event.finish(&[], reader);
            } else {
                let message = format!("events of type {kind} are not emulated and never invoke the function");
                reader.report.finding(&event.place, NotEmulated, message);
            }
        }
    }
}

/// Returns the scheduler for an event type; `None` if the type is not a schedule.
fn scheduler(event_type: &str) -> Option<Scheduler> {
    match event_type {
        "Schedule" => Some(Scheduler::Rule),
        "ScheduleV2" => Some(Scheduler::Schedule),
        _ => None,
    }
}
