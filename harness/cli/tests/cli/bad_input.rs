use std::fs;
use std::net::TcpListener;

use insta::assert_snapshot;

use crate::workspace::{BROKEN, DIES, IDLE, Workspace};

#[test]
fn port_in_use_is_reported_before_any_function_is_built() {
    let workspace = Workspace::new(BROKEN);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert_snapshot!(workspace.refusal(&["local", "--port", &port]).replace(&port, "[port]"), @"streamer: port [port] is in use; stop the program that listens on it, or choose another port with --port (0 picks a free port)");
}

#[test]
fn missing_template_error_names_the_expected_path() {
    let workspace = Workspace::new(IDLE);
    let named = workspace.refusal(&["local", "--port", "0", "--template", "nowhere/template.yaml"]);
    fs::remove_file(workspace.path().join("lambdas/template.yaml")).unwrap();
    let default = workspace.refusal(&["local", "--port", "0"]);
    assert_snapshot!(format!("{named}{default}"), @r"
    streamer: the template nowhere/template.yaml cannot be read: No such file or directory (os error 2)
    streamer: [workspace] has neither template.yaml nor lambdas/template.yaml; pass the path of your template with --template
    ");
}

#[test]
fn unsupported_template_settings_are_listed_with_their_paths() {
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
fn function_that_does_not_compile_stops_the_start_after_the_compiler_errors() {
    let workspace = Workspace::new(BROKEN);
    let output = workspace.run(&["local", "--port", "0"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("expected `u32`, found `&str`"), "{stderr}");
    assert_snapshot!(workspace.refusal(&["local", "--port", "0"]), @"streamer: the functions (only) do not build; fix the errors that Cargo printed above, in [workspace]");
}

#[test]
fn function_that_exits_at_its_start_is_reported_with_its_output() {
    let workspace = Workspace::new(DIES);
    let stderr = workspace.refusal(&["local", "--port", "0"]);
    assert!(
        stderr.contains("OnlyFunction does not start") && stderr.contains("TABLE is not set"),
        "{stderr}"
    );
}

#[test]
fn data_folder_that_is_a_file_is_refused() {
    let workspace = Workspace::new(IDLE);
    fs::write(workspace.path().join("data"), "not a folder").unwrap();
    assert_snapshot!(workspace.refusal(&["local", "--port", "0", "--data", "data"]), @"streamer: data is a file; expected a folder (created if missing)");
}

#[test]
fn unwritable_ready_file_stops_the_stage() {
    let workspace = Workspace::new(IDLE);
    fs::write(workspace.path().join("file"), "").unwrap();
    let stderr = workspace.refusal(&["local", "--port", "0", "--ready-file", "file/ready.json"]);
    assert!(stderr.contains("file/ready.json cannot be written"), "{stderr}");
}

#[test]
fn invalid_json_payload_is_refused_before_any_function_is_built() {
    let workspace = Workspace::new(BROKEN);
    assert_snapshot!(workspace.refusal(&["try", "echo", "{message: hi}"]), @r#"streamer: the payload is not valid JSON (key must be a string at line 1 column 2); quote the payload for the shell, as in '{"message":"hi"}'"#);
}

#[test]
fn error_for_a_damaged_signing_key_says_how_to_replace_the_key() {
    let workspace = Workspace::new(IDLE);
    fs::create_dir_all(workspace.path().join("target/streamer")).unwrap();
    fs::write(workspace.path().join("target/streamer/signing-key"), "nonsense").unwrap();
    assert_snapshot!(workspace.refusal(&["token"]), @"streamer: the signing key [workspace]/target/streamer/signing-key cannot be used: the file does not hold an Ed25519 key; delete the file, and the next start creates a new key");
}

#[test]
fn command_outside_a_cargo_workspace_is_refused() {
    let workspace = Workspace::new(IDLE);
    fs::remove_file(workspace.path().join("Cargo.toml")).unwrap();
    let stderr = workspace.refusal(&["token"]);
    assert!(stderr.contains("no Cargo workspace contains"), "{stderr}");
}
