//! How a running stage is found: by scripts, by other languages' tests, and by `try`.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the ready file holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Ready {
    /// Where WebSocket clients connect.
    pub(super) ws_url: String,
    /// A token that the stage accepts for a day.
    pub(super) token: String,
    /// Where the management API answers.
    pub(super) management_url: String,
    /// Where DynamoDB and DynamoDB Streams answer.
    pub(super) dynamodb_url: String,
}

impl Ready {
    /// Writes the whole file at once, so that whoever waits for it never reads half of it.
    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let draft = file.with_extension(format!("{}.new", std::process::id()));
        fs::write(&draft, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(&draft, file)
    }

    /// The stage that a file tells of, if it still answers.
    pub(super) fn read_running(file: &Path) -> Option<Self> {
        let ready: Self = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let address: SocketAddr = ready.dynamodb_url.strip_prefix("http://")?.parse().ok()?;
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        Some(ready)
    }

    /// Removes the file, unless another stage has written its own there since.
    pub(super) fn remove(&self, file: &Path) {
        let ours = fs::read(file).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        if ours.as_ref() == Some(self) {
            // What cannot be removed tells of a stage that does not answer, and is passed over.
            let _ = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_stage_is_found_while_it_answers_and_its_file_is_removed_by_itself_alone() {
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
