//! The template as a tree of nodes, parsed from YAML. Each node has its position, and CloudFormation's short
//! tags such as `!Ref` become their long form.
//!
//! Scalars stay text, because CloudFormation treats `10` and `"10"` as the same value. The code that reads a
//! property checks its type.

use std::mem;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::diagnostics::{Place, Problem, Report, TemplateError};

/// Maximum nesting depth: enough for any template, and small enough that recursion over the tree does not
/// overflow the stack.
const MAX_DEPTH: usize = 64;

/// A value of the template, with its position.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// The ARN of a table's stream, represented by the table's logical id. The ARN has no text yet, because
    /// it contains a label that DynamoDB chooses when the table is created.
    StreamArn(String),
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Returns the entries of a mapping; empty for any other node.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        if let Kind::Map(entries) = &self.kind { entries } else { &[] }
    }

    /// Returns the text of a scalar; `None` for any other node.
    pub(super) fn scalar(&self) -> Option<&str> {
        if let Kind::Scalar(text) = &self.kind { Some(text) } else { None }
    }

    /// Describes the value for messages such as `expected text, found a list`.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "no value".to_owned(),
            Kind::Scalar(text) => format!("{text:?}"),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a mapping".to_owned(),
            Kind::StreamArn(table) => {
                format!("the stream ARN of table {table}, which is unknown until the table is created")
            }
        }
    }

    /// Sets the paths of this node and of all nodes below it. Reports keys that occur twice in a mapping.
    fn set_paths(&mut self, path: String, report: &mut Report) {
        match &mut self.kind {
            Kind::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    item.set_paths(format!("{path}[{i}]"), report);
                }
            }
            Kind::Map(entries) => {
                let mut seen = std::collections::BTreeSet::new();
                for (key, value) in entries {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    value.set_paths(below, report);
                    if !seen.insert(key.clone()) {
                        report.problem(
                            &value.place,
                            format!("the key {key:?} occurs twice in this mapping; remove one of the two"),
                        );
                    }
                }
            }
            Kind::Null | Kind::Scalar(_) | Kind::StreamArn(_) => {}
        }
        self.place.path = path;
    }
}

/// Parses the YAML document in `text`, which must be a single mapping.
pub(super) fn parse(text: &str) -> Result<Node, TemplateError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.event(event, span.start)?,
            Err(error) => {
                return Err(at(*error.marker()).problem(format!("invalid YAML: {}", error.info())).into());
            }
        }
    }
    let start = Place { line: 1, column: 1, ..Place::default() };
    let mut root = builder
        .root
        .ok_or_else(|| start.problem("the template is empty; expected a mapping with Resources"))?;
    if !matches!(root.kind, Kind::Map(_)) {
        let message = format!("expected a mapping with Resources, found {}", root.describe());
        return Err(root.place.problem(message).into());
    }
    let mut report = Report::default();
    root.set_paths(String::new(), &mut report);
    report.verdict().map(|_| root)
}

fn at(marker: Marker) -> Place {
    Place { path: String::new(), line: marker.line(), column: marker.col() + 1 }
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
}

/// A list or mapping whose end has not been parsed yet.
struct Open {
    node: Node,
    intrinsic: Option<String>,
    /// Key of the mapping entry whose value is parsed next.
    key: Option<String>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, start: Marker) -> Result<(), Problem> {
        let place = at(start);
        match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Alias(_) => {
                Err(place.problem("CloudFormation does not support YAML aliases; repeat the value instead"))
            }
            Event::Scalar(text, style, _, tag) => {
                let plain = style == ScalarStyle::Plain;
                let kind = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain && tag.is_none() => Kind::Null,
                    "True" | "TRUE" if plain => Kind::Scalar("true".to_owned()),
                    "False" | "FALSE" if plain => Kind::Scalar("false".to_owned()),
                    text => Kind::Scalar(text.to_owned()),
                };
                let intrinsic = intrinsic(tag.as_deref(), &place)?;
                self.add(Node { place, kind }, intrinsic)
            }
            Event::SequenceStart(_, tag) => self.open(place, Kind::List(Vec::new()), tag.as_deref()),
            Event::MappingStart(_, tag) => self.open(place, Kind::Map(Vec::new()), tag.as_deref()),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(closed) => self.add(closed.node, closed.intrinsic),
                None => Ok(()),
            },
        }
    }

    fn open(&mut self, place: Place, kind: Kind, tag: Option<&Tag>) -> Result<(), Problem> {
        if self.open.len() == MAX_DEPTH {
            return Err(place.problem(format!(
                "lists and mappings are nested too deeply; expected at most {MAX_DEPTH} levels"
            )));
        }
        let intrinsic = intrinsic(tag, &place)?;
        self.open.push(Open { node: Node { place, kind }, intrinsic, key: None });
        Ok(())
    }

    fn add(&mut self, node: Node, intrinsic: Option<String>) -> Result<(), Problem> {
        let node = match intrinsic {
            Some(name) => Node { place: node.place.clone(), kind: Kind::Map(vec![(name, node)]) },
            None => node,
        };
        let Some(Open { node: parent, key, .. }) = self.open.last_mut() else {
            if self.root.is_some() {
                return Err(node.place.problem("found a second YAML document; expected one document"));
            }
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.kind {
            Kind::Map(entries) => match (mem::take(key), node.kind) {
                (Some(name), kind) => entries.push((name, Node { place: node.place, kind })),
                (None, Kind::Scalar(name)) => *key = Some(name),
                (None, _) => return Err(node.place.problem("expected a text as the key of a mapping")),
            },
            Kind::List(items) => items.push(node),
            Kind::Null | Kind::Scalar(_) | Kind::StreamArn(_) => {}
        }
        Ok(())
    }
}

