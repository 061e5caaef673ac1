//! Filter patterns, which select the stream records that a function receives.

mod condition;
mod parse;

use serde_json::Value;

use condition::Node;
pub use parse::FilterError;

/// One filter of an event source mapping (`FilterCriteria`).
///
/// Each key of a pattern names a key of the record, and all keys must match. The value of a key is an object with
/// deeper keys or a list of alternatives. An alternative is `null`, a string, a number or a boolean, which must
/// equal the record's value, or an operator: `prefix`, `suffix`, `equals-ignore-case`, `anything-but`, `numeric` or
/// `exists`. The key `$or` holds a list of patterns, at least one of which must match.
///
/// A stream record wraps each value in an object with the value's type. A pattern must name the type as well:
/// `{"S": ["PENDING"]}`. The operator `numeric` never matches an `N`, because its value is a string. The operator
/// `exists` applies only to leaf values: an object counts as missing.
///
/// No source states whether AWS supports `suffix` and `equals-ignore-case` for streams. See
/// [`Settings::undocumented_operators`](super::Settings::undocumented_operators).
#[derive(Clone, Debug, PartialEq)]
pub struct FilterPattern(Node);

impl FilterPattern {
    /// Parses a pattern from JSON text, the form in which templates and Lambda's API contain patterns.
    ///
    /// # Errors
    /// [`FilterError`] if the text is not JSON or not a valid pattern. The error names the position in the pattern.
    pub fn parse(pattern: &str) -> Result<Self, FilterError> {
        let value = serde_json::from_str(pattern).map_err(|error| FilterError::new("", error.to_string()))?;
        Self::from_value(&value)
    }

    /// Parses a pattern from a JSON value.
    ///
    /// # Errors
    /// [`FilterError`] if the value is not a valid pattern. The error names the position in the pattern.
    pub fn from_value(pattern: &Value) -> Result<Self, FilterError> {
        parse::pattern(pattern).map(Self)
    }

    /// Returns whether the pattern uses `suffix` or `equals-ignore-case`. No source states whether AWS supports
    /// these operators for streams.
    #[must_use]
    pub fn uses_undocumented_operators(&self) -> bool {
        self.0.is_unsettled()
    }

    /// Returns whether `record` matches the pattern.
    #[must_use]
    pub fn matches(&self, record: &Value) -> bool {
        self.0.matches(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Returns whether the pattern `{"v": conditions}` matches the record `{"v": value}`.
    fn matches(conditions: &Value, value: &Value) -> bool {
        FilterPattern::from_value(&json!({ "v": conditions })).unwrap().matches(&json!({ "v": value }))
    }

    #[test]
    fn filter_operators_match_and_reject_values_as_documented() {
        for (conditions, matching, rejected) in [
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
            for value in matching.as_array().unwrap() {
                assert!(matches(&conditions, value), "{conditions} matches {value}");
            }
            for value in rejected.as_array().unwrap() {
                assert!(!matches(&conditions, value), "{conditions} does not match {value}");
            }
        }
    }

    #[test]
    fn filter_matches_a_missing_key_only_with_exists_false() {
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
    fn filter_requires_all_keys_and_at_least_one_pattern_of_the_or_key() {
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
    fn filter_must_name_the_type_key_and_numeric_never_matches_a_number_attribute() {
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
