#!/usr/bin/env bash
# The coverage gate: runs the instrumented tests once, and fails if fewer lines ran than gate.conf requires.
# README.md in this folder lists the required tools and the output files.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source coverage/gate.conf
source coverage/env.sh

# `--failure-mode all` skips unreadable profiles: a process that is killed while it creates its profile leaves an
# unreadable profile without counts.
report() {
    cargo llvm-cov report "${packages[@]/#/--package=}" --failure-mode all "$@"
}

cargo llvm-cov clean --workspace
# Doc examples run too, but are not measured, because stable Rust cannot instrument them.
cargo test
report --lcov --output-path "$out/lcov.info"
report --html --output-dir "$out"
verdict=0
awk -v root="$PWD" -v min_lines="$min_lines" -f coverage/summary.awk "$out/lcov.info" || verdict=1
report --summary-only --fail-under-lines "$min_lines" >"$out/summary.txt" ||
    { tail -n 1 "$out/summary.txt" && verdict=1; }
printf '\nFull report: %s/html/index.html\n' "$out"
((verdict == 0)) || stop "coverage is below ${min_lines} % of lines"
printf 'coverage: gate passed\n'
