//! Route selection expressions, which select the route of a message from the message's body.

use std::fmt;

use serde_json::Value;

/// A parsed route selection expression.
///
/// An expression mixes literal text, variables (`$request.body.path` or `${request.body.path}`), and `\$` for
/// a literal dollar sign. A variable's path consists of names separated by dots; `[0]` selects an array
/// element.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RouteSelection(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Literal(String),
    Body(Vec<Step>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    Name(String),
    Index(usize),
}

impl RouteSelection {
    pub(super) fn parse(expression: &str) -> Result<Self, SelectionError> {
        if expression.is_empty() {
            return Err(SelectionError("the expression is empty".to_owned()));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = expression;
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix(r"\$") {
                literal.push('$');
                rest = after;
            } else if c == '$' {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                let (variable, after) = split_variable(rest)?;
                parts.push(Part::Body(parse_variable(variable)?));
                rest = after;
            } else {
                literal.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    /// Evaluates the expression on a message's body. Returns `None` if the expression has a variable and
    /// `body` is not JSON.
    pub(super) fn evaluate(&self, body: &str) -> Option<String> {
        if let [Part::Literal(text)] = self.0.as_slice() {
            return Some(text.clone());
        }
        let body: Value = serde_json::from_str(body).ok()?;
        Some(
            self.0
                .iter()
                .map(|part| match part {
                    Part::Literal(text) => text.clone(),
                    Part::Body(path) => stringify(look_up(&body, path)),
                })
                .collect(),
        )
    }
}

/// Splits `text`, which starts with `$`, into the variable's name and the rest of the expression.
fn split_variable(text: &str) -> Result<(&str, &str), SelectionError> {
    if let Some(inner) = text.strip_prefix("${") {
        return inner
            .split_once('}')
            .ok_or_else(|| SelectionError(format!("missing closing brace in {text:?}")));
    }
    let bare = &text[1..];
    let in_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '[' | ']');
    let end = bare.find(|c: char| !in_path(c)).unwrap_or(bare.len());
    Ok(bare.split_at(end))
}

fn parse_variable(variable: &str) -> Result<Vec<Step>, SelectionError> {
    let path = variable.strip_prefix("request.body.").ok_or_else(|| {
        SelectionError(format!("unknown variable ${variable}; expected $request.body.<path>"))
    })?;
    let bad = || {
        SelectionError(format!(
            "invalid path ${variable}; expected a path such as $request.body.a.b or $request.body.a[0]"
        ))
    };
    let mut steps = Vec::new();
    for segment in path.split('.') {
        let (name, indexes) = segment.split_at(segment.find('[').unwrap_or(segment.len()));
        if name.is_empty() {
            return Err(bad());
        }
        steps.push(Step::Name(name.to_owned()));
        if !indexes.is_empty() {
            let inner = indexes.strip_prefix('[').and_then(|i| i.strip_suffix(']')).ok_or_else(bad)?;
            for index in inner.split("][") {
                steps.push(Step::Index(index.parse().map_err(|_| bad())?));
            }
        }
    }
    Ok(steps)
}

fn look_up<'a>(body: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(body, |value, step| match step {
        Step::Name(name) => value.get(name),
        Step::Index(index) => value.get(index),
    })
}

fn stringify(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
            other.to_string()
        }
    }
}

/// Error for a route selection expression that cannot be parsed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SelectionError(String);

impl fmt::Display for SelectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_selection_expression_yields_the_stringified_value_at_its_path() {
        let body = r#"{"action":"echo","n":5,"t":true,"z":null,"a":{"b":{"c":"deep"}},"l":[["x"]],"o":{"k":1},"my-a":"m"}"#;
        for (expression, expected) in [
            ("$request.body.action", "echo"),
            ("$request.body.n", "5"),
            ("$request.body.t", "true"),
            ("$request.body.z", ""),
            ("$request.body.a.b.c", "deep"),
            ("$request.body.l[0][0]", "x"),
            ("$request.body.o", r#"{"k":1}"#),
            ("$request.body.missing.path", ""),
            ("${request.body.my-a}", "m"),
            ("${request.body.action}-${request.body.n}", "echo-5"),
            ("$request.body.action/$request.body.t", "echo/true"),
            ("v1 ${request.body.action}", "v1 echo"),
            ("static", "static"),
            (r"\$default", "$default"),
        ] {
            let selection = RouteSelection::parse(expression).unwrap();
            assert_eq!(selection.evaluate(body).as_deref(), Some(expected), "{expression}");
        }
    }

    #[test]
    fn body_that_is_not_json_selects_no_route_unless_the_expression_is_static() {
        let by_action = RouteSelection::parse("$request.body.action").unwrap();
        assert_eq!(by_action.evaluate("not json"), None);
        assert_eq!(by_action.evaluate(""), None);
        assert_eq!(
            by_action.evaluate(&"[".repeat(200_000)),
            None,
            "a deeply nested body selects no route and does not overflow the stack"
        );
        assert_eq!(by_action.evaluate("[1]").as_deref(), Some(""));
        assert_eq!(by_action.evaluate("7").as_deref(), Some(""));
        assert_eq!(RouteSelection::parse("all").unwrap().evaluate("not json").as_deref(), Some("all"));
    }

    #[test]
    fn unparsable_route_selection_expression_error_names_the_problem() {
        let error = |expression| RouteSelection::parse(expression).unwrap_err().to_string();
        assert_eq!(error(""), "the expression is empty");
        assert_eq!(error("${request.body.a"), r#"missing closing brace in "${request.body.a""#);
        assert_eq!(
            error("$request.header.x"),
            "unknown variable $request.header.x; expected $request.body.<path>"
        );
        for bad in [
            "$request.body.",
            "$request.body.a..b",
            "$request.body.a[x]",
            "$request.body.a[0",
            "$request.body.[0]",
        ] {
            assert!(error(bad).contains("expected a path such as"), "{bad}: {}", error(bad));
        }
    }
}
