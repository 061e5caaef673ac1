//! What is said about a template: problems that stop the stage, findings that do not.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Where in the template something stands: its path from the root, and its first character.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Such as `Resources.RouterFunction.Properties.Timeout`; empty for the document itself.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
}

impl Place {
    /// The place of something missing that would stand at `name` below this one.
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

/// One thing in the template that must be mended before a stage can be made from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where it stands, or where it is missing.
    pub place: Place,
    /// What is wrong and what would be right.
    pub message: String,
    /// Right on AWS, as far as one can tell, but not something the stage knows how to act upon.
    pub unsupported: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Something in the template that the stage does not act upon, and what that means locally.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What is not acted upon.
    pub place: Place,
    /// Whether a developer should care.
    pub kind: FindingKind,
    /// What its absence means on the local stage.
    pub meaning: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.meaning)
    }
}

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FindingKind {
    /// It has no effect that a request could notice locally: permissions, encryption, backups, labels.
    Harmless,
    /// On AWS it does something, which does not happen locally.
    NotEmulated,
}

/// Why no stage can be made from a template.
#[derive(Debug)]
#[non_exhaustive]
pub enum TemplateError {
    /// The file cannot be read: name another one, or mend its permissions.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The template is wrong: mend each of the places listed.
    Invalid {
        /// The template's file, where it came from one.
        file: Option<PathBuf>,
        /// All that was found, in the order of the file.
        problems: Vec<Problem>,
    },
    /// All that stands in the way are things the stage does not know, and that might change what a function does.
    Unsupported {
        /// The template's file, where it came from one.
        file: Option<PathBuf>,
        /// All that was found, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl TemplateError {
    /// What must be mended, in the order of the file.
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
            Self::Invalid { file, problems } => (file, problems, "does not describe a stage"),
            Self::Unsupported { file, problems } => {
                (file, problems, "uses what the local stage does not know")
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

/// All that was noticed while a template was read.
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

    /// Keeps the value, or the problem that there is none.
    pub(super) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// The findings, when nothing stands in the way.
    pub(super) fn verdict(mut self) -> Result<Vec<Finding>, TemplateError> {
        if self.problems.is_empty() {
            self.findings.sort_by_key(|finding| (finding.place.line, finding.place.column));
            // What stands in Globals is found once for each function.
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
