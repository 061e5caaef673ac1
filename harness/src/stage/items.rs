//! Reads stored items as plain JSON, for assertions in tests.

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

use super::StageError;
use streamer_fakes::dynamodb::DynamoDb;

/// Returns all items of a table, sorted by their JSON texts.
pub(super) async fn all(dynamodb: &DynamoDb, table: &str) -> Result<Vec<Value>, StageError> {
    let failed = |message: String| StageError::Items { table: table.to_owned(), message };
    let client = dynamodb.harness_client();
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let page = client.scan().table_name(table).consistent_read(true).set_exclusive_start_key(after);
        let page = page.send().await.map_err(|error| {
            let error = error.into_service_error();
            failed(error.meta().message().map_or_else(|| error.to_string(), str::to_owned))
        })?;
        items.extend(page.items.unwrap_or_default().into_iter().map(|item| {
            Value::Object(item.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
        }));
        after = page.last_evaluated_key;
        if after.is_none() {
            items.sort_by_key(Value::to_string);
            return Ok(items);
        }
    }
}

/// Converts an attribute value to JSON without its DynamoDB type. A number that JSON cannot represent becomes
/// text, bytes become base64, a set becomes a sorted list.
fn plain(value: &AttributeValue) -> Value {
    let number = |text: &String| text.parse::<Number>().map_or_else(|_| text.as_str().into(), Value::Number);
    let sorted = |mut values: Vec<Value>| {
        values.sort_by_key(Value::to_string);
        Value::Array(values)
    };
    match value {
        AttributeValue::S(text) => text.as_str().into(),
        AttributeValue::N(text) => number(text),
        AttributeValue::Bool(bool) => (*bool).into(),
        AttributeValue::B(bytes) => STANDARD.encode(bytes).into(),
        AttributeValue::L(list) => list.iter().map(plain).collect(),
        AttributeValue::M(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        AttributeValue::Ss(texts) => sorted(texts.iter().map(|text| text.as_str().into()).collect()),
        AttributeValue::Ns(numbers) => sorted(numbers.iter().map(number).collect()),
        AttributeValue::Bs(all) => sorted(all.iter().map(|bytes| STANDARD.encode(bytes).into()).collect()),
        // Null, or a type that a later version of the SDK adds.
        AttributeValue::Null(_) | _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::primitives::Blob;
    use serde_json::json;

    use super::*;

    #[test]
    fn attribute_value_of_each_type_is_converted_to_plain_json() {
        let blob = || Blob::new([0, 255]);
        for (value, expected) in [
            (AttributeValue::S("a".into()), json!("a")),
            (AttributeValue::N("1.5".into()), json!(1.5)),
            (AttributeValue::N("12".into()), json!(12)),
            (AttributeValue::Bool(true), json!(true)),
            (AttributeValue::Null(true), Value::Null),
            (AttributeValue::B(blob()), json!("AP8=")),
            (AttributeValue::L(vec![AttributeValue::S("a".into())]), json!(["a"])),
            (AttributeValue::M([("k".to_owned(), AttributeValue::N("1".into()))].into()), json!({"k": 1})),
            (AttributeValue::Ss(vec!["b".into(), "a".into()]), json!(["a", "b"])),
            (AttributeValue::Ns(vec!["2".into(), "1".into()]), json!([1, 2])),
            (AttributeValue::Bs(vec![blob()]), json!(["AP8="])),
        ] {
            assert_eq!(plain(&value), expected);
        }
    }
}
