# Sets up the instrumented build in `target/coverage/build`. Source this file in the workspace's root. Each later
# `cargo` command builds in that folder, and the programs that it runs record the executed lines.
out=$PWD/target/coverage

stop() {
    printf 'coverage: %s\n' "$*" >&2
    exit 1
}

# Finds llvm-cov and llvm-profdata, and passes their paths to cargo-llvm-cov. Otherwise cargo-llvm-cov would let rustup
# install missing tools, and without a terminal it would not ask first. The tools must have the LLVM version of rustc,
# because older tools cannot read the profiles.
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

# Uses `show-env` instead of `cargo llvm-cov test`, because tests start the `streamer` command, which runs Cargo to
# build the functions. The Cargo that the command starts must use this target folder and these settings, and must not
# write instrumented programs to the developer's target folder.
set_up_instrumentation() {
    export CARGO_LLVM_COV_SETUP=no
    export CARGO_TARGET_DIR=$out/build
    # %c keeps the counters in the profile file while the program runs, so that functions are measured although the
    # stage ends them with a signal. On Linux, %c requires relocatable counters.
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
