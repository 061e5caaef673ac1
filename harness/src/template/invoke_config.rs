//! Reads the settings of asynchronous invocations: `EventInvokeConfig` and `DeadLetterQueue` of a function.

use std::time::Duration;

use super::diagnostics::FindingKind::NotEmulated;
use super::fields::{Fields, Reader};
use streamer_fakes::lambda::AsyncSettings;

pub(super) fn read(fields: &mut Fields, reader: &mut Reader<'_>) -> AsyncSettings {
    let mut settings = AsyncSettings::default();
    if let Some(mut config) = fields.fields("EventInvokeConfig", reader) {
        if let Some(attempts) = config.count("MaximumRetryAttempts", "attempts", 0..=2, reader) {
            settings.maximum_retry_attempts = attempts;
        }
        if let Some(age) = config.count("MaximumEventAgeInSeconds", "seconds", 60..=21_600, reader) {
            settings.maximum_event_age = Duration::from_secs(age.into());
        }
        if let Some(mut destinations) = config.fields("DestinationConfig", reader) {
            settings.on_success = target(&mut destinations, "OnSuccess", "Destination", reader);
            settings.on_failure = target(&mut destinations, "OnFailure", "Destination", reader);
            destinations.finish(&[], reader);
        }
        config.finish(&[], reader);
    }
    settings.dead_letter = target(fields, "DeadLetterQueue", "TargetArn", reader);
    settings
}

/// Returns the target's ARN, which is the value of `arn_property` in the property `name`. Reports a finding
/// if the target is neither a queue nor a function, because such a target receives nothing locally.
fn target(
    fields: &mut Fields,
    name: &'static str,
    arn_property: &'static str,
    reader: &mut Reader<'_>,
) -> Option<String> {
    let mut target = fields.fields(name, reader)?;
    // `Type` has no local effect: SAM derives only a permission from it, and permissions are not checked
    // locally.
    target.text("Type", reader);
    let found = target.required_text(arn_property, "the ARN of a queue or function", reader);
    if let Some(found) = &found
        && !matches!(found.split(':').nth(2), Some("sqs" | "lambda"))
    {
        let message = "local destinations are queues and functions; the local stage logs the record for this \
         destination instead";
        reader.report.finding(&target.place(arn_property), NotEmulated, message);
    }
    target.finish(&[], reader);
    found
}
