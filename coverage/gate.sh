#!/usr/bin/env bash
# The coverage gate: runs the tests once, instrumented, and fails below what gate.conf demands.
# README.md beside it says what it needs and what it leaves behind.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source coverage/gate.conf
out=$PWD/target/coverage

stop() {
    printf 'coverage: %s\n' "$*" >&2
    exit 1
}

# cargo-llvm-cov would have rustup install what is missing, in silence where nobody can be asked. So the tools
# are looked for here, and it is given both by path. They must be of the LLVM that rustc is built with: an
# older one cannot read the profiles.
find_llvm_tools() {
    if [[ -n ${LLVM_COV:-} && -n ${LLVM_PROFDATA:-} ]]; then
        return
    fi
    local major rustlib
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    rustlib=$(rustc --print target-libdir)/../bin
    if command -v "llvm-cov-$major" "llvm-profdata-$major" >/dev/null; then
        LLVM_COV=$(command -v "llvm-cov-$major")
        LLVM_PROFDATA=$(command -v "llvm-profdata-$major")
    elif [[ -x $rustlib/llvm-cov && -x $rustlib/llvm-profdata ]]; then
        LLVM_COV=$rustlib/llvm-cov
        LLVM_PROFDATA=$rustlib/llvm-profdata
    else
        stop "rustc's LLVM tools are missing: run \`rustup component add llvm-tools\`," \
            "or install your system's package llvm-$major"
    fi
    export LLVM_COV LLVM_PROFDATA
}

# `show-env` rather than `cargo llvm-cov test`: a test that starts the `streamer` command makes it build the
# functions with a Cargo of its own, which must find this build, and not put instrumented programs into the
# developer's.
set_up_instrumentation() {
    export CARGO_LLVM_COV_SETUP=no
    export CARGO_TARGET_DIR=$out/build
    # %c keeps the counters in the profile file itself while the program runs, so that a function which the
    # stage ends with a signal is measured as well. On Linux that needs counters that can be moved.
    export LLVM_PROFILE_FILE_NAME=%p%c.profraw
    export RUSTFLAGS="${RUSTFLAGS:-} -Cllvm-args=-runtime-counter-relocation"
    local environment
    environment=$(cargo llvm-cov show-env --sh)
    eval "$environment"
    cargo llvm-cov clean --workspace
}

# A process that is killed while it sets up its profile leaves one that cannot be read: it has counted nothing.
report() {
    cargo llvm-cov report "${packages[@]/#/--package=}" --failure-mode all "$@"
}

cargo llvm-cov --version >/dev/null 2>&1 ||
    stop "cargo-llvm-cov is missing: run \`cargo install --locked cargo-llvm-cov\`"
find_llvm_tools
set_up_instrumentation
# Without the documentation's examples: stable Rust cannot instrument them. Nor what must not compile: it would have
# the compiler build everything once more, and measures nothing.
cargo test --tests -- --skip a_wrong_handler_or_layer_does_not_compile
report --lcov --output-path "$out/lcov.info"
report --html --output-dir "$out"
verdict=0
awk -v root="$PWD" -v min_lines="$min_lines" -f coverage/summary.awk "$out/lcov.info" || verdict=1
report --summary-only --fail-under-lines "$min_lines" >"$out/summary.txt" ||
    { tail -n 1 "$out/summary.txt" && verdict=1; }
printf '\nThe whole report: %s/html/index.html\n' "$out"
((verdict == 0)) || stop "below the gate"
printf 'coverage: the gate is passed\n'
