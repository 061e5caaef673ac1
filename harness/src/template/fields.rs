//! Reads the properties of a YAML mapping by type, and finally reports each property that was not read.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::diagnostics::{FindingKind, Place, Problem, Report};
use super::node::{Kind, Node};
use super::scope::Scope;

/// The names that a template can refer to, and the messages about the template so far.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    pub(super) scope: Scope<'t>,
    pub(super) report: Report,
}

/// A property that the stage ignores: its name, the kind of the finding, and the effect on the local stage.
pub(super) type Ignored = (&'static str, FindingKind, &'static str);

/// The properties of one YAML mapping. Each property is read, ignored with a finding, or reported as
/// unsupported.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) place: Place,
    entries: Vec<(String, Node)>,
    read: BTreeSet<&'static str>,
}

impl Fields {
    /// Reads the properties of `node`. If `node` does not resolve to a mapping, reports a problem.
    pub(super) fn of(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let resolved = reader.report.keep(reader.scope.resolve(node))??;
        match resolved.kind {
            Kind::Map(entries) => Some(Self { place: resolved.place, entries, read: BTreeSet::new() }),
            Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::StreamArn(_) => {
                let found = resolved.describe();
                reader.report.problem(&node.place, format!("expected a mapping, found {found}"));
                None
            }
        }
    }

    /// Returns an empty set of properties, for a resource without `Properties`.
    pub(super) fn none(place: Place) -> Self {
        Self { place, entries: Vec::new(), read: BTreeSet::new() }
    }

    /// Returns the position of a property, or the position to report if the property is missing.
    pub(super) fn place(&self, name: &str) -> Place {
        match self.entries.iter().find(|(key, _)| key == name) {
            Some((_, node)) => node.place.clone(),
            None => self.place.below(name),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key == name)
    }

    pub(super) fn node(&mut self, name: &'static str, reader: &mut Reader<'_>) -> Option<Node> {
        self.read.insert(name);
        let (_, node) = self.entries.iter().find(|(key, _)| key == name)?;
        reader.report.keep(reader.scope.resolve(node))?
    }

    pub(super) fn text(&mut self, name: &'static str, reader: &mut Reader<'_>) -> Option<String> {
        let node = self.node(name, reader)?;
        match node.kind {
            Kind::Scalar(text) => Some(text),
            Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::StreamArn(_) => {
                let found = node.describe();
                reader.report.problem(&self.place(name), format!("expected text, found {found}"));
                None
            }
        }
    }

    /// Reads a text. Returns an error if the text refers to a resource that only CloudFormation creates.
    pub(super) fn text_if_known(
        &mut self,
        name: &'static str,
        reader: &Reader<'_>,
    ) -> Result<Option<String>, Problem> {
        self.read.insert(name);
        let node = self.entries.iter().find(|(key, _)| key == name);
        node.map_or(Ok(None), |(_, node)| reader.scope.text(node))
    }

    pub(super) fn required_text(
        &mut self,
        name: &'static str,
        expected: &str,
        reader: &mut Reader<'_>,
    ) -> Option<String> {
        let before = reader.report.problems.len();
        let text = self.text(name, reader).filter(|text| !text.is_empty());
        if text.is_none() && reader.report.problems.len() == before {
            reader.report.problem(&self.place(name), format!("required, but missing; expected {expected}"));
        }
        text
    }

    /// Reads a whole number of `unit`s within `range`.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        unit: &str,
        range: RangeInclusive<i64>,
        reader: &mut Reader<'_>,
    ) -> Option<i64> {
        let node = self.node(name, reader)?;
        let number = node.scalar().and_then(|text| text.parse().ok());
        let (least, most) = (range.start(), range.end());
        match number {
            Some(number) if range.contains(&number) => Some(number),
            Some(number) => {
                let message = format!("expected {least} to {most} {unit}, found {number}");
                reader.report.problem(&self.place(name), message);
                None
            }
            None => {
                let message = format!("expected a whole number of {unit}, found {}", node.describe());
                reader.report.problem(&self.place(name), message);
                None
            }
        }
    }

    /// Like [`Self::number`], for numbers that are never negative.
    pub(super) fn count(
        &mut self,
        name: &'static str,
        unit: &str,
        range: RangeInclusive<u32>,
        reader: &mut Reader<'_>,
    ) -> Option<u32> {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        self.number(name, unit, range, reader).and_then(|number| u32::try_from(number).ok())
    }

    pub(super) fn flag(&mut self, name: &'static str, reader: &mut Reader<'_>) -> Option<bool> {
        let node = self.node(name, reader)?;
        match node.scalar() {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => {
                let message = format!("expected true or false, found {}", node.describe());
                reader.report.problem(&self.place(name), message);
                None
            }
        }
    }

    /// Returns the items of a list; empty if the property is missing.
    pub(super) fn list(&mut self, name: &'static str, reader: &mut Reader<'_>) -> Vec<Node> {
        let Some(node) = self.node(name, reader) else { return Vec::new() };
        reader.report.keep(reader.scope.items(&node)).unwrap_or_default()
    }

    pub(super) fn fields(&mut self, name: &'static str, reader: &mut Reader<'_>) -> Option<Self> {
        let node = self.node(name, reader)?;
        Self::of(&node, reader)
    }

    /// Returns all entries, for a mapping whose keys are names chosen by the template's author.
    pub(super) fn into_entries(self) -> Vec<(String, Node)> {
        self.entries
    }

    /// Handles the properties that were not read: those in `ignored` become findings, the others are
    /// unsupported.
    pub(super) fn finish(self, ignored: &[Ignored], reader: &mut Reader<'_>) {
        for (name, node) in &self.entries {
            if self.read.contains(name.as_str()) {
                continue;
            }
            match ignored.iter().find(|(ignored, ..)| ignored == name) {
                Some((_, kind, meaning)) => reader.report.finding(&node.place, *kind, *meaning),
                None => reader.report.unsupported(
                    &node.place,
                    "the local stage does not support this setting, which might change how the stage behaves; \
                     remove or correct it",
                ),
            }
        }
    }
}
