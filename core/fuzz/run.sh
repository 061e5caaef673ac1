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

for target in "${targets[@]}"; do
    mkdir -p "corpus/$target"
    log=corpus/$target.log
    # What the functions log to standard output is nobody's here.
    if ! cargo +nightly fuzz run --fuzz-dir . "$target" "corpus/$target" "seeds/$target" -- \
        -dict=json.dict -max_len=4096 -max_total_time="$seconds" -close_fd_mask=1 >"$log" 2>&1; then
        grep -v '^#[0-9]' "$log" >&2
        exit 1
    fi
    printf '%s: %s\n' "$target" "$(grep '^Done' "$log")"
done
