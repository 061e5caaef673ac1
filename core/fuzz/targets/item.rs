//! Fuzzes the decoders of DynamoDB items with images of items, as in stream records. A decoder returns an error or a
//! value, and a decoded value is unchanged after it is encoded and decoded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use streamer::store::dynamodb::{connection_item, item_of_image, part_item, request_item};

fuzz_target!(|image: &[u8]| {
    let Ok(image) = serde_json::from_slice::<Value>(image) else { return };
    let Ok(item) = item_of_image(&image) else { return };
    if let Ok(connection) = connection_item::decode(&item) {
        let again = connection_item::encode(&connection);
        assert_eq!(connection_item::decode(&again), Ok(connection));
    }
    // Only an open request can be encoded as a whole item; the terminal write is an update of the stored item.
    if let Ok(request) = request_item::decode(&item, &[])
        && request.ending.is_none()
    {
        let written = request_item::encode(&request, None, 8);
        let again =
            request_item::decode(&written.item, &written.parts).expect("an encoded request can be decoded");
        assert_eq!(request_item::encode(&again, None, 8), written);
    }
    let _ = request_item::decode_summary(&item);
    let _ = request_item::status_and_lease(&item);
    let _ = part_item::decode(&item);
});
