//! Determines the values of the template's parameters, from the caller or from defaults, and checks their
//! constraints.

use std::collections::BTreeMap;

use super::diagnostics::{Place, Report};
use super::environment::Environment;
use super::node::{Kind, Node};

/// Value of a parameter, to which `Ref` resolves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Parameter {
    Text(String),
    List(Vec<String>),
}

/// Returns the value of each declared parameter. A parameter with an invalid or missing value is reported,
/// and omitted from the result.
pub(super) fn resolve(
    root: &Node,
    environment: &Environment,
    report: &mut Report,
) -> BTreeMap<String, Parameter> {
    let declared = root.get("Parameters");
    let entries = declared.map_or(&[][..], Node::entries);
    for name in environment.parameters.keys() {
        if !entries.iter().any(|(declared, _)| declared == name) {
            let place = declared.map_or_else(|| root.place.below("Parameters"), |node| node.place.clone());
            report.problem(
                &place,
                format!(
                    "the template has no parameter {name}, but a value was given for \
             it; declare the parameter or remove the value"
                ),
            );
        }
    }
    let mut missing = Vec::new();
    let mut first_missing = None;
    let mut parameters = BTreeMap::new();
    for (name, declaration) in entries {
        let given = environment.parameters.get(name).or_else(|| environment.offered.get(name));
        let given = given.cloned().or_else(|| default(declaration));
        match given {
            Some(value) => {
                if let Some(value) = checked(declaration, &value, report) {
                    parameters.insert(name.clone(), value);
                }
            }
            None => {
                missing.push(name.as_str());
                first_missing.get_or_insert(&declaration.place);
            }
        }
    }
    if let Some(place) = first_missing {
        let place = Place { path: "Parameters".to_owned(), ..place.clone() };
        report.problem(
            &place,
            format!("parameters without a default and without a value: {}", missing.join(", ")),
        );
    }
    parameters
}

fn default(declaration: &Node) -> Option<String> {
    let kind = declaration.get("Type").and_then(Node::scalar).unwrap_or("String");
    // The default of an SSM parameter type is a name in SSM's parameter store, which the local stage does not
    // have.
    if kind.starts_with("AWS::SSM::Parameter::Value") {
        return None;
    }
    let default = declaration.get("Default")?;
    match &default.kind {
        Kind::Null => Some(String::new()),
        Kind::Scalar(text) => Some(text.clone()),
        Kind::List(_) | Kind::Map(_) | Kind::StreamArn(_) => None,
    }
}

fn checked(declaration: &Node, value: &str, report: &mut Report) -> Option<Parameter> {
    let secret = declaration.get("NoEcho").and_then(Node::scalar) == Some("true");
    let shown = if secret { "the given value (hidden by NoEcho)".to_owned() } else { format!("{value:?}") };
    let kind = declaration.get("Type").and_then(Node::scalar).unwrap_or("String");
    let list = kind == "CommaDelimitedList" || kind.starts_with("List<");
    let members: Vec<&str> = if list { value.split(',').map(str::trim).collect() } else { vec![value] };
    let place = &declaration.place;
    let before = report.problems.len();

    if let Some(Kind::List(allowed)) = declaration.get("AllowedValues").map(|node| &node.kind) {
        let allowed: Vec<&str> = allowed.iter().map(|node| node.scalar().unwrap_or_default()).collect();
        if !members.iter().all(|member| allowed.contains(member)) {
            report.problem(
                place,
                format!("expected one of the AllowedValues ({}), found {shown}", allowed.join(", ")),
            );
        }
    }
    if kind == "Number" || kind == "List<Number>" {
        let numbers: Option<Vec<f64>> = members.iter().map(|member| member.parse().ok()).collect();
        match numbers {
            None => report.problem(place, format!("expected a number, found {shown}")),
            Some(numbers) => {
                if numbers.iter().any(|n| !within(declaration, "MinValue", "MaxValue", *n)) {
                    report.problem(
                        place,
                        format!("expected a number between MinValue and MaxValue, found {shown}"),
                    );
                }
            }
        }
    } else if !within(declaration, "MinLength", "MaxLength", f64::from(length(value))) {
        report.problem(place, format!("expected a length between MinLength and MaxLength, found {shown}"));
    }

    (report.problems.len() == before).then(|| {
        if list {
            Parameter::List(members.into_iter().map(str::to_owned).collect())
        } else {
            Parameter::Text(value.to_owned())
        }
    })
}

