//! The ready file, with which scripts, tests in other languages and the `try` command find a running stage.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Contents of a ready file: the URLs of a running stage, and a token.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Ready {
    /// URL to which WebSocket clients connect.
    pub(super) ws_url: String,
    /// Token that the stage accepts for 24 hours.
    pub(super) token: String,
    /// Base URL of the management API (`@connections`).
    pub(super) management_url: String,
    /// Endpoint URL of the AWS services that the stage emulates, DynamoDB among them.
    pub(super) dynamodb_url: String,
}

impl Ready {
    /// Writes a temporary file and renames it to `file`, so that a program that polls for `file` never reads
    /// incomplete JSON.
    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let draft = file.with_extension(format!("{}.new", std::process::id()));
        fs::write(&draft, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(&draft, file)
    }

    /// Reads the file of a running stage. Returns `None` if the file is missing or invalid, or if nothing
    /// accepts connections at the stage's address.
    pub(super) fn read_running(file: &Path) -> Option<Self> {
        let ready: Self = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let address: SocketAddr = ready.dynamodb_url.strip_prefix("http://")?.parse().ok()?;
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        Some(ready)
    }

    /// Removes the file, unless a later stage has overwritten its contents.
    pub(super) fn remove(&self, file: &Path) {
        let ours = fs::read(file).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        if ours.as_ref() == Some(self) {
            // An error is ignored: the stage no longer answers, so `read_running` rejects a file that
            // remains.
            let _ = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ready_file_is_valid_while_its_stage_answers_and_only_that_stage_removes_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/ready.json");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ready = Ready {
            ws_url: "ws://x/prod".into(),
            token: "t".into(),
            management_url: "http://x/prod".into(),
            dynamodb_url: format!("http://{}", listener.local_addr().unwrap()),
        };
        ready.write(&file).unwrap();
        assert_eq!(Ready::read_running(&file), Some(ready.clone()));

        let other = Ready { token: "another".into(), ..ready.clone() };
        other.remove(&file);
        assert!(file.exists());
        drop(listener);
        assert_eq!(Ready::read_running(&file), None);
        ready.remove(&file);
        assert!(!file.exists());
    }
}
