//! Filter patterns: which records a function is to see.

use std::fmt;

use serde_json::{Map, Value};

/// How deep a pattern may nest, so that none can exhaust the stack.
const MAX_DEPTH: usize = 32;

/// One filter of a mapping's `FilterCriteria`.
///
/// Each key of a pattern names a key of the record, and all of them must match. A list holds what the value
/// may be: `null`, a string, a number or a boolean it equals, or one of the operators `prefix`, `suffix`,
/// `equals-ignore-case`, `anything-but`, `numeric` and `exists`. `$or` holds patterns of which one must match.
///
/// A stream record wraps each value in its type, so a pattern has to name it: `{"S": ["PENDING"]}`. A `numeric`
/// never matches an `N`, whose value is a string. Whether AWS takes `suffix` and `equals-ignore-case` for
/// streams is undocumented; here it does.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterPattern(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    All(Vec<Clause>),
    /// The value is one of these, or one of its elements is, if it is a list.
    Any(Vec<Condition>),
}

#[derive(Clone, Debug, PartialEq)]
enum Clause {
    Key(String, Node),
    Or(Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Equals(Value),
    EqualsIgnoreCase(String),
    Prefix(String),
    Suffix(String),
    AnythingBut(Vec<Self>),
    Numeric(Vec<(Comparison, f64)>),
    Exists(bool),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

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
        let Value::Object(keys) = pattern else {
            return Err(FilterError::new("", "a pattern is an object".to_owned()));
        };
        all(keys, "", MAX_DEPTH).map(Self)
    }

    /// Whether `record` matches.
    #[must_use]
    pub fn matches(&self, record: &Value) -> bool {
        self.0.matches(Some(record))
    }
}

impl Node {
    fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Self::All(clauses) => clauses.iter().all(|clause| match clause {
                Clause::Key(key, node) => node.matches(value.and_then(|value| value.get(key))),
                Clause::Or(nodes) => nodes.iter().any(|node| node.matches(value)),
            }),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.matches(value)),
        }
    }
}

impl Condition {
    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Exists(exists), value) => *exists == value.is_some(),
            (_, None) => false,
            (_, Some(Value::Array(elements))) => elements.iter().any(|element| self.matches_one(element)),
            (_, Some(value)) => self.matches_one(value),
        }
    }

    fn matches_one(&self, value: &Value) -> bool {
        match self {
            Self::Equals(Value::Number(number)) => {
                value.as_f64().is_some() && value.as_f64() == number.as_f64()
            }
            Self::Equals(expected) => value == expected,
            Self::EqualsIgnoreCase(text) => {
                value.as_str().is_some_and(|s| s.to_lowercase() == text.to_lowercase())
            }
            Self::Prefix(prefix) => value.as_str().is_some_and(|s| s.starts_with(&**prefix)),
            Self::Suffix(suffix) => value.as_str().is_some_and(|s| s.ends_with(&**suffix)),
            Self::AnythingBut(others) => !others.iter().any(|other| other.matches_one(value)),
            Self::Numeric(comparisons) => value.as_f64().is_some_and(|number| {
                comparisons.iter().all(|(comparison, bound)| comparison.holds(number, *bound))
            }),
            Self::Exists(exists) => *exists,
        }
    }
}

impl Comparison {
    fn holds(self, number: f64, bound: f64) -> bool {
        match self {
            Self::Equal => number.total_cmp(&bound).is_eq(),
            Self::Less => number < bound,
            Self::LessOrEqual => number <= bound,
            Self::Greater => number > bound,
            Self::GreaterOrEqual => number >= bound,
        }
    }
}

