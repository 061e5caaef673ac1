use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::StageError;

/// The functions' programs, by the name of their binary.
#[derive(Clone, Debug, Default)]
pub struct Executables(BTreeMap<String, PathBuf>);

impl Executables {
    const TOLD_TO_TESTS: &str = "CARGO_BIN_EXE_";

    /// The binaries of the package whose integration test this is: Cargo has built them, and says where they are.
    ///
    /// Anywhere else there are none.
    #[must_use]
    pub fn of_this_test() -> Self {
        std::env::vars_os()
            .filter_map(|(name, path)| {
                Some((name.to_str()?.strip_prefix(Self::TOLD_TO_TESTS)?.to_owned(), path))
            })
            .collect()
    }

    /// The program of a binary.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn path(&self, binary: &str) -> Result<&Path, StageError> {
        self.0.get(binary).map(PathBuf::as_path).ok_or_else(|| StageError::NoExecutable {
            binary: binary.to_owned(),
            known: self.0.keys().cloned().collect(),
        })
    }
}

impl<N: Into<String>, P: Into<PathBuf>> FromIterator<(N, P)> for Executables {
    fn from_iter<I: IntoIterator<Item = (N, P)>>(programs: I) -> Self {
        Self(programs.into_iter().map(|(name, path)| (name.into(), path.into())).collect())
    }
}

/// The Cargo workspace that the functions are built in.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its folder.
    pub root: PathBuf,
    /// Where Cargo puts what it builds.
    pub target_dir: PathBuf,
}

impl Workspace {
    /// The workspace that `dir` lies in.
    ///
    /// # Errors
    /// When Cargo is not there, or knows of no workspace around `dir`.
    pub fn around(dir: &Path) -> Result<Self, StageError> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(dir)
            .stderr(Stdio::piped())
            .output()
            .map_err(|error| no_cargo(&error))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(StageError::Build(format!("no Cargo workspace around {}: {reason}", dir.display())));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let folder = |key: &str| metadata[key].as_str().map(PathBuf::from);
        match (folder("workspace_root"), folder("target_directory")) {
            (Some(root), Some(target_dir)) => Ok(Self { root, target_dir }),
            _ => Err(StageError::Build("cargo metadata gave an answer that cannot be read".to_owned())),
        }
    }

    /// Whether the program that runs now was built here, as by `cargo run`, and not installed from elsewhere.
    #[must_use]
    pub fn built_this_program(&self) -> bool {
        let program = std::env::current_exe();
        self.target_dir
            .canonicalize()
            .is_ok_and(|here| program.is_ok_and(|program| program.starts_with(here)))
    }

    /// Builds binaries, with Cargo's own progress on the terminal: optimised, if this program was built so here.
    ///
    /// Built in the workspace's root, with its default members: there Cargo unites the features of the
    /// dependencies as it has for whoever calls us, and nothing is compiled twice.
    ///
    /// # Errors
    /// When they do not build: Cargo has said why on the terminal.
    pub fn build(&self, binaries: &[&str]) -> Result<Executables, StageError> {
        let mut command = cargo();
        command.arg("build").arg("--message-format=json-render-diagnostics");
        if !cfg!(debug_assertions) && self.built_this_program() {
            command.arg("--release");
        }
        for binary in binaries {
            command.args(["--bin", binary]);
        }
        let mut child = command
            .current_dir(&self.root)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| no_cargo(&error))?;
        let messages = child.stdout.take().map(BufReader::new);
        let built = messages
            .into_iter()
            .flat_map(BufReader::lines)
            .filter_map(|line| executable(&serde_json::from_str(&line.ok()?).ok()?))
            .collect();
        let status = child.wait().map_err(|error| no_cargo(&error))?;
        if !status.success() {
            let names = binaries.join(", ");
            return Err(StageError::Build(format!(
                "the functions ({names}) do not build: mend what Cargo says above, in {}",
                self.root.display()
            )));
        }
        Ok(built)
    }
}

/// Cargo, without what `cargo run` tells the program that it runs: a build script of a dependency would see
/// another environment than in the user's own builds, and be built anew, with all that depends on it, each time.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_told_by_cargo_run) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn is_told_by_cargo_run(variable: &str) -> bool {
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    const NAMES: [&str; 3] = ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    PREFIXES.iter().any(|prefix| variable.starts_with(prefix)) || NAMES.contains(&variable)
}

fn no_cargo(error: &std::io::Error) -> StageError {
    StageError::Build(format!("cargo cannot be run: {error}; the local stage needs a Rust toolchain"))
}

/// The binary that a line of Cargo's messages says was built.
fn executable(message: &Value) -> Option<(String, PathBuf)> {
    let path = message["executable"].as_str()?;
    let name = message["target"]["name"].as_str()?;
    Some((name.to_owned(), PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_was_not_built_is_named_with_those_that_were() {
        let executables: Executables = [("router", "/r"), ("connect", "/c")].into_iter().collect();
        assert_eq!(executables.path("router").unwrap(), Path::new("/r"));
        let error = executables.path("worker").unwrap_err().to_string();
        assert!(error.contains("\"worker\"") && error.contains("connect, router"), "{error}");
    }

    #[test]
    fn this_workspace_is_found_and_a_folder_without_one_is_not() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = Workspace::around(here).unwrap();
        assert_eq!(workspace.root, here.parent().unwrap());
        assert!(workspace.built_this_program());
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Workspace { root: elsewhere.path().into(), target_dir: elsewhere.path().into() };
        assert!(!other.built_this_program());
        let error = Workspace::around(elsewhere.path()).unwrap_err().to_string();
        assert!(error.contains("no Cargo workspace around"), "{error}");
    }

    #[test]
    fn what_cargo_run_tells_is_kept_from_cargo_and_settings_are_not() {
        for told in
            ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_LINKS", "CARGO_BIN_NAME", "OUT_DIR"]
        {
            assert!(is_told_by_cargo_run(told), "{told}");
        }
        for setting in
            ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "CARGO_PROFILE_DEV_DEBUG"]
        {
            assert!(!is_told_by_cargo_run(setting), "{setting}");
        }
    }

    #[test]
    fn a_binary_that_is_not_there_does_not_build() {
        let workspace = Workspace::around(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let error = workspace.build(&["no-such-function"]).unwrap_err().to_string();
        assert!(error.contains("the functions (no-such-function) do not build"), "{error}");
    }
}
