//! The parser of filter patterns.

use std::fmt;

use serde_json::{Map, Value};

use super::condition::{Clause, Comparison, Condition, Node};

/// Maximum nesting depth of a pattern, so that a pattern cannot exhaust the stack.
const MAX_DEPTH: usize = 32;

/// Parses a whole pattern.
pub(super) fn pattern(pattern: &Value) -> Result<Node, FilterError> {
    node(pattern, "", MAX_DEPTH)
}

fn node(pattern: &Value, path: &str, depth: usize) -> Result<Node, FilterError> {
    let Value::Object(keys) = pattern else {
        return Err(FilterError::new(path, format!("expected a pattern (an object), found {pattern}")));
    };
    all(keys, path, depth)
}

fn all(keys: &Map<String, Value>, path: &str, depth: usize) -> Result<Node, FilterError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(FilterError::new(path, format!("pattern nests deeper than {MAX_DEPTH} levels")));
    };
    let clauses = keys.iter().map(|(key, value)| clause(key, value, &format!("{path}/{key}"), depth));
    clauses.collect::<Result<_, _>>().map(Node::All)
}

fn clause(key: &str, value: &Value, path: &str, depth: usize) -> Result<Clause, FilterError> {
    match value {
        Value::Array(patterns) if key == "$or" => {
            let patterns = patterns.iter().map(|pattern| node(pattern, path, depth));
            patterns.collect::<Result<_, _>>().map(Clause::Or)
        }
        Value::Object(keys) if key != "$or" => Ok(Clause::Key(key.to_owned(), all(keys, path, depth)?)),
        Value::Array(values) if !values.is_empty() => {
            let conditions = values.iter().map(|value| condition(value, path)).collect::<Result<_, _>>()?;
            Ok(Clause::Key(key.to_owned(), Node::Any(conditions)))
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            let expected =
                if key == "$or" { "a list of patterns" } else { "an object or a non-empty list of values" };
            Err(FilterError::new(path, format!("expected {expected}, found {value}")))
        }
    }
}

fn condition(value: &Value, path: &str) -> Result<Condition, FilterError> {
    let operator = match value {
        Value::Object(operator) => operator,
        Value::Array(_) => {
            return Err(FilterError::new(path, "expected a value or an operator, found a list".to_owned()));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Ok(Condition::Equals(value.clone()));
        }
    };
    let mut entries = operator.iter();
    let (Some((name, operand)), None) = (entries.next(), entries.next()) else {
        return Err(FilterError::new(path, "expected an operator (an object with one key)".to_owned()));
    };
    match (&**name, operand) {
        ("prefix", Value::String(text)) => Ok(Condition::Prefix(text.clone())),
        ("suffix", Value::String(text)) => Ok(Condition::Suffix(text.clone())),
        ("equals-ignore-case", Value::String(text)) => Ok(Condition::EqualsIgnoreCase(text.clone())),
        ("exists", Value::Bool(exists)) => Ok(Condition::Exists(*exists)),
        ("numeric", Value::Array(comparisons)) => numeric(comparisons, path),
        ("anything-but", Value::Array(others)) if !others.is_empty() => {
            let others = others.iter().map(|other| condition(other, path)).collect::<Result<_, _>>()?;
            Ok(Condition::AnythingBut(others))
        }
        ("anything-but", Value::Object(inner))
            if inner.keys().all(|key| key == "prefix" || key == "suffix") =>
        {
            Ok(Condition::AnythingBut(vec![condition(operand, path)?]))
        }
        ("anything-but", Value::String(_) | Value::Number(_)) => {
            Ok(Condition::AnythingBut(vec![Condition::Equals(operand.clone())]))
        }
        _ => Err(FilterError::new(path, format!("unsupported operator {name:?} with operand {operand}"))),
    }
}

fn numeric(comparisons: &[Value], path: &str) -> Result<Condition, FilterError> {
    let pairs = comparisons.chunks(2).map(|pair| {
        let comparison = match pair.first().and_then(Value::as_str) {
            Some("=") => Comparison::Equal,
            Some("<") => Comparison::Less,
            Some("<=") => Comparison::LessOrEqual,
            Some(">") => Comparison::Greater,
            Some(">=") => Comparison::GreaterOrEqual,
            Some(_) | None => return None,
        };
        Some((comparison, pair.get(1)?.as_f64()?))
    });
    let pairs: Option<Vec<_>> = pairs.collect();
    match pairs {
        Some(pairs) if matches!(pairs.len(), 1 | 2) => Ok(Condition::Numeric(pairs)),
        Some(_) | None => {
            let problem = "numeric requires one or two comparisons, such as [\">\", 0, \"<=\", 5]";
            Err(FilterError::new(path, problem.to_owned()))
        }
    }
}

/// Error of an invalid filter pattern. The message names the problem and its position in the pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FilterError {
    path: String,
    problem: String,
}

impl FilterError {
    pub(super) fn new(path: &str, problem: String) -> Self {
        Self { path: path.to_owned(), problem }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        write!(f, "invalid filter pattern at {path}: {}", self.problem)
    }
}

impl std::error::Error for FilterError {}

#[cfg(test)]
mod tests {
    use super::super::FilterPattern;

    #[test]
    fn invalid_filter_pattern_is_rejected_with_the_position_of_the_problem() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(40), "}".repeat(40));
        for (pattern, expected) in [
            ("[]", "/: expected a pattern (an object), found []"),
            (r#"{"a": {"b": "x"}}"#, "/a/b: expected an object or a non-empty list of values, found \"x\""),
            (r#"{"a": []}"#, "/a: expected an object or a non-empty list of values, found []"),
            (r#"{"$or": {}}"#, "/$or: expected a list of patterns, found {}"),
            (r#"{"$or": [1]}"#, "/$or: expected a pattern (an object), found 1"),
            (r#"{"a": [[1]]}"#, "/a: expected a value or an operator, found a list"),
            (r#"{"a": [{}]}"#, "/a: expected an operator (an object with one key)"),
            (r#"{"a": [{"cidr": "x"}]}"#, "/a: unsupported operator \"cidr\" with operand \"x\""),
            (r#"{"a": [{"exists": 1}]}"#, "/a: unsupported operator \"exists\" with operand 1"),
            (r#"{"a": [{"anything-but": []}]}"#, "/a: unsupported operator \"anything-but\" with operand []"),
        ] {
            let error = FilterPattern::parse(pattern).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid filter pattern at {expected}"));
        }
        for operand in ["[]", r#"["=",1,"<",2,">",3]"#, r#"["=","1"]"#, r#"["~",1]"#, r#"["="]"#] {
            let error = FilterPattern::parse(&format!(r#"{{"a": [{{"numeric": {operand}}}]}}"#)).unwrap_err();
            assert!(error.to_string().contains("one or two comparisons"), "{error}");
        }
        assert!(
            FilterPattern::parse("{")
                .unwrap_err()
                .to_string()
                .starts_with("invalid filter pattern at /: EOF")
        );
        assert!(
            FilterPattern::parse(&deep.replace(":}", ":{}}")).unwrap_err().to_string().contains("32 levels")
        );
    }
}
