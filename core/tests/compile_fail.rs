//! Compile-fail tests: typical mistakes with handlers and layers, and the compiler's diagnostics for them.

use std::io::Write as _;
use std::process::Command;

/// Version prefix of the oldest supported compiler, which CI uses. The `.stderr` files contain the diagnostics of
/// this compiler. Other versions word the diagnostics differently.
const COMPILER: &str = "rustc 1.95.";

#[test]
#[ignore = "builds the library a second time, which takes minutes; `.ci/nightly` runs this test"]
fn invalid_handler_or_layer_fails_to_compile_with_the_expected_diagnostic() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version);
    if version.starts_with(COMPILER) {
        trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
    } else {
        // `eprintln!` is not used, because the test harness hides its output if the test passes.
        let version = version.trim();
        writeln!(
            std::io::stderr(),
            "skipped: compiler diagnostics are compared only with {COMPILER}*, not {version}"
        )
        .unwrap();
    }
}
