//! Lambda authorizer of the `$connect` route (type REQUEST): identity sources, and evaluation of the returned
//! policy.
//!
//! Policy statements are matched by `Effect`, `Action` and `Resource`, with the wildcards `*` and `?`. A
//! statement with any other element, such as `Condition`, makes the whole result malformed. If the fake
//! ignored the element, the fake might admit a client that AWS rejects.

use std::fmt;
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::{Map, Value};

use super::query::QueryParameters;
use crate::lambda::InvokeError;

/// A Lambda authorizer: a function that decides which clients may connect.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Authorizer {
    /// Name of the authorizer function.
    pub function: String,
    /// Identity sources that every handshake must contain: `route.request.header.NAME` or
    /// `route.request.querystring.NAME`; default none. If an identity source is missing or empty, the client
    /// receives 401 and the authorizer function is not invoked.
    pub identity_sources: Vec<String>,
}

impl Authorizer {
    /// Returns an authorizer without identity sources, whose function is invoked for every handshake.
    #[must_use]
    pub fn new(function: impl Into<String>) -> Self {
        Self { function: function.into(), identity_sources: Vec::new() }
    }

    /// Adds an identity source, such as `route.request.header.Authorization`, that every handshake must
    /// contain.
    #[must_use]
    pub fn identity_source(mut self, source: impl Into<String>) -> Self {
        self.identity_sources.push(source.into());
        self
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.function.is_empty() {
            problems.push("an authorizer must name a function".to_owned());
        }
        for source in &self.identity_sources {
            if !is_identity_source(source) {
                problems.push(format!(
                    "identity source {source:?} must be route.request.header.NAME or route.request.querystring.NAME"
                ));
            }
        }
    }

    /// Returns whether a handshake contains a non-empty value for every identity source.
    pub(super) fn is_identified(&self, headers: &HeaderMap, query: Option<&QueryParameters>) -> bool {
        self.identity_sources.iter().filter_map(|source| Source::parse(source)).all(|source| match source {
            Source::Header(name) => headers.get(name).is_some_and(|value| !value.is_empty()),
            Source::Query(name) => {
                query.and_then(|query| query.last(name)).is_some_and(|value| !value.is_empty())
            }
        })
    }
}

/// Returns whether `text` is a valid identity source, which names a header or a query parameter of the
/// handshake.
#[must_use]
#[doc(hidden)]
pub fn is_identity_source(text: &str) -> bool {
    Source::parse(text).is_some()
}

enum Source<'a> {
    Header(&'a str),
    Query(&'a str),
}

impl<'a> Source<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (place, name) = text.strip_prefix("route.request.")?.split_once('.')?;
        match place {
            _ if name.is_empty() => None,
            "header" => Some(Self::Header(name)),
            "querystring" => Some(Self::Query(name)),
            _ => None,
        }
    }
}

/// Context that an authorizer returned for an admitted client. Later events of the connection contain the
/// context as `requestContext.authorizer`.
pub(super) type Context = Map<String, Value>;

/// Returns the context for the `$connect` event, in which `integrationLatency` is the authorizer's duration
/// in ms.
pub(super) fn with_latency(context: &Context, took: Duration) -> Context {
    let mut context = context.clone();
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    context.insert("integrationLatency".to_owned(), millis.into());
    context
}

/// Reason why an authorizer rejected a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Denial {
    /// An identity source is missing, or the function failed with the message `Unauthorized`; status 401.
    Unauthorized,
    /// A policy statement denies access; status 403.
    Explicit,
    /// No policy statement allows access; status 403.
    Implicit,
    /// The function failed or returned an unusable result; status 500.
    Failed(String),
}

impl Denial {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::Explicit | Self::Implicit => 403,
            Self::Failed(_) => 500,
        }
    }

    /// Returns the message for the client. AWS does not document the messages of WebSocket APIs, so the fake uses the
    /// messages of REST APIs.
    pub(super) fn notice(&self) -> &'static str {
        match self {
            Self::Unauthorized => "Unauthorized",
            Self::Explicit => "User is not authorized to access this resource with an explicit deny",
            Self::Implicit => "User is not authorized to access this resource",
            Self::Failed(_) => "Internal server error",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Unauthorized | Self::Explicit | Self::Implicit => f.write_str(self.notice()),
        }
    }
}

/// Converts a failed invocation of the authorizer function into a denial.
///
/// A function error with exactly the message `Unauthorized` means 401. Any other error means 500.
pub(super) fn denial_of(error: &InvokeError) -> Denial {
    match error {
        InvokeError::Function { message, .. } if message == "Unauthorized" => Denial::Unauthorized,
        InvokeError::Function { .. }
        | InvokeError::Throttled
        | InvokeError::NotFound(_)
        | InvokeError::TooLarge(_)
        | InvokeError::Recursion
        | InvokeError::Service => Denial::Failed(error.to_string()),
    }
}

