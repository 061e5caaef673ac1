#!/usr/bin/env bash
# Runs the store's behavioural tests, and `streamer tables`, against two implementations of DynamoDB that know nothing
# of ours: moto and dynalite. What they do otherwise is listed and explained in docs/conformance.md; this fails on
# whatever is not listed there, and on whatever is listed and does not happen any more.
#
# It needs Python with venv, and Node.js with npm. It installs the two into target/conformance, in the versions that
# constraints.txt and package-lock.json name, and leaves nothing running.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

pinned=$PWD/harness/conformance
tools=$PWD/target/conformance
explained=docs/conformance.md
work=$(mktemp -d)
servers=()
differences=0

end() {
    # Each is a process group of its own: nothing that it started outlives it.
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
        python3 -m venv --clear "$tools/moto" || fail "Python has no venv: install it (python3-venv on Debian)"
        "$tools/moto/bin/pip" install --quiet --disable-pip-version-check \
            --constraint "$pinned/constraints.txt" "moto[server]"
        cp "$pinned/constraints.txt" "$tools/moto"
    fi
    # npm writes the latter when all is installed.
    if ! cmp -s "$pinned/package-lock.json" "$tools/package-lock.json" ||
        [[ ! -e $tools/node_modules/.package-lock.json ]]; then
        command -v npm >/dev/null || fail "there is no npm: install it (nodejs and npm on Debian)"
        cp "$pinned/package.json" "$pinned/package-lock.json" "$tools"
        npm ci --prefix "$tools" --silent --no-fund --no-audit
    fi
}

free_port() {
    python3 -c 'import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1])'
}

# moto has no locks, so that two conditional writes at once may both succeed: it gets one request at a time.
start_moto() {
    "$tools/moto/bin/python" -c 'import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)' "$1"
}

# By default its tables take half a second to change; the tests of `tables` wait on purpose elsewhere.
start_dynalite() {
    node "$tools/node_modules/dynalite/cli.js" --host 127.0.0.1 --port "$1" \
        --createTableMs 0 --deleteTableMs 0 --updateTableMs 0
}

# start NAME: starts it on a free port, and sets `url` once it answers.
start() {
    local port deadline=$((SECONDS + 60))
    port=$(free_port)
    url=http://127.0.0.1:$port
    set -m
    "start_$1" "$port" >"$work/$1.log" 2>&1 &
    set +m
    servers+=("$!")
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$!" 2>/dev/null && ((SECONDS < deadline)) || fail "$1 does not start: $(cat "$work/$1.log")"
        sleep 0.1
    done
}

# What is listed as a difference of NAME.
listed() {
    awk -v heading="## $1" '/^## / { here = $0 == heading } here && /^- `.*`$/ { print substr($0, 4, length - 4) }' \
        "$explained" | sort
}

# compare NAME FOUND: FOUND has what differs, a line each.
compare() {
    local name=$1 found=$2 line
    while read -r line; do
        printf '%s: %s differs, and %s does not say why\n' "$name" "$line" "$explained"
        differences=$((differences + 1))
    done < <(comm -13 <(listed "$name") <(sort -u "$found"))
    while read -r line; do
        printf '%s: %s is in %s, and does not differ\n' "$name" "$line" "$explained"
        differences=$((differences + 1))
    done < <(comm -23 <(listed "$name") <(sort -u "$found"))
}

behaviour() {
    local name=$1
    STREAMER_TEST_DYNAMODB_URL=$url timeout 600 \
        cargo test --quiet --test library -- store:: --format pretty --test-threads 4 \
        >"$work/$name.tests" 2>&1 || true
    grep -q '^test result: .* [1-9][0-9]* passed' "$work/$name.tests" || fail "$(cat "$work/$name.tests")"
    sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$work/$name.tests" >>"$work/$name.found"
    grep '^test result' "$work/$name.tests"
}

# tables COMMAND ARGUMENT…: sets `said` and `code`.
tables() {
    code=0
    said=$(cargo run --quiet -- tables "$@" --endpoint "$url" --prefix conformance 2>&1) || code=$?
}

expect() {
    grep -qE "$1" <<<"$said" || fail "tables at $url should say $1, and says: $said"
}

life_of_tables() {
    local name=$1
    tables check
    expect '^conformance-RequestsTable: missing$'
    tables create
    expect '^conformance-RequestsTable: made$'
    tables create
    expect '^conformance-RequestsTable: stands already$'
    tables check
    expect '^conformance-RequestsTable: (as the template says|[0-9]+ differences?)$'
    sed -n 's/^  /tables: /p' <<<"$said" >>"$work/$name.found"
    sed 's/AttributeName: part, AttributeType: S/AttributeName: part, AttributeType: N/' lambdas/template.yaml \
        >"$work/template.yaml"
    tables check --template "$work/template.yaml"
    ((code == 1)) || fail "another template is taken for the same: $said"
    expect '^  keys: should be request_id S HASH, part N RANGE; is request_id S HASH, part S RANGE$'
    tables delete --yes
    ((code == 0)) || fail "the tables are not deleted: $said"
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
    behaviour "$name"
    compare "$name" "$work/$name.found"
done
((differences == 0)) || fail "$differences differences are not explained, or no more"
printf 'No difference but those that %s explains\n' "$explained"
