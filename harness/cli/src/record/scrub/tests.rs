use serde_json::json;

use super::*;

const SECRET: &str = "hunter2";

fn fixtures() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures");
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|file| {
            let fixture: Value =
                serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
            fixture["event"].clone()
        })
        .collect()
}

/// Applies `plant_text` to every text, and adds a key and a value that contain the secret to every object.
/// Also changes objects inside JSON texts.
fn plant(value: &Value, plant_text: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(inner @ Value::Object(_)) => Value::String(plant(&inner, plant_text).to_string()),
            _ => Value::String(plant_text(text)),
        },
        Value::Array(values) => values.iter().map(|value| plant(value, plant_text)).collect(),
        Value::Object(members) => {
            let mut planted: Map<_, _> =
                members.iter().map(|(key, value)| (key.clone(), plant(value, plant_text))).collect();
            planted.insert(format!("{SECRET}-key"), json!({SECRET: SECRET}));
            Value::Object(planted)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[test]
fn scrubbed_event_contains_no_secret_planted_in_a_text_or_key() {
    let placements: [&dyn Fn(&str) -> String; 4] = [
        &|_| SECRET.to_owned(),
        &|text| format!("{text}{SECRET}"),
        &|text| format!("{SECRET}.{text}.{SECRET}"),
        &|text| format!("{SECRET}, {text} / {SECRET}"),
    ];
    for event in fixtures() {
        for plant_text in placements {
            let scrubbed = Scrubber::new([]).scrub(&plant(&event, plant_text)).to_string();
            assert!(!scrubbed.contains(SECRET), "{scrubbed}");
        }
    }
}

#[test]
fn payload_values_are_replaced_even_under_keys_that_aws_uses() {
    let payload = json!({"SizeBytes": 4_711, "connectedAt": 4_711, "status": "FAILED", "N": "4711", "B": "4711", "S": 4_711.25});
    let event = json!({"body": json!({"payload": payload, "metadata": {"part": "4711"}}).to_string()});
    let scrubbed = Scrubber::new([]).scrub(&event).to_string();
    assert!(!scrubbed.contains("4711") && !scrubbed.contains("FAILED"), "{scrubbed}");
}

#[test]
fn scrubbing_keeps_the_shape_and_replaces_equal_values_equally() {
    let mut scrubber = Scrubber::new(["echo".to_owned()]);
    let event = json!({
        "headers": {"Host": "zzz9.execute-api.eu-west-1.amazonaws.com", "Authorization": "Bearer ey.secret.x", "X-Mine": "me"},
        "queryStringParameters": {"token": "ey.secret.x", "email": "ann@corp"},
        "requestContext": {
            "eventType": "CONNECT", "connectionId": "Q9kmxc2VNjMCFIA=", "apiId": "zzz9", "connectedAt": 1_707_503_008_941_u64,
            "identity": {"sourceIp": "203.0.113.9", "userAgent": "Ann's phone"},
        },
        "body": "{\"action\":\"echo\",\"id\":\"order-4711\",\"payload\":{\"iban\":\"DE02\",\"n\":[12,1.25,-7,null,true]}}",
    });
    insta::assert_json_snapshot!(scrubber.scrub(&event));
    let second =
        json!({"Keys": {"connection_id": {"S": "Q9kmxc2VNjMCFIA="}}, "dynamodb": {"M": {"N": "120.5"}}});
    let scrubbed = scrubber.scrub(&second);
    assert_eq!(scrubbed["Keys"]["connection_id"]["S"], "R0000000000001A=");
    assert_eq!(scrubbed["dynamodb"]["M"]["N"], "111.1");
}

#[test]
fn scrubbing_keeps_the_record_keys_of_every_stream_fixture() {
    for event in fixtures().iter().filter(|event| event.get("Records").is_some()) {
        let scrubbed = Scrubber::new([]).scrub(event);
        let (before, after) = (&event["Records"][0], &scrubbed["Records"][0]);
        let keys = |record: &Value| record.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(before), keys(after));
        assert_eq!(before["eventName"], after["eventName"]);
        assert_ne!(before["eventSourceARN"], after["eventSourceARN"]);
    }
}
