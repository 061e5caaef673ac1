#!/usr/bin/env bash
# The coverage gate: runs the tests once, instrumented, and fails below what gate.conf demands.
# README.md beside it says what it needs and what it leaves behind.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source coverage/gate.conf

source coverage/env.sh

# A process that is killed while it sets up its profile leaves one that cannot be read: it has counted nothing.
report() {
    cargo llvm-cov report "${packages[@]/#/--package=}" --failure-mode all "$@"
}

cargo llvm-cov clean --workspace
# The documentation's examples run too, and are not measured: stable Rust cannot instrument them.
cargo test
report --lcov --output-path "$out/lcov.info"
report --html --output-dir "$out"
verdict=0
awk -v root="$PWD" -v min_lines="$min_lines" -f coverage/summary.awk "$out/lcov.info" || verdict=1
report --summary-only --fail-under-lines "$min_lines" >"$out/summary.txt" ||
    { tail -n 1 "$out/summary.txt" && verdict=1; }
printf '\nThe whole report: %s/html/index.html\n' "$out"
((verdict == 0)) || stop "below the gate"
printf 'coverage: the gate is passed\n'
