# What `.ci/run` and `.ci/nightly` share; both source this file. Each check is a step: a failed step does not end the
# script, and `summarize` at the end lists every step with its result and its time.

cargo_deny=0.20.2
cargo_fuzz=0.13.2
cargo_llvm_cov=0.9.1

summary=()
failed=0

# step NAME COMMAND…: runs the command in a shell of its own that ends at the first error.
step() {
    local name=$1 start=$SECONDS code=0 verdict
    shift
    printf '\n==== %s\n' "$name"
    # Not `( … ) || …`: that would switch off `-e` within.
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
    # Run once each: compiling them without optimisation costs less than it saves.
    cargo deny --version 2>/dev/null || cargo install --locked --debug "cargo-deny@$cargo_deny"
    cargo llvm-cov --version 2>/dev/null || cargo install --locked --debug "cargo-llvm-cov@$cargo_llvm_cov"
    local major tools missing=()
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    tools=$(rustc --print target-libdir)/../bin
    command -v "llvm-cov-$major" || [[ -x $tools/llvm-cov ]] || missing+=("llvm-$major")
    command -v npm || missing+=(nodejs npm)
    python3 -c 'import ensurepip, venv' || missing+=(python3-venv)
    # Fuzzing needs a nightly toolchain, which is not installed here where there is none; and libFuzzer is C++.
    if has_nightly; then
        cargo fuzz --version 2>/dev/null || cargo install --locked --debug "cargo-fuzz@$cargo_fuzz"
        command -v c++ || missing+=(g++)
    fi
    if ((${#missing[@]} > 0)); then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
    fi
}

# Lists the steps. Ends the script with 1 if one failed.
summarize() {
    printf '\n%s\n' "---- ${SECONDS} s in all"
    printf '%s\n' "${summary[@]}"
    if ((failed > 0)); then
        printf '\nFAILED: %d of %d steps\n' "$failed" "${#summary[@]}"
        exit 1
    fi
    printf '\nPASSED: all %d steps\n' "${#summary[@]}"
}
