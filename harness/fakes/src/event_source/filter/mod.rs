//! Filter patterns: which records a function is to see.

mod condition;
mod parse;

use serde_json::Value;

use condition::Node;
pub use parse::FilterError;

/// One filter of a mapping's `FilterCriteria`.
///
/// Each key of a pattern names a key of the record, and all of them must match. A list holds what the value
/// may be: `null`, a string, a number or a boolean it equals, or one of the operators `prefix`, `suffix`,
/// `equals-ignore-case`, `anything-but`, `numeric` and `exists`. `$or` holds patterns of which one must match.
///
/// A stream record wraps each value in its type, so a pattern has to name it: `{"S": ["PENDING"]}`. A `numeric`
/// never matches an `N`, whose value is a string. An `exists` is about leaves alone: an object is none.
/// Whether AWS takes `suffix` and `equals-ignore-case` for streams is not settled: see
/// [`Settings::unsettled_operators`](super::Settings::unsettled_operators).
#[derive(Clone, Debug, PartialEq)]
pub struct FilterPattern(Node);

impl FilterPattern {
    /// Reads a pattern from JSON text, as templates and Lambda's API hold it.
    ///
    /// # Errors
    /// When it is no JSON or no pattern; the error says where.
    pub fn parse(pattern: &str) -> Result<Self, FilterError> {
        let value = serde_json::from_str(pattern).map_err(|error| FilterError::new("", error.to_string()))?;
        Self::from_value(&value)
    }

    /// Reads a pattern from JSON.
    ///
    /// # Errors
    /// When it is no pattern; the error says where.
    pub fn from_value(pattern: &Value) -> Result<Self, FilterError> {
        parse::pattern(pattern).map(Self)
    }

    /// Whether it uses `suffix` or `equals-ignore-case`, of which no source settles whether AWS takes them for streams.
    #[must_use]
    pub fn uses_unsettled_operators(&self) -> bool {
        self.0.is_unsettled()
    }

    /// Whether `record` matches.
    #[must_use]
    pub fn matches(&self, record: &Value) -> bool {
        self.0.matches(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Whether `{"v": conditions}` matches a record whose `v` is `value`.
    fn matches(conditions: &Value, value: &Value) -> bool {
        FilterPattern::from_value(&json!({ "v": conditions })).unwrap().matches(&json!({ "v": value }))
    }

    #[test]
    fn filters_row_every_operator() {
        for (conditions, yes, no) in [
            (json!([null]), json!([null]), json!(["", 0, false])),
            (json!([""]), json!([""]), json!([null, "x"])),
            (json!(["a", "b"]), json!(["a", "b", ["z", "b"]]), json!(["A", "ab", ["z"], {"a": 1}])),
            (json!([7]), json!([7, 7.0]), json!(["7", 8])),
            (json!([true]), json!([true]), json!([false, "true"])),
            (json!([{"prefix": "PEN"}]), json!(["PENDING"]), json!(["pending", 1])),
            (json!([{"suffix": "ING"}]), json!(["PENDING"]), json!(["PENDINGS", null])),
            (json!([{"equals-ignore-case": "pending"}]), json!(["PENDING"]), json!(["PEND", 3])),
            (json!([{"anything-but": ["a", 1]}]), json!(["b", 2, null]), json!(["a", 1])),
            (json!([{"anything-but": "a"}]), json!(["b"]), json!(["a"])),
            (json!([{"anything-but": {"prefix": "a"}}]), json!(["ba"]), json!(["ab"])),
            (json!([{"numeric": ["=", 5]}]), json!([5, 5.0]), json!(["5", 5.1])),
            (json!([{"numeric": [">", 0, "<=", 5]}]), json!([0.1, 5]), json!([0, 5.1])),
            (json!([{"numeric": [">=", 0, "<", 5]}]), json!([0, 4.9]), json!([-0.1, 5])),
            (json!([{"exists": true}]), json!([null, "", 0]), json!([{}, {"S": "x"}])),
            (json!([{"exists": false}]), json!([]), json!([null, "", 0])),
            (json!(["x", {"prefix": "y"}]), json!(["x", "yz"]), json!(["z"])),
        ] {
            for value in yes.as_array().unwrap() {
                assert!(matches(&conditions, value), "{conditions} is to match {value}");
            }
            for value in no.as_array().unwrap() {
                assert!(!matches(&conditions, value), "{conditions} is not to match {value}");
            }
        }
    }

    #[test]
    fn filters_row_a_missing_key_matches_only_exists_false() {
        for (conditions, expected) in [
            (json!([{"exists": false}]), true),
            (json!([{"exists": true}]), false),
            (json!([null]), false),
            (json!([{"anything-but": ["a"]}]), false),
            (json!(["a", {"exists": false}]), true),
        ] {
            let pattern = FilterPattern::from_value(&json!({ "missing": { "deeper": conditions } })).unwrap();
            assert_eq!(pattern.matches(&json!({ "v": 1 })), expected, "{conditions}");
        }
    }

    #[test]
    fn filters_row_keys_are_anded_and_or_is_a_key_of_its_own() {
        let pattern = r#"{"eventName": ["INSERT"], "$or": [{"a": [1]}, {"b": [2], "c": [3]}]}"#;
        let pattern = FilterPattern::parse(pattern).unwrap();
        for (record, expected) in [
            (json!({"eventName": "INSERT", "a": 1}), true),
            (json!({"eventName": "INSERT", "b": 2, "c": 3}), true),
            (json!({"eventName": "INSERT", "b": 2}), false),
            (json!({"eventName": "INSERT"}), false),
            (json!({"eventName": "MODIFY", "a": 1}), false),
        ] {
            assert_eq!(pattern.matches(&record), expected, "{record}");
        }
    }

    #[test]
    fn filters_row_the_type_key_is_required_and_numeric_never_matches_an_n() {
        let record =
            json!({ "dynamodb": { "NewImage": { "status": {"S": "PENDING"}, "attempt": {"N": "3"} } } });
        for (image, expected) in [
            (json!({"status": {"S": ["PENDING"]}}), true),
            (json!({"status": ["PENDING"]}), false),
            (json!({"attempt": {"N": [{"numeric": [">", 1]}]}}), false),
            (json!({"attempt": {"N": ["3"]}}), true),
            (json!({}), true),
        ] {
            let pattern = FilterPattern::from_value(&json!({ "dynamodb": { "NewImage": image } })).unwrap();
            assert_eq!(pattern.matches(&record), expected, "{image}");
        }
    }
}