fn length(value: &str) -> u32 {
    u32::try_from(value.chars().count()).unwrap_or(u32::MAX)
}

fn within(declaration: &Node, least: &str, most: &str, value: f64) -> bool {
    let bound = |name| declaration.get(name).and_then(Node::scalar).and_then(|text| text.parse::<f64>().ok());
    bound(least).is_none_or(|least| value >= least) && bound(most).is_none_or(|most| value <= most)
}

#[cfg(test)]
mod tests {
    use super::super::node;
    use super::*;

    fn resolved(text: &str, given: &[(&str, &str)]) -> (BTreeMap<String, Parameter>, Vec<String>) {
        let given = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let environment = Environment { parameters: given, ..Environment::default() };
        let mut report = Report::default();
        let parameters = resolve(&node::parse(text).unwrap(), &environment, &mut report);
        (parameters, report.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn given_parameter_value_overrides_the_default() {
        let text =
            "Parameters: {A: {Type: String, Default: a}, B: {Type: CommaDelimitedList, Default: 'x, y'}}";
        let (parameters, problems) = resolved(text, &[("A", "b")]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(parameters["A"], Parameter::Text("b".into()));
        assert_eq!(parameters["B"], Parameter::List(vec!["x".into(), "y".into()]));
    }

    #[test]
    fn offered_value_is_used_only_for_a_declared_parameter_without_a_given_value() {
        let root = node::parse("Parameters: {A: {Type: String}, B: {Type: String}}").unwrap();
        let value = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = Environment {
            parameters: [value("A", "given")].into(),
            offered: [value("A", "on offer"), value("B", "on offer"), value("C", "on offer")].into(),
            ..Environment::default()
        };
        let mut report = Report::default();
        let parameters = resolve(&root, &environment, &mut report);
        assert_eq!(parameters["A"], Parameter::Text("given".into()));
        assert_eq!(parameters["B"], Parameter::Text("on offer".into()));
        assert_eq!(parameters.len(), 2);
        assert!(report.verdict().is_ok());
    }

    #[test]
    fn parameters_without_a_value_are_reported_in_one_problem() {
        let text = "Parameters:\n  A: {Type: String}\n  B: {Type: String, Default: ''}\n  C: {Type: Number}\n  \
                    D: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /a/b}\n";
        let (_, problems) = resolved(text, &[]);
        assert_eq!(
            problems,
            ["Parameters (line 2, column 6): parameters without a default and without a value: A, C, D"]
        );
    }

    #[test]
    fn parameter_constraints_are_checked_and_noecho_values_stay_hidden() {
        let text = "Parameters:\n  A: {Type: String, AllowedValues: [x, y]}\n  B: {Type: Number, MaxValue: 3}\n  \
                    C: {Type: Number}\n  D: {Type: String, NoEcho: true, MinLength: 8}\n";
        let (parameters, problems) =
            resolved(text, &[("A", "z"), ("B", "4"), ("C", "few"), ("D", "hunter2"), ("E", "1")]);
        assert!(parameters.is_empty());
        assert_eq!(
            problems,
            [
                "Parameters (line 2, column 3): the template has no parameter E, but a value was given for it; \
                 declare the parameter or remove the value",
                "Parameters.A (line 2, column 6): expected one of the AllowedValues (x, y), found \"z\"",
                "Parameters.B (line 3, column 6): expected a number between MinValue and MaxValue, found \"4\"",
                "Parameters.C (line 4, column 6): expected a number, found \"few\"",
                "Parameters.D (line 5, column 6): expected a length between MinLength and MaxLength, found the given \
                 value (hidden by NoEcho)",
            ]
        );
    }
}
