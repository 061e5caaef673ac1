//! Files that are shared by all commands in one Cargo workspace.

use std::error::Error;
use std::path::{Path, PathBuf};

use streamer_harness::signing_key::SigningKey;
use streamer_harness::stage::Workspace;

/// A Cargo workspace and the files that its commands share: the template, the signing key, and the URLs of
/// the running stage.
#[derive(Debug)]
pub(super) struct State {
    pub(super) workspace: Workspace,
}

impl State {
    const TEMPLATES: [&str; 2] = ["template.yaml", "lambdas/template.yaml"];

    /// Finds the workspace around the folder of `template`, or around the current folder if `template` names no
    /// folder.
    pub(super) fn of(template: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let folder = match template.and_then(Path::parent) {
            Some(parent) if parent.is_dir() && !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => std::env::current_dir()?,
        };
        Ok(Self { workspace: Workspace::around(&folder)? })
    }

    /// Returns the path of the workspace's template: `template.yaml`, where SAM looks for it, or otherwise
    /// `lambdas/template.yaml`.
    pub(super) fn template(&self) -> Result<PathBuf, Box<dyn Error>> {
        let root = &self.workspace.root;
        let mut candidates = Self::TEMPLATES.iter().map(|template| root.join(template));
        candidates.find(|template| template.exists()).ok_or_else(|| {
            let candidates = Self::TEMPLATES.join(" nor ");
            format!(
                "{} has neither {candidates}; pass the path of your template with --template",
                root.display()
            )
            .into()
        })
    }

    /// Reads the key that signs the tokens of the local stage, or creates the key if its file is missing.
    pub(super) fn signing_key(&self) -> Result<SigningKey, Box<dyn Error>> {
        let file = self.folder().join("signing-key");
        SigningKey::load_or_create(&file)
            .map_err(|error| format!("the signing key {} cannot be used: {error}", file.display()).into())
    }

    /// Path of the ready file in which a running local stage stores its URLs.
    pub(super) fn running(&self) -> PathBuf {
        self.folder().join("running.json")
    }

    fn folder(&self) -> PathBuf {
        self.workspace.target_dir.join("streamer")
    }
}
