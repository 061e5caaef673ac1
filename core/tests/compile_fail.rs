//! The mistakes that users of typed handlers and layers make, and what the compiler says of each.

use std::io::Write as _;
use std::process::Command;

/// Whose words the `.stderr` files hold: the oldest compiler that is supported, which is the one that CI has. Each has
/// words of its own.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn a_wrong_handler_or_layer_does_not_compile_and_the_compiler_says_what_would() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version);
    if version.starts_with(COMPILER) {
        trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
    } else {
        // Not `eprintln!`, which is kept from whoever runs a test that passes.
        let skipped = "what the compiler says of wrong handlers is not compared";
        writeln!(std::io::stderr(), "skipped: {skipped} under {}, but under {COMPILER}*", version.trim())
            .unwrap();
    }
}