/// Parses an authorizer's result, and returns the context if the result's policy lets the client invoke
/// `arn`.
pub(super) fn decide(payload: &[u8], arn: &str) -> Result<Context, Denial> {
    if payload.len() > RESULT_BYTES {
        return Err(malformed(format!("{} bytes; the maximum is {RESULT_BYTES}", payload.len())));
    }
    let Ok(Value::Object(mut result)) = serde_json::from_slice(payload) else {
        return Err(malformed("not a JSON object"));
    };
    let Some(Value::String(principal)) = result.remove("principalId") else {
        return Err(malformed("principalId must be a string"));
    };
    let statements = match result.get("policyDocument").and_then(|document| document.get("Statement")) {
        Some(Value::Array(statements)) => statements.iter().collect(),
        Some(statement @ Value::Object(_)) => vec![statement],
        _ => return Err(malformed("policyDocument.Statement must be a list or an object")),
    };
    let effects =
        statements.into_iter().map(|statement| effect(statement, arn)).collect::<Result<Vec<_>, _>>()?;
    if effects.contains(&Some(Effect::Deny)) {
        return Err(Denial::Explicit);
    }
    if !effects.contains(&Some(Effect::Allow)) {
        return Err(Denial::Implicit);
    }
    context(principal, result.remove("context"))
}

/// Maximum size of an authorizer's result in bytes: 8 KB, a quota of AWS.
const RESULT_BYTES: usize = 8 * 1_024;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Effect {
    Allow,
    Deny,
}

/// Returns the effect of a policy statement on `arn`; `None` if the statement does not apply to `arn`.
fn effect(statement: &Value, arn: &str) -> Result<Option<Effect>, Denial> {
    let statement = statement.as_object().ok_or_else(|| malformed("a statement must be an object"))?;
    if let Some(key) =
        statement.keys().find(|key| !matches!(key.as_str(), "Sid" | "Effect" | "Action" | "Resource"))
    {
        return Err(malformed(format!("{key} in a statement is not supported by this fake")));
    }
    let effect = match statement.get("Effect").and_then(Value::as_str) {
        Some("Allow") => Effect::Allow,
        Some("Deny") => Effect::Deny,
        _ => return Err(malformed("Effect must be Allow or Deny")),
    };
    let action = patterns(statement, "Action")?;
    let resource = patterns(statement, "Resource")?;
    let invokes = action.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), "execute-api:invoke"));
    Ok((invokes && resource.iter().any(|pattern| matches(pattern, arn))).then_some(effect))
}

