//! `Events` of `AWS::Serverless::Function`.

use super::diagnostics::FindingKind::NotEmulated;
use super::fields::{Fields, Reader};
use streamer_fakes::lambda::Scheduler;

/// The events of the functions, still to be read.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) streams: Vec<StreamEvent>,
    pub(super) schedules: Vec<ScheduleEvent>,
}

/// An event of a function that comes from a table's stream, still to be read.
#[derive(Debug)]
pub(super) struct StreamEvent {
    pub(super) function: String,
    pub(super) properties: Fields,
}

/// An event of a function that comes from the clock, still to be read.
#[derive(Debug)]
pub(super) struct ScheduleEvent {
    pub(super) function: String,
    /// The logical id that SAM gives to what it makes of the event.
    pub(super) id: String,
    pub(super) service: Scheduler,
    pub(super) properties: Fields,
}

impl Events {
    /// Sets aside the events of one function that come from a stream or the clock.
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
            let Some(kind) =
                event.required_text("Type", "the kind of event source, such as DynamoDB", reader)
            else {
                continue;
            };
            if kind == "DynamoDB" {
                match event.fields("Properties", reader) {
                    Some(properties) => {
                        self.streams.push(StreamEvent { function: function.to_owned(), properties })
                    }
                    None => reader
                        .report
                        .problem(&event.place("Properties"), "is missing; it must name the Stream"),
                }
                event.finish(&[], reader);
            } else if let Some(service) = service(&kind) {
                if let Some(properties) = event.fields("Properties", reader) {
                    let (function, id) = (function.to_owned(), format!("{logical_id}{event_id}"));
                    self.schedules.push(ScheduleEvent { function, id, service, properties });
                } else {
                    reader.report.problem(&event.place("Properties"), "is missing; it must say when");
                }
                event.finish(&[], reader);
            } else {
                let message =
                    format!("events of type {kind} do not happen locally, so they never call the function");
                reader.report.finding(&event.place, NotEmulated, message);
            }
        }
    }
}

/// What keeps an event of this type; nothing when it does not come from the clock.
fn service(event_type: &str) -> Option<Scheduler> {
    match event_type {
        "Schedule" => Some(Scheduler::Rule),
        "ScheduleV2" => Some(Scheduler::Schedule),
        _ => None,
    }
}
