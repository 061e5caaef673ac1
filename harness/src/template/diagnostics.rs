//! Messages about a template: problems prevent the start of the stage, findings do not.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Position of a value in the template.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Path of the value from the root of the template, such as
    /// `Resources.RouterFunction.Properties.Timeout`; empty for the root.
    pub path: String,
    /// Line of the value's first character, counted from 1.
    pub line: usize,
    /// Column of the value's first character, counted from 1.
    pub column: usize,
}

impl Place {
    /// Returns the position to report for a missing value `name` inside the value at this position.
    pub(super) fn below(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, ..self.clone() }
    }

    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { place: self.clone(), message: message.into(), unsupported: false }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        write!(f, "(line {}, column {})", self.line, self.column)
    }
}

/// A mistake in the template that prevents the start of a stage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Position in the template of the faulty value, or of the object that lacks a required key.
    pub place: Place,
    /// Text that says what is wrong and what would be right.
    pub message: String,
    /// `true` if the value may be valid on AWS but the local stage does not support it; `false` if the value
    /// is invalid.
    pub unsupported: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// A value of the template that the local stage ignores.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Position in the template of the ignored value.
    pub place: Place,
    /// Importance of the finding: harmless, or behavior that the local stage does not emulate.
    pub kind: FindingKind,
    /// Text that describes the effect of ignoring the value, such as `permissions are not checked locally`.
    pub meaning: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.meaning)
    }
}

/// Importance of a [`Finding`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FindingKind {
    /// Ignoring the value does not affect requests. Examples are permissions, encryption, backups and labels.
    Harmless,
    /// The value has an effect on AWS that the local stage does not emulate.
    NotEmulated,
}

/// Error that prevents the start of a stage from a template.
#[derive(Debug)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template's file cannot be read. Name another file, or correct its permissions.
    Unreadable {
        /// Path of the unreadable file.
        file: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The template has invalid values. Correct each of them.
    Invalid {
        /// Path of the template's file; `None` if the template was parsed from a text.
        file: Option<PathBuf>,
        /// Problems of the template, in the order of the file.
        problems: Vec<Problem>,
    },
    /// The template has no value that is known to be invalid, but uses values that the local stage does not
    /// support. Such a value might change how a function behaves.
    Unsupported {
        /// Path of the template's file; `None` if the template was parsed from a text.
        file: Option<PathBuf>,
        /// Problems of the template, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl TemplateError {
    /// Returns the problems to correct, in the order of the file; empty if the file cannot be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid { problems, .. } | Self::Unsupported { problems, .. } => problems,
        }
    }

    pub(super) fn in_file(self, path: &Path) -> Self {
        let file = Some(path.to_owned());
        match self {
            Self::Unreadable { .. } => self,
            Self::Invalid { problems, .. } => Self::Invalid { file, problems },
            Self::Unsupported { problems, .. } => Self::Unsupported { file, problems },
        }
    }
}

impl From<Problem> for TemplateError {
    fn from(problem: Problem) -> Self {
        Self::Invalid { file: None, problems: vec![problem] }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, problems, verdict) = match self {
            Self::Unreadable { file, source } => {
                return write!(f, "the template {} cannot be read: {source}", file.display());
            }
            Self::Invalid { file, problems } => (file, problems, "is invalid"),
            Self::Unsupported { file, problems } => {
                (file, problems, "uses settings that the local stage does not support")
            }
        };
        match file {
            Some(file) => write!(f, "the template {} {verdict}:", file.display())?,
            None => write!(f, "the template {verdict}:")?,
        }
        problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for TemplateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Invalid { .. } | Self::Unsupported { .. } => None,
        }
    }
}

/// The problems and findings collected while a template is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Problem>,
    pub(super) findings: Vec<Finding>,
}

impl Report {
    pub(super) fn problem(&mut self, place: &Place, message: impl Into<String>) {
        self.problems.push(place.problem(message));
    }

    pub(super) fn unsupported(&mut self, place: &Place, message: impl Into<String>) {
        self.problems.push(Problem { unsupported: true, ..place.problem(message) });
    }

    pub(super) fn finding(&mut self, place: &Place, kind: FindingKind, meaning: impl Into<String>) {
        self.findings.push(Finding { place: place.clone(), kind, meaning: meaning.into() });
    }

    /// Returns the value of an `Ok`. Records the problem of an `Err`, and returns `None`.
    pub(super) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Returns the findings if there is no problem, otherwise an error with all problems.
    pub(super) fn verdict(mut self) -> Result<Vec<Finding>, TemplateError> {
        if self.problems.is_empty() {
            self.findings.sort_by_key(|finding| (finding.place.line, finding.place.column));
            // A value in `Globals` produces the same finding for each function.
            self.findings.dedup();
            return Ok(self.findings);
        }
        self.problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
        self.problems.dedup();
        let problems = self.problems;
        if problems.iter().all(|problem| problem.unsupported) {
            Err(TemplateError::Unsupported { file: None, problems })
        } else {
            Err(TemplateError::Invalid { file: None, problems })
        }
    }
}
