# Sets up an instrumented build in `target/coverage/build`: source this file in the workspace's root, and each `cargo`
# command that follows builds there and counts the lines that run.
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
}

cargo llvm-cov --version >/dev/null 2>&1 ||
    stop "cargo-llvm-cov is missing: run \`cargo install --locked cargo-llvm-cov\`"
find_llvm_tools
set_up_instrumentation
