use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::workspace::{IDLE, Workspace};

#[test]
fn token_holds_the_user_tenant_permissions_and_lifetime() {
    let workspace = Workspace::new(IDLE);
    let claims = |arguments: &[&str]| -> Value {
        let output = workspace.run(&[&["token"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        let token = String::from_utf8(output.stdout).unwrap();
        let claims = token.trim().split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
    };
    let full = claims(&["--user", "ann", "--tenant", "acme", "--permissions", "a,b", "--ttl", "90s"]);
    assert_eq!([&full["sub"], &full["tenant_id"]], ["ann", "acme"]);
    assert_eq!(full["permissions"], json!(["a", "b"]));
    let seconds = |claims: &Value| claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(seconds(&full), 90);
    let plain = claims(&[]);
    assert_eq!((seconds(&plain), &plain["permissions"]), (3600, &json!([])));
}

#[test]
fn invalid_token_argument_is_refused_and_named() {
    let workspace = Workspace::new(IDLE);
    for (arguments, named) in [
        (["--ttl", "soon"], "--ttl <TTL>"),
        (["--ttl", "0s"], "expected a duration from 1s to 365d"),
        (["--user", ""], "--user <USER>"),
        (["--nonsense", "x"], "--nonsense"),
    ] {
        let output = workspace.run(&[&["token"][..], &arguments].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(named), "{stderr}");
    }
}