fn all(keys: &Map<String, Value>, path: &str, depth: usize) -> Result<Node, FilterError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(FilterError::new(path, format!("it nests deeper than {MAX_DEPTH} levels")));
    };
    let clauses = keys.iter().map(|(key, value)| {
        let path = format!("{path}/{key}");
        match value {
            Value::Array(patterns) if key == "$or" => {
                let patterns = patterns.iter().map(|pattern| match pattern {
                    Value::Object(keys) => all(keys, &path, depth),
                    other => Err(FilterError::new(&path, format!("{other} is no pattern"))),
                });
                Ok(Clause::Or(patterns.collect::<Result<_, _>>()?))
            }
            Value::Object(keys) if key != "$or" => Ok(Clause::Key(key.clone(), all(keys, &path, depth)?)),
            Value::Array(values) if !values.is_empty() => {
                let conditions = values.iter().map(|value| condition(value, &path));
                Ok(Clause::Key(key.clone(), Node::Any(conditions.collect::<Result<_, _>>()?)))
            }
            other => {
                Err(FilterError::new(&path, format!("{other} is neither a pattern nor a list of values")))
            }
        }
    });
    clauses.collect::<Result<_, _>>().map(Node::All)
}

fn condition(value: &Value, path: &str) -> Result<Condition, FilterError> {
    let Value::Object(operator) = value else {
        return match value {
            Value::Array(_) => Err(FilterError::new(path, "a list stands within a list".to_owned())),
            literal => Ok(Condition::Equals(literal.clone())),
        };
    };
    let mut entries = operator.iter();
    let (Some((name, operand)), None) = (entries.next(), entries.next()) else {
        return Err(FilterError::new(path, "an operator is an object with one key".to_owned()));
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
        _ => Err(FilterError::new(path, format!("no operator «{name}» takes {operand}"))),
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
            let problem = "numeric takes one or two comparisons, as [\">\", 0, \"<=\", 5]";
            Err(FilterError::new(path, problem.to_owned()))
        }
    }
}

/// Why a filter pattern is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FilterError {
    path: String,
    problem: String,
}

impl FilterError {
    fn new(path: &str, problem: String) -> Self {
        Self { path: path.to_owned(), problem }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        write!(f, "filter pattern, at {path}: {}", self.problem)
    }
}

impl std::error::Error for FilterError {}

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
            (json!([{"exists": true}]), json!([null, "", 0]), json!([])),
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

    #[test]
    fn what_is_no_pattern_is_told_with_its_place() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(40), "}".repeat(40));
        for (pattern, expected) in [
            ("[]", "filter pattern, at /: a pattern is an object"),
            (
                r#"{"a": {"b": "x"}}"#,
                "filter pattern, at /a/b: \"x\" is neither a pattern nor a list of values",
            ),
            (r#"{"a": []}"#, "filter pattern, at /a: [] is neither a pattern nor a list of values"),
            (r#"{"$or": {}}"#, "filter pattern, at /$or: {} is neither a pattern nor a list of values"),
            (r#"{"$or": [1]}"#, "filter pattern, at /$or: 1 is no pattern"),
            (r#"{"a": [[1]]}"#, "filter pattern, at /a: a list stands within a list"),
            (r#"{"a": [{}]}"#, "filter pattern, at /a: an operator is an object with one key"),
            (r#"{"a": [{"cidr": "x"}]}"#, "filter pattern, at /a: no operator «cidr» takes \"x\""),
            (r#"{"a": [{"exists": 1}]}"#, "filter pattern, at /a: no operator «exists» takes 1"),
            (
                r#"{"a": [{"anything-but": []}]}"#,
                "filter pattern, at /a: no operator «anything-but» takes []",
            ),
        ] {
            assert_eq!(FilterPattern::parse(pattern).unwrap_err().to_string(), expected);
        }
        for operand in ["[]", r#"["=",1,"<",2,">",3]"#, r#"["=","1"]"#, r#"["~",1]"#, r#"["="]"#] {
            let error = FilterPattern::parse(&format!(r#"{{"a": [{{"numeric": {operand}}}]}}"#)).unwrap_err();
            assert!(error.to_string().contains("one or two comparisons"), "{error}");
        }
        assert!(FilterPattern::parse("{").unwrap_err().to_string().starts_with("filter pattern, at /: EOF"));
        assert!(
            FilterPattern::parse(&deep.replace(":}", ":{}}")).unwrap_err().to_string().contains("32 levels")
        );
    }
}
