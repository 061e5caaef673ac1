use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::workspace::{IDLE, Workspace};

#[test]
fn local_stage_prints_its_urls_and_leaves_no_process_or_ready_file_after_a_signal() {
    let workspace = Workspace::new(IDLE);
    let ready_file = workspace.path().join("out/ready.json");
    for (signal, extra) in [(Signal::INT, &["--data", "kept"][..]), (Signal::TERM, &[])] {
        let mut arguments = vec!["local", "--port", "0", "--ready-file", "out/ready.json"];
        arguments.extend(extra);
        let mut stage = workspace.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut greeting = String::new();
        let mut lines = BufReader::new(stage.stdout.take().unwrap());
        while !greeting.contains("Ctrl-C") {
            assert_ne!(
                lines.read_line(&mut greeting).unwrap(),
                0,
                "the stage prints its whole greeting before it ends: {greeting}"
            );
        }

        assert!(greeting.contains("\n  streamer try ping\n"), "{greeting}");
        let ready: Value = serde_json::from_slice(&fs::read(&ready_file).unwrap()).unwrap();
        let url = |key: &str| ready[key].as_str().unwrap().to_owned();
        for key in ["ws_url", "management_url", "dynamodb_url", "token"] {
            assert!(greeting.contains(&url(key)), "the greeting contains {key}: {greeting}");
        }
        let address = url("dynamodb_url").strip_prefix("http://").unwrap().to_owned();
        assert_eq!(url("ws_url"), format!("ws://{address}/prod"));
        assert_eq!(url("management_url"), format!("http://{address}/prod"));
        TcpStream::connect(&address).unwrap();
        assert_eq!(workspace.processes().len(), 1, "one environment of the function is running");
        assert!(workspace.path().join("target/streamer/running.json").exists());

        kill_process(Pid::from_child(&stage), signal).unwrap();
        assert_eq!(stage.wait().unwrap().code(), Some(0));
        assert_eq!(workspace.processes(), Vec::<String>::new());
        assert!(!ready_file.exists() && !workspace.path().join("target/streamer/running.json").exists());
        assert!(TcpStream::connect(&address).is_err(), "the stage has closed its port");
    }
    assert!(workspace.path().join("kept").is_dir());

    workspace.edit_template(
        "{ AttributeName: id, AttributeType: S }",
        "{ AttributeName: name, AttributeType: S }",
    );
    workspace.edit_template("{ AttributeName: id, KeyType: HASH }", "{ AttributeName: name, KeyType: HASH }");
    insta::assert_snapshot!(workspace.refusal(&["local", "--port", "0", "--data", "kept"]), @"streamer: table streamer-Table cannot be created: the data folder has a table of this name with another layout (keys: should be name S HASH; is id S HASH); name another folder with --data, or delete this folder");
}

#[test]
fn template_in_the_workspace_root_is_found_without_an_argument() {
    let workspace = Workspace::new(IDLE);
    let moved = workspace.path().join("template.yaml");
    fs::rename(workspace.path().join("lambdas/template.yaml"), &moved).unwrap();
    // The error names the template's binary, so the template was found and read.
    fs::write(&moved, fs::read_to_string(&moved).unwrap().replace("Binary: only", "Binary: other")).unwrap();
    let stderr = workspace.refusal(&["local", "--port", "0"]);
    assert!(stderr.contains("the functions (other) do not build"), "{stderr}");
}