/// Returns the long name of the intrinsic function for a short tag; `None` for a standard YAML tag.
fn intrinsic(tag: Option<&Tag>, place: &Place) -> Result<Option<String>, Problem> {
    let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) else { return Ok(None) };
    match tag.suffix.as_str() {
        "Ref" | "Condition" => Ok(Some(tag.suffix.clone())),
        "And" | "Base64" | "Cidr" | "Equals" | "FindInMap" | "GetAZs" | "GetAtt" | "If" | "ImportValue"
        | "Join" | "Length" | "Not" | "Or" | "Select" | "Split" | "Sub" | "ToJsonString" | "Transform" => {
            Ok(Some(format!("Fn::{}", tag.suffix)))
        }
        _ => Err(place
            .problem(format!("unknown tag {tag}; expected a tag of CloudFormation, such as !Ref or !Sub"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn parsed_nodes_have_their_path_line_and_column() {
        let root = parse("a:\n  b:\n    - x\n    - {c: 'True', d: True, e: ~}\n").unwrap();
        let item = &root.get("a").unwrap().get("b").unwrap();
        let Kind::List(items) = &item.kind else { panic!("{item:?}") };
        assert_eq!(items[1].get("c").unwrap().place, Place { path: "a.b[1].c".into(), line: 4, column: 11 });
        assert_eq!(items[1].get("c").unwrap().scalar(), Some("True"));
        assert_eq!(items[1].get("d").unwrap().scalar(), Some("true"));
        assert!(matches!(items[1].get("e").unwrap().kind, Kind::Null));
    }

    #[test]
    fn short_tags_are_parsed_as_intrinsic_functions_with_long_names() {
        let root = parse("a: !Ref X\nb: !Join ['', [!GetAtt Y.Arn]]\nc: !Ref ''\n").unwrap();
        assert_eq!(root.get("a").unwrap().get("Ref").unwrap().scalar(), Some("X"));
        let Kind::List(join) = &root.get("b").unwrap().get("Fn::Join").unwrap().kind else {
            panic!("{root:?}")
        };
        let Kind::List(parts) = &join[1].kind else { panic!("{join:?}") };
        assert_eq!(parts[0].get("Fn::GetAtt").unwrap().scalar(), Some("Y.Arn"));
    }

    #[test]
    fn invalid_template_text_is_an_error_with_its_position() {
        for (text, message) in [
            ("", "the template is empty; expected a mapping with Resources"),
            ("- a\n", "expected a mapping with Resources, found a list"),
            ("just words", "found \"just words\""),
            ("a: [1, 2\nb: 3", "invalid YAML"),
            ("a: 1\n---\nb: 2\n", "(line 3, column 1): found a second YAML document"),
            ("a: &x 1\nb: *x\n", "(line 2, column 4): CloudFormation does not support YAML aliases"),
            ("a: !Reff x\n", "(line 1, column 4): unknown tag !Reff"),
            ("? [a]\n: b\n", "expected a text as the key of a mapping"),
        ] {
            assert!(error(text).contains(message), "{text:?} gave the error {}", error(text));
        }
    }

    #[test]
    fn duplicate_keys_are_all_reported_with_their_positions() {
        let error = error("a:\n  b: 1\n  b: 2\nc: 1\na: 2\n");
        assert!(error.contains("a.b (line 3, column 6): the key \"b\" occurs twice"), "{error}");
        assert!(error.contains("a (line 5, column 4): the key \"a\" occurs twice"), "{error}");
    }

    #[test]
    fn yaml_nested_more_than_64_levels_deep_is_an_error() {
        assert!(error(&format!("a: {}", "[".repeat(100))).contains("nested too deeply"));
        let block = (0..200).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>();
        assert!(error(&block).contains("nested too deeply"));
    }
}
