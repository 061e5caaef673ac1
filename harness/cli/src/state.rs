//! What the commands of one workspace share.

use std::error::Error;
use std::path::{Path, PathBuf};

use streamer_harness::signing_key::SigningKey;
use streamer_harness::stage::Workspace;

/// What the commands of one workspace share: the signing key, and which stage is running.
#[derive(Debug)]
pub(super) struct State {
    pub(super) workspace: Workspace,
}

impl State {
    const TEMPLATES: [&str; 2] = ["template.yaml", "lambdas/template.yaml"];

    /// The state of the workspace that `template` lies in, or else of the one around the current folder.
    pub(super) fn of(template: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let folder = match template.and_then(Path::parent) {
            Some(parent) if parent.is_dir() && !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => std::env::current_dir()?,
        };
        Ok(Self { workspace: Workspace::around(&folder)? })
    }

    /// The template that lies where SAM looks for it, or else the one of this workspace.
    pub(super) fn template(&self) -> Result<PathBuf, Box<dyn Error>> {
        let root = &self.workspace.root;
        let mut known = Self::TEMPLATES.iter().map(|template| root.join(template));
        known.find(|template| template.exists()).ok_or_else(|| {
            let known = Self::TEMPLATES.join(" nor ");
            format!("{} has neither {known}: name your template with --template", root.display()).into()
        })
    }

    pub(super) fn signing_key(&self) -> Result<SigningKey, Box<dyn Error>> {
        let file = self.folder().join("signing-key");
        SigningKey::load_or_create(&file)
            .map_err(|error| format!("the signing key {} cannot be used: {error}", file.display()).into())
    }

    pub(super) fn running(&self) -> PathBuf {
        self.folder().join("running.json")
    }

    fn folder(&self) -> PathBuf {
        self.workspace.target_dir.join("streamer")
    }
}
