//! Limits on the nesting of a request, checked before a recursive parser reads the request.
//!
//! The engine parses expressions recursively, so a few thousand parentheses would overflow the stack. AWS also refuses
//! such expressions, because they have more than 300 operators.

use serde_json::Value;

use super::error::ApiError;

/// Maximum nesting depth of a request's JSON. DynamoDB allows 32 nested attribute values, with two JSON levels each.
const MAX_JSON_DEPTH: usize = 100;

/// Maximum number of nested operators in an expression or statement.
const MAX_EXPRESSION_DEPTH: usize = 300;

/// Refuses a request whose nesting could overflow the stack of a recursive parser.
pub(super) fn check(body: &[u8]) -> Result<(), ApiError> {
    let bounds = scan(body);
    if bounds.json_depth > MAX_JSON_DEPTH {
        return Err(ApiError::validation(
            "Nesting Levels have exceeded supported limits: Attributes with nesting levels greater than 32 are \
             not supported",
        ));
    }
    if bounds.nesting_in_a_string <= MAX_EXPRESSION_DEPTH {
        return Ok(());
    }
    // Rare case: a string contains many brackets. Only parsing the request shows whether the string is an expression or
    // data.
    let request = serde_json::from_slice(body).map_err(|_| ApiError::serialization(None))?;
    check_expressions(&request)
}

struct NestingBounds {
    json_depth: usize,
    /// Upper bound on the nesting depth inside any one string of the request. Closing brackets are not subtracted, and
    /// each escape counts as a bracket.
    nesting_in_a_string: usize,
}

fn scan(body: &[u8]) -> NestingBounds {
    let mut bounds = NestingBounds { json_depth: 0, nesting_in_a_string: 0 };
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut nesting = 0;
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match (in_string, byte) {
            (true, b'"') => {
                in_string = false;
                bounds.nesting_in_a_string = bounds.nesting_in_a_string.max(nesting);
            }
            (true, b'\\') => {
                nesting += 1;
                bytes.next();
            }
            // Each letter T counts as a possible `NOT`, which is enough for an upper bound.
            (true, b'(' | b'[' | b'{' | b'<' | b'-' | b'T' | b't') => nesting += 1,
            (true, _) => {}
            (false, b'"') => {
                in_string = true;
                nesting = 0;
            }
            (false, b'{' | b'[') => {
                depth += 1;
                bounds.json_depth = bounds.json_depth.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (false, _) => {}
        }
    }
    bounds
}

fn check_expressions(value: &Value) -> Result<(), ApiError> {
    match value {
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            if let Some(text) = member.as_str().filter(|_| is_parsed_as_expression(name))
                && expression_depth(text) > MAX_EXPRESSION_DEPTH
            {
                return Err(ApiError::validation(&format!(
                    "Invalid {name}: The expression contains too many nested operators; maximum operator count: \
                     {MAX_EXPRESSION_DEPTH}"
                )));
            }
            check_expressions(member)
        }),
        Value::Array(elements) => elements.iter().try_for_each(check_expressions),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn is_parsed_as_expression(member: &str) -> bool {
    member.ends_with("Expression") || member == "Statement"
}

/// Returns the deepest nesting of brackets, plus the number of prefix operators (`NOT` and `-`), which nest without
/// brackets.
fn expression_depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' | b'<' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b')' | b']' | b'}' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '#' | ':' | '.'));
    deepest + words.filter(|word| word.eq_ignore_ascii_case("not")).count() + text.matches('-').count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(body: &Value) -> Option<String> {
        check(body.to_string().as_bytes()).err().map(|error| error.to_string())
    }

    #[test]
    fn expression_with_4096_parentheses_or_301_negations_is_refused() {
        let deep = format!("{}a = :b{}", "(".repeat(4_096), ")".repeat(4_096));
        let refused = refusal(&json!({ "ConditionExpression": deep })).unwrap();
        assert!(refused.contains("ValidationException"), "{refused}");
        assert!(refused.contains("Invalid ConditionExpression"), "{refused}");
        let statement = json!({ "TransactStatements": [{ "Statement": "NOT ".repeat(301) }] });
        assert!(refusal(&statement).unwrap().contains("Invalid Statement"));
    }

    #[test]
    fn escaped_parentheses_in_an_expression_count_as_nesting() {
        let body = format!(r#"{{"FilterExpression":"{}"}}"#, r"\u0028".repeat(301));
        assert!(check(body.as_bytes()).unwrap_err().to_string().contains("Invalid FilterExpression"));
    }

    #[test]
    fn many_brackets_in_data_or_in_a_flat_expression_are_accepted() {
        let request = json!({
            "Item": { "text": { "S": "(".repeat(5_000) } },
            "ConditionExpression": "(a) OR ".repeat(400),
        });
        assert_eq!(refusal(&request), None);
    }

    #[test]
    fn json_nested_5000_levels_deep_is_refused_with_dynamodbs_nesting_error() {
        let body = format!("{}1{}", r#"{"M":"#.repeat(5_000), "}".repeat(5_000));
        let refused = check(body.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("Nesting Levels have exceeded supported limits"), "{refused}");
        assert!(check(br#"{"a":[{"b":"[[[[\"{{{"}]}"#).is_ok());
    }
}
