#!/usr/bin/env bash
# Fuzzes the input that the functions receive from clients and AWS.
#
# Usage: core/fuzz/run.sh [SECONDS [TARGET…]]
#
# Each fuzz target runs for SECONDS (default 30), starting from its seed inputs and from inputs that earlier runs have
# found. An input that makes a target fail is saved in `artifacts`. To repeat a failure:
#
#     cargo +nightly fuzz run --fuzz-dir core/fuzz TARGET FILE
#
# Fuzzing requires a nightly toolchain and cargo-fuzz. Without a nightly toolchain, the script runs the property tests
# instead, with more cases than `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:-30}
shift $(($# > 0))
targets=("$@")

if ! cargo +nightly --version 2>/dev/null; then
    printf '%s\n' "No nightly toolchain is installed; running the property tests instead."
    exec env PROPTEST_CASES=5000 cargo test --manifest-path ../Cargo.toml --lib
fi
if ((${#targets[@]} == 0)); then
    mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir .)
fi

# padded BYTES: prints a client message that is BYTES bytes long.
padded() {
    local empty='{"action":"echo","id":"r1","payload":""}'
    printf '{"action":"echo","id":"r1","payload":"%*s"}' $(($1 - ${#empty})) ''
}

# seed_at_the_limit TARGET: writes two seed inputs, one byte below and one byte above the limit of 128 KiB for a
# client's message. Without large seed inputs, libFuzzer would need long to reach this size.
seed_at_the_limit() {
    local bytes text event
    for bytes in 131071 131073; do
        text=$(padded "$bytes")
        case $1 in
            message) printf '%s' "$text" ;;
            gateway_event)
                event=$(<seeds/gateway_event/message_quick.json)
                printf '%s' "${event/\"body\":\"*\",\"isBase64/\"body\":\"${text//\"/\\\"}\",\"isBase64}" ;;
        esac >"corpus/$1/$bytes"
    done
}

for target in "${targets[@]}"; do
    mkdir -p "corpus/$target"
    max_len=4096
    case $target in
        message | gateway_event)
            # Larger than a message of 128 KiB, because the event around the message and JSON escapes need space too.
            max_len=150000
            seed_at_the_limit "$target"
            ;;
    esac
    log=corpus/$target.log
    # -close_fd_mask=1 discards the log lines that the functions write to standard output.
    if ! cargo +nightly fuzz run --fuzz-dir . "$target" "corpus/$target" "seeds/$target" -- \
        -dict=json.dict -max_len="$max_len" -max_total_time="$seconds" -close_fd_mask=1 >"$log" 2>&1; then
        grep -v '^#[0-9]' "$log" >&2
        exit 1
    fi
    printf '%s: %s\n' "$target" "$(grep '^Done' "$log")"
done
