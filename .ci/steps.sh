# Functions that `.ci/run` and `.ci/nightly` share. Both scripts source this file, run each check with `step`, and call
# `summarize` at the end.

cargo_deny=0.20.2
cargo_fuzz=0.13.2
cargo_llvm_cov=0.9.1

summary=()
failed=0

# step NAME COMMAND…: runs the command in a subshell that exits at the first error, and records its result and duration.
step() {
    local name=$1 start=$SECONDS code=0 verdict
    shift
    printf '\n==== %s\n' "$name"
    # `( … ) || code=$?` would disable `set -e` inside the subshell.
    set +e
    (
        set -e
        "$@"
    ) </dev/null
    code=$?
    set -e
    verdict=passed
    if ((code != 0)); then
        verdict=FAILED
        failed=$((failed + 1))
    fi
    printf '==== %s: %s in %d s\n' "$name" "$verdict" $((SECONDS - start))
    summary+=("$(printf '%6d s  %s  %s' $((SECONDS - start)) "$verdict" "$name")")
}

fail() {
    printf '%s\n' "$*" >&2
    return 1
}

has_nightly() { cargo +nightly --version >/dev/null 2>&1; }

install_tools() {
    # The tools are compiled without optimization. Each tool runs only once, so the faster build saves more time than
    # the slower run costs.
    cargo deny --version 2>/dev/null || cargo install --locked --debug "cargo-deny@$cargo_deny"
    cargo llvm-cov --version 2>/dev/null || cargo install --locked --debug "cargo-llvm-cov@$cargo_llvm_cov"
    local major tools missing=()
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    tools=$(rustc --print target-libdir)/../bin
    command -v "llvm-cov-$major" || [[ -x $tools/llvm-cov ]] || missing+=("llvm-$major")
    command -v npm || missing+=(nodejs npm)
    python3 -c 'import ensurepip, venv' || missing+=(python3-venv)
    # Fuzzing needs a nightly toolchain, which this script does not install, and a C++ compiler for libFuzzer.
    if has_nightly; then
        cargo fuzz --version 2>/dev/null || cargo install --locked --debug "cargo-fuzz@$cargo_fuzz"
        command -v c++ || missing+=(g++)
    fi
    if ((${#missing[@]} > 0)); then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
    fi
}

# Prints the result and duration of each step. Exits with 1 if a step failed.
summarize() {
    printf '\n%s\n' "---- total: ${SECONDS} s"
    printf '%s\n' "${summary[@]}"
    if ((failed > 0)); then
        printf '\nFAILED: %d of %d steps failed\n' "$failed" "${#summary[@]}"
        exit 1
    fi
    printf '\nPASSED: all %d steps passed\n' "${#summary[@]}"
}
