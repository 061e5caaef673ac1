//! The conditions of a filter pattern, and their evaluation on a record.

use serde_json::Value;

/// Requirement on one value of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// The value matches all clauses.
    All(Vec<Clause>),
    /// The value matches at least one condition. A list matches if one of its elements matches.
    Any(Vec<Condition>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Clause {
    Key(String, Node),
    Or(Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Equals(Value),
    EqualsIgnoreCase(String),
    Prefix(String),
    Suffix(String),
    AnythingBut(Vec<Self>),
    Numeric(Vec<(Comparison, f64)>),
    Exists(bool),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Node {
    pub(super) fn is_unsettled(&self) -> bool {
        match self {
            Self::All(clauses) => clauses.iter().any(|clause| match clause {
                Clause::Key(_, node) => node.is_unsettled(),
                Clause::Or(nodes) => nodes.iter().any(Self::is_unsettled),
            }),
            Self::Any(conditions) => conditions.iter().any(Condition::is_unsettled),
        }
    }

    pub(super) fn matches(&self, value: Option<&Value>) -> bool {
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
    fn is_unsettled(&self) -> bool {
        match self {
            Self::EqualsIgnoreCase(_) | Self::Suffix(_) => true,
            Self::AnythingBut(others) => others.iter().any(Self::is_unsettled),
            Self::Equals(_) | Self::Prefix(_) | Self::Numeric(_) | Self::Exists(_) => false,
        }
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Exists(exists), value) => *exists == value.is_some_and(|value| !value.is_object()),
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
