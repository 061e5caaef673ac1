#!/usr/bin/env bash
# Runs the store's behavioral tests, and `streamer tables`, against two independent implementations of DynamoDB: moto and
# dynalite. docs/conformance.md lists and explains their differences. The script fails on a difference that is not
# listed, and on a listed difference that no longer occurs.
#
# The script needs Python with venv, and Node.js with npm. It installs moto and dynalite into target/conformance, in the
# versions that constraints.txt and package-lock.json pin, and stops both before it exits.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

pinned=$PWD/harness/conformance
tools=$PWD/target/conformance
explained=docs/conformance.md
work=$(mktemp -d)
servers=()
differences=0

end() {
    # Each server has its own process group, so this also stops the processes that a server has started.
    for server in "${servers[@]}"; do kill -- "-$server" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap end EXIT

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

install() {
    mkdir -p "$tools"
    if ! cmp -s "$pinned/constraints.txt" "$tools/moto/constraints.txt"; then
        python3 -m venv --clear "$tools/moto" || fail "Python's venv module is missing: install it (python3-venv on Debian)"
        "$tools/moto/bin/pip" install --quiet --disable-pip-version-check \
            --constraint "$pinned/constraints.txt" "moto[server]"
        cp "$pinned/constraints.txt" "$tools/moto"
    fi
    # npm creates node_modules/.package-lock.json at the end of an installation.
    if ! cmp -s "$pinned/package-lock.json" "$tools/package-lock.json" ||
        [[ ! -e $tools/node_modules/.package-lock.json ]]; then
        command -v npm >/dev/null || fail "npm is missing: install it (nodejs and npm on Debian)"
        cp "$pinned/package.json" "$pinned/package-lock.json" "$tools"
        npm ci --prefix "$tools" --silent --no-fund --no-audit
    fi
}

free_port() {
    python3 -c 'import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1])'
}

# moto has no locks, so two concurrent conditional writes may both succeed. `threaded=False` makes moto handle one request
# at a time.
start_moto() {
    "$tools/moto/bin/python" -c 'import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)' "$1"
}

# By default, dynalite takes half a second to create, change or delete a table. These tests do not need the delay; the
# tests of the command `tables` cover waiting.
start_dynalite() {
    node "$tools/node_modules/dynalite/cli.js" --host 127.0.0.1 --port "$1" \
        --createTableMs 0 --deleteTableMs 0 --updateTableMs 0
}

# start NAME: starts the server NAME on a free port, waits until the server accepts connections, and sets `url`.
start() {
    local port deadline=$((SECONDS + 60))
    port=$(free_port)
    url=http://127.0.0.1:$port
    set -m
    "start_$1" "$port" >"$work/$1.log" 2>&1 &
    set +m
    servers+=("$!")
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$!" 2>/dev/null && ((SECONDS < deadline)) || fail "$1 did not start: $(cat "$work/$1.log")"
        sleep 0.1
    done
}

# listed NAME: prints the differences that docs/conformance.md lists for NAME, one per line.
listed() {
    awk -v heading="## $1" '/^## / { here = $0 == heading } here && /^- `.*`$/ { print substr($0, 4, length - 4) }' \
        "$explained" | sort
}

# compare NAME FOUND: fails unless the differences that docs/conformance.md lists for the database NAME are the lines of the
# file FOUND.
compare() {
    local name=$1 found=$2 line
    while read -r line; do
        printf '%s: %s differs, but is not listed in %s\n' "$name" "$line" "$explained"
        differences=$((differences + 1))
    done < <(comm -13 <(listed "$name") <(sort -u "$found"))
    while read -r line; do
        printf '%s: %s is listed in %s, but does not differ\n' "$name" "$line" "$explained"
        differences=$((differences + 1))
    done < <(comm -23 <(listed "$name") <(sort -u "$found"))
}

store_tests() {
    local name=$1
    STREAMER_TEST_DYNAMODB_URL=$url timeout 600 \
        cargo test --quiet --test library -- store:: --format pretty --test-threads 4 \
        >"$work/$name.tests" 2>&1 || true
    grep -q '^test result: .* [1-9][0-9]* passed' "$work/$name.tests" || fail "$(cat "$work/$name.tests")"
    sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$work/$name.tests" >>"$work/$name.found"
    grep '^test result' "$work/$name.tests"
}

# tables COMMAND ARGUMENT…: runs `streamer tables`, and sets `output` and `code`.
tables() {
    code=0
    output=$(cargo run --quiet -- tables "$@" --endpoint "$url" --prefix conformance 2>&1) || code=$?
}

expect() {
    grep -qE "$1" <<<"$output" || fail "tables at $url: expected a line that matches $1, got: $output"
}

life_of_tables() {
    local name=$1
    tables check
    expect '^conformance-RequestsTable: missing$'
    tables create
    expect '^conformance-RequestsTable: created$'
    tables create
    expect '^conformance-RequestsTable: exists already$'
    tables check
    expect '^conformance-RequestsTable: (matches the template|[0-9]+ differences?)$'
    sed -n 's/^  /tables: /p' <<<"$output" >>"$work/$name.found"
    sed 's/AttributeName: part, AttributeType: S/AttributeName: part, AttributeType: N/' lambdas/template.yaml \
        >"$work/template.yaml"
    tables check --template "$work/template.yaml"
    ((code == 1)) || fail "tables check should report that the template's keys differ, got: $output"
    expect '^  keys: should be request_id S HASH, part N RANGE; is request_id S HASH, part S RANGE$'
    tables delete --yes
    ((code == 0)) || fail "tables delete failed: $output"
    tables check
    expect '^conformance-RequestsTable: missing$'
}

install
cargo build --quiet --bin streamer
for name in moto dynalite; do
    printf -- '---- %s\n' "$name"
    start "$name"
    : >"$work/$name.found"
    life_of_tables "$name"
    store_tests "$name"
    compare "$name" "$work/$name.found"
done
((differences == 0)) || fail "$differences differences are not listed, or no longer occur"
printf 'All differences are listed in %s\n' "$explained"