fn patterns<'a>(statement: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a str>, Denial> {
    let wrong = || malformed(format!("{key} must be a string or a list of strings"));
    match statement.get(key) {
        Some(Value::String(pattern)) => Ok(vec![pattern]),
        Some(Value::Array(patterns)) => {
            patterns.iter().map(|pattern| pattern.as_str().ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// Returns whether `text` matches `pattern`, in which `*` matches any text and `?` matches any one byte.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Index of the last `*` in the pattern, and the index in the text up to which that `*` matches.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, tried)) = star else { return false };
                star = Some((at, tried + 1));
                p = at + 1;
                t = tried + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Builds the context for events: the principal id and the authorizer's `context`, with all values as
/// strings.
fn context(principal: String, given: Option<Value>) -> Result<Context, Denial> {
    let mut context = Context::new();
    context.insert("principalId".to_owned(), principal.into());
    match given {
        None | Some(Value::Null) => {}
        Some(Value::Object(given)) => {
            for (key, value) in given {
                let value = match value {
                    Value::String(text) => text,
                    Value::Number(_) | Value::Bool(_) => value.to_string(),
                    Value::Null => continue,
                    Value::Array(_) | Value::Object(_) => {
                        return Err(malformed(format!(
                            "context.{key} must be a string, a number or a boolean"
                        )));
                    }
                };
                context.insert(key, value.into());
            }
        }
        Some(_) => return Err(malformed("context must be an object")),
    }
    Ok(context)
}

fn malformed(why: impl fmt::Display) -> Denial {
    Denial::Failed(format!("malformed authorizer result: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:execute-api:eu-west-1:000000000000:abcde12345/prod/$connect";

    fn decision(statement: Value) -> Result<Context, Denial> {
        let result = json!({ "principalId": "me", "policyDocument": { "Statement": statement } });
        decide(result.to_string().as_bytes(), ARN)
    }

    fn statement(effect: &str, action: Value, resource: Value) -> Value {
        json!({ "Sid": "s", "Effect": effect, "Action": action, "Resource": resource })
    }

    #[test]
    fn policy_admits_a_client_if_some_statement_allows_and_no_statement_denies() {
        let invoke = || json!("execute-api:Invoke");
        let allow = |resource: &str| statement("Allow", invoke(), resource.into());
        let everything = json!("arn:aws:execute-api:*:*:*");
        for (statements, expected) in [
            (json!([allow(ARN)]), None),
            (allow("*"), None),
            (json!([allow("arn:aws:execute-api:eu-west-1:*:abcde12345/prod/*")]), None),
            (json!([allow("arn:aws:execute-api:eu-west-1:000000000000:abcde12345/prod/?connect")]), None),
            (json!([statement("Allow", json!(["s3:*", "execute-api:*"]), json!(["x", ARN]))]), None),
            // Libraries for REST APIs build this pattern (method and path), which matches no route of a
            // WebSocket API.
            (
                json!([allow("arn:aws:execute-api:eu-west-1:000000000000:abcde12345/prod/*/*")]),
                Some(Denial::Implicit),
            ),
            (json!([]), Some(Denial::Implicit)),
            (json!([allow("")]), Some(Denial::Implicit)),
            (
                json!([statement("Allow", json!("execute-api:ManageConnections"), json!("*"))]),
                Some(Denial::Implicit),
            ),
            (json!([allow("*"), statement("Deny", invoke(), everything)]), Some(Denial::Explicit)),
        ] {
            assert_eq!(decision(statements.clone()).err(), expected, "{statements}");
        }
    }

    #[test]
    fn malformed_authorizer_result_yields_status_500_and_the_error_names_the_problem() {
        let allowed = json!({ "Statement": [statement("Allow", json!("*"), json!("*"))] });
        let with_context =
            |context: Value| json!({ "principalId": "me", "policyDocument": allowed, "context": context });
        let with =
            |statement: Value| json!({ "principalId": "me", "policyDocument": { "Statement": [statement] } });
        let mut results = vec![
            json!(null),
            json!({ "policyDocument": allowed }),
            json!({ "principalId": 1, "policyDocument": allowed }),
            json!({ "principalId": "me" }),
            with_context(json!([])),
            with_context(json!({ "a": { "b": 1 } })),
            with(json!("Allow")),
            with(json!({ "Effect": "allow" })),
            with(json!({ "Effect": "Allow", "Action": 1, "Resource": "*" })),
            with(json!({ "Effect": "Allow", "Action": "*", "Resource": [1] })),
            with(json!({ "Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {} })),
        ];
        results.push(with_context(json!({ "large": "x".repeat(8 * 1_024) })));
        let denials: Vec<_> =
            results.iter().map(|result| decide(result.to_string().as_bytes(), ARN).unwrap_err()).collect();
        assert!(
            denials.iter().all(|denial| denial.status() == 500 && denial.notice() == "Internal server error")
        );
        let errors: Vec<_> = denials.iter().map(Denial::to_string).collect();
        insta::assert_snapshot!(errors.join("\n"), @r"
        malformed authorizer result: not a JSON object
        malformed authorizer result: principalId must be a string
        malformed authorizer result: principalId must be a string
        malformed authorizer result: policyDocument.Statement must be a list or an object
        malformed authorizer result: context must be an object
        malformed authorizer result: context.a must be a string, a number or a boolean
        malformed authorizer result: a statement must be an object
        malformed authorizer result: Effect must be Allow or Deny
        malformed authorizer result: Action must be a string or a list of strings
        malformed authorizer result: Resource must be a string or a list of strings
        malformed authorizer result: Condition in a statement is not supported by this fake
        malformed authorizer result: 8325 bytes; the maximum is 8192
        ");
    }

    #[test]
    fn authorizer_context_values_become_strings_next_to_the_principal_id() {
        let statement = statement("Allow", json!("*"), json!("*"));
        let result = json!({
            "principalId": "me",
            "policyDocument": { "Statement": statement },
            "context": { "tenant": "acme", "n": 1.5, "yes": true, "nothing": null },
        });
        let context = decide(result.to_string().as_bytes(), ARN).unwrap();
        assert_eq!(
            Value::Object(with_latency(&context, Duration::from_millis(42))),
            json!({ "principalId": "me", "tenant": "acme", "n": "1.5", "yes": "true", "integrationLatency": 42 })
        );
    }

    #[test]
    fn wildcard_star_matches_any_text_and_question_mark_one_character() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*a", "aaab", false),
            ("a?c", "abc", true),
            ("a?", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
        // Even with thousands of stars, matching takes time proportional to pattern length times text length.
        assert!(!matches(&"*a".repeat(2_000), &"b".repeat(4_000)));
    }
}
