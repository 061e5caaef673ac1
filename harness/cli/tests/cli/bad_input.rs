use std::fs;
use std::net::TcpListener;

use insta::assert_snapshot;

use crate::workspace::{BROKEN, DIES, IDLE, Workspace};

#[test]
fn a_port_in_use_is_said_before_anything_is_built() {
    let workspace = Workspace::new(BROKEN);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert_snapshot!(workspace.refusal(&["local", "--port", &port]).replace(&port, "[port]"), @"streamer: port [port] is in use; stop the program that listens on it, or choose another port with --port (0 picks a free port)");
}

#[test]
fn a_template_that_is_not_there_is_named() {
    let workspace = Workspace::new(IDLE);
    let named = workspace.refusal(&["local", "--port", "0", "--template", "nowhere/template.yaml"]);
    fs::remove_file(workspace.path().join("lambdas/template.yaml")).unwrap();
    let default = workspace.refusal(&["local", "--port", "0"]);
    assert_snapshot!(format!("{named}{default}"), @r"
    streamer: the template nowhere/template.yaml cannot be read: No such file or directory (os error 2)
    streamer: [workspace] has neither template.yaml nor lambdas/template.yaml: name your template with --template
    ");
}

#[test]
fn what_the_stage_does_not_know_in_a_template_is_listed_by_its_path() {
    let workspace = Workspace::new(IDLE);
    workspace.edit_template("Handler: bootstrap, ", "Handler: bootstrap, Colour: red, Timeout: soon, ");
    workspace.edit_template("BillingMode: PAY_PER_REQUEST", "Flavour: sweet");
    assert_snapshot!(workspace.refusal(&["local", "--port", "0"]), @r#"
    streamer: the template [workspace]/lambdas/template.yaml is invalid:
      Resources.OnlyFunction.Properties.Colour (line 9, column 73): the local stage does not support this setting, which might change how the stage behaves; remove or correct it
      Resources.OnlyFunction.Properties.Timeout (line 9, column 87): expected a whole number of seconds, found "soon"
      Resources.Table.Properties.ProvisionedThroughput (line 13, column 7): required, but missing; add it, or set BillingMode to PAY_PER_REQUEST
      Resources.Table.Properties.Flavour (line 13, column 16): the local stage does not support this setting, which might change how the stage behaves; remove or correct it
    "#);
}

#[test]
fn a_function_that_does_not_build_ends_the_start_under_what_the_compiler_says() {
    let workspace = Workspace::new(BROKEN);
    let output = workspace.run(&["local", "--port", "0"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("expected `u32`, found `&str`"), "{said}");
    assert_snapshot!(workspace.refusal(&["local", "--port", "0"]), @"streamer: the functions (only) do not build; fix the errors that Cargo printed above, in [workspace]");
}

#[test]
fn a_function_that_dies_at_its_start_is_shown_with_its_output() {
    let workspace = Workspace::new(DIES);
    let said = workspace.refusal(&["local", "--port", "0"]);
    assert!(said.contains("OnlyFunction does not start") && said.contains("TABLE is not set"), "{said}");
}

#[test]
fn a_data_folder_that_is_none_is_said_with_how_to_mend_it() {
    let workspace = Workspace::new(IDLE);
    fs::write(workspace.path().join("data"), "not a folder").unwrap();
    assert_snapshot!(workspace.refusal(&["local", "--port", "0", "--data", "data"]), @"streamer: data is a file; name a folder (created if missing)");
}

#[test]
fn a_ready_file_that_cannot_be_written_ends_the_stage() {
    let workspace = Workspace::new(IDLE);
    fs::write(workspace.path().join("file"), "").unwrap();
    let said = workspace.refusal(&["local", "--port", "0", "--ready-file", "file/ready.json"]);
    assert!(said.contains("file/ready.json cannot be written"), "{said}");
}

#[test]
fn a_payload_that_is_no_json_is_said_before_anything_is_built() {
    let workspace = Workspace::new(BROKEN);
    assert_snapshot!(workspace.refusal(&["try", "echo", "{message: hi}"]), @r#"streamer: the payload is not valid JSON (key must be a string at line 1 column 2): quote it for the shell, as in '{"message":"hi"}'"#);
}

#[test]
fn a_signing_key_that_is_damaged_is_said_with_how_to_mend_it() {
    let workspace = Workspace::new(IDLE);
    fs::create_dir_all(workspace.path().join("target/streamer")).unwrap();
    fs::write(workspace.path().join("target/streamer/signing-key"), "nonsense").unwrap();
    assert_snapshot!(workspace.refusal(&["token"]), @"streamer: the signing key [workspace]/target/streamer/signing-key cannot be used: the file does not hold an Ed25519 key; delete the file, and the next start creates a new key");
}

#[test]
fn a_folder_without_a_workspace_is_said() {
    let workspace = Workspace::new(IDLE);
    fs::remove_file(workspace.path().join("Cargo.toml")).unwrap();
    let said = workspace.refusal(&["token"]);
    assert!(said.contains("no Cargo workspace contains"), "{said}");
}
