//! Fuzzes the processor with batches of stream records. The processor must report only records of the batch as
//! failed, and at most as many failures as the batch has records.

#![no_main]

use std::cell::LazyCell;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use streamer::processor::StreamBatch;
use streamer_fuzz::{Functions, NOW};

thread_local! {
    static FUNCTIONS: LazyCell<Functions> = const { LazyCell::new(Functions::new) };
}

fuzz_target!(|text: &[u8]| {
    let Ok(event) = serde_json::from_slice::<Value>(text) else { return };
    // serde would also deserialize a `StreamBatch` from an array, but the checks below need the key `Records`.
    if !event.is_object() {
        return;
    }
    let Ok(batch) = serde_json::from_value::<StreamBatch>(event.clone()) else { return };
    let sequence_numbers: Vec<&str> = event["Records"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|record| record["dynamodb"]["SequenceNumber"].as_str().unwrap_or_default())
        .collect();
    FUNCTIONS.with(|functions| {
        let processing = functions.processor.process(batch, NOW + Duration::from_secs(900));
        let failures = functions.runtime.block_on(processing).batch_item_failures;
        assert!(
            failures.len() <= sequence_numbers.len(),
            "processor reports at most one failure per record: {failures:?}"
        );
        for failure in failures {
            let number = failure.item_identifier.as_str();
            assert!(
                sequence_numbers.contains(&number),
                "each failed record is in the batch: {number:?} in {sequence_numbers:?}"
            );
        }
    });
});
