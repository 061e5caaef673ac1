use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::StageError;

/// Paths of the functions' executables, by binary name.
#[derive(Clone, Debug, Default)]
pub struct Executables(BTreeMap<String, PathBuf>);

impl Executables {
    /// Prefix of the environment variables in which Cargo passes the paths of a package's binaries to the
    /// package's integration tests.
    const TEST_BINARY_PREFIX: &str = "CARGO_BIN_EXE_";

    /// Returns the binaries of the package whose integration test is running. Cargo builds these binaries
    /// before the test, and passes their paths in environment variables.
    ///
    /// Outside integration tests, the result is empty.
    #[must_use]
    pub fn from_cargo_test() -> Self {
        std::env::vars_os()
            .filter_map(|(name, path)| {
                Some((name.to_str()?.strip_prefix(Self::TEST_BINARY_PREFIX)?.to_owned(), path))
            })
            .collect()
    }

    /// Returns the path of the executable of `binary`.
    ///
    /// # Errors
    /// [`StageError::NoExecutable`] if there is no binary of this name.
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

/// The Cargo workspace in which the functions are built.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Root folder of the workspace.
    pub root: PathBuf,
    /// Folder of Cargo's build output, usually `target` in the root folder.
    pub target_dir: PathBuf,
}

impl Workspace {
    /// Finds the workspace that contains the folder `dir`.
    ///
    /// # Errors
    /// [`StageError::Build`] if Cargo cannot be run, or no workspace contains `dir`.
    pub fn around(dir: &Path) -> Result<Self, StageError> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(dir)
            .stderr(Stdio::piped())
            .output()
            .map_err(|error| no_cargo(&error))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(StageError::Build(format!(
                "no Cargo workspace contains the folder {}: {reason}",
                dir.display()
            )));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let folder = |key: &str| metadata[key].as_str().map(PathBuf::from);
        match (folder("workspace_root"), folder("target_directory")) {
            (Some(root), Some(target_dir)) => Ok(Self { root, target_dir }),
            _ => Err(StageError::Build(
                "the output of cargo metadata lacks workspace_root or target_directory".to_owned(),
            )),
        }
    }

    /// Returns true if the running program was built in this workspace, for example by `cargo run`. An
    /// installed program returns false.
    #[must_use]
    pub fn built_this_program(&self) -> bool {
        let program = std::env::current_exe();
        self.target_dir
            .canonicalize()
            .is_ok_and(|here| program.is_ok_and(|program| program.starts_with(here)))
    }

    /// Builds binaries, with Cargo's progress on the terminal. If the running program is a release build of
    /// this workspace, the binaries are release builds too.
    ///
    /// The build runs in the root folder with the default members, so that Cargo unifies the features of
    /// dependencies in the same way as in the user's own builds, and compiles nothing twice.
    ///
    /// # Errors
    /// [`StageError::Build`] if the build fails. Cargo has printed the reason on the terminal.
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
                "the functions ({names}) do not build; fix the errors that Cargo printed above, in {}",
                self.root.display()
            )));
        }
        Ok(built)
    }
}

/// Returns a command for Cargo without the variables that `cargo run` has set for this program. With these
/// variables, the environment of build scripts would differ from the user's own builds. Each change makes
/// Cargo rebuild the crates with build scripts, and every crate that depends on them.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_set_by_cargo_run) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn is_set_by_cargo_run(variable: &str) -> bool {
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    const NAMES: [&str; 3] = ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    PREFIXES.iter().any(|prefix| variable.starts_with(prefix)) || NAMES.contains(&variable)
}

fn no_cargo(error: &std::io::Error) -> StageError {
    StageError::Build(format!("cargo cannot be run: {error}; the local stage needs a Rust toolchain"))
}

/// Returns the name and path of a binary that Cargo has built, if the message reports one.
fn executable(message: &Value) -> Option<(String, PathBuf)> {
    let path = message["executable"].as_str()?;
    let name = message["target"]["name"].as_str()?;
    Some((name.to_owned(), PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_executable_is_an_error_that_lists_the_existing_binaries() {
        let executables: Executables = [("router", "/r"), ("connect", "/c")].into_iter().collect();
        assert_eq!(executables.path("router").unwrap(), Path::new("/r"));
        let error = executables.path("worker").unwrap_err().to_string();
        assert!(error.contains("\"worker\"") && error.contains("connect, router"), "{error}");
    }

    #[test]
    fn cargo_workspace_is_found_from_a_member_and_not_from_an_unrelated_folder() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = Workspace::around(here).unwrap();
        assert_eq!(workspace.root, here.parent().unwrap());
        assert!(workspace.built_this_program());
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Workspace { root: elsewhere.path().into(), target_dir: elsewhere.path().into() };
        assert!(!other.built_this_program());
        let error = Workspace::around(elsewhere.path()).unwrap_err().to_string();
        assert!(error.contains("no Cargo workspace contains"), "{error}");
    }

    #[test]
    fn variables_set_by_cargo_run_are_removed_and_cargo_settings_are_kept() {
        for variable in
            ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_LINKS", "CARGO_BIN_NAME", "OUT_DIR"]
        {
            assert!(is_set_by_cargo_run(variable), "{variable} is not passed on to Cargo");
        }
        for setting in
            ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "CARGO_PROFILE_DEV_DEBUG"]
        {
            assert!(!is_set_by_cargo_run(setting), "{setting} is passed on to Cargo");
        }
    }

    #[test]
    fn building_an_unknown_binary_is_an_error_that_names_the_binary() {
        let workspace = Workspace::around(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let error = workspace.build(&["no-such-function"]).unwrap_err().to_string();
        assert!(error.contains("the functions (no-such-function) do not build"), "{error}");
    }
}
