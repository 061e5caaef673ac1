#!/usr/bin/env bash
# Fuzzes the input that the functions receive from clients and AWS.
#
# Usage: core/fuzz/run.sh [SECONDS [TARGET…]]
#
# Each target runs for SECONDS (default 30), starting from its seeds and from inputs that earlier runs have found. A
# failing input is saved in `artifacts`. To run the input again:
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

# padded BYTES: prints a message of BYTES bytes.
padded() {
    local empty='{"action":"echo","id":"r1","payload":""}'
    printf '{"action":"echo","id":"r1","payload":"%*s"}' $(($1 - ${#empty})) ''
}

# seed_at_the_limit TARGET: writes seeds one byte below and one byte above the limit of 128 KiB for a client's message.
# libFuzzer increases the input size slowly, but starts with the size of the largest seed.
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
            # Includes space for the event around the message, and for JSON escapes in the message.
            max_len=150000
            seed_at_the_limit "$target"
            ;;
    esac
    log=corpus/$target.log
    # -close_fd_mask=1 discards the functions' log on standard output.
    if ! cargo +nightly fuzz run --fuzz-dir . "$target" "corpus/$target" "seeds/$target" -- \
        -dict=json.dict -max_len="$max_len" -max_total_time="$seconds" -close_fd_mask=1 >"$log" 2>&1; then
        grep -v '^#[0-9]' "$log" >&2
        exit 1
    fi
    printf '%s: %s\n' "$target" "$(grep '^Done' "$log")"
done
