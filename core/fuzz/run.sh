#!/usr/bin/env bash
# Fuzzes what clients and AWS send to the functions: `core/fuzz/run.sh [SECONDS [TARGET…]]`, each target for 30 s
# by default, from the seeds and from what earlier runs have found. An input that fails is left in `artifacts`;
# `cargo +nightly fuzz run --fuzz-dir core/fuzz TARGET FILE` runs it again.
#
# It needs a nightly toolchain and cargo-fuzz. Where there is no nightly, the property tests run instead, with
# more cases than in `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:-30}
shift $(($# > 0))
targets=("$@")

if ! cargo +nightly --version 2>/dev/null; then
    printf '%s\n' "No nightly toolchain is installed: the property tests run instead."
    exec env PROPTEST_CASES=5000 cargo test --manifest-path ../Cargo.toml --lib
fi
if ((${#targets[@]} == 0)); then
    mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir .)
fi

# padded BYTES: a message of that many bytes.
padded() {
    local empty='{"action":"echo","id":"r1","payload":""}'
    printf '{"action":"echo","id":"r1","payload":"%*s"}' $(($1 - ${#empty})) ''
}

# What takes a client's message takes up to 128 KiB of it. libFuzzer lets inputs grow slowly, but from the start to the
# size of the largest seed: these are one byte below and one above.
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
            # With room for the event around a message, and for what JSON escapes in it.
            max_len=150000
            seed_at_the_limit "$target"
            ;;
    esac
    log=corpus/$target.log
    # What the functions log to standard output is nobody's here.
    if ! cargo +nightly fuzz run --fuzz-dir . "$target" "corpus/$target" "seeds/$target" -- \
        -dict=json.dict -max_len="$max_len" -max_total_time="$seconds" -close_fd_mask=1 >"$log" 2>&1; then
        grep -v '^#[0-9]' "$log" >&2
        exit 1
    fi
    printf '%s: %s\n' "$target" "$(grep '^Done' "$log")"
done
