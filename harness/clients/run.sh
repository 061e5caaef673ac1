#!/usr/bin/env bash
# Tests the local stage with independent clients: boto3, the AWS SDK for JavaScript, and the WebSocket clients
# `websockets` and `ws`. Starts one stage, and runs each `test_*.py` and `test_*.mjs` in this folder against it.
#
# Usage: run.sh [FILE…], such as `run.sh test_sqs.py`. Without arguments, all files are run.
#
# The script needs Python with venv, and Node.js with npm. It installs the clients into target/clients, in the versions
# that constraints.txt and package-lock.json pin, and stops the stage before it exits.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

pinned=$PWD/harness/clients
tools=$PWD/target/clients
work=$(mktemp -d)
stage=
failed=()

end() {
    # The stage has its own process group, so this also stops the functions that the stage has started.
    if [[ -n $stage ]]; then
        kill -INT -- "-$stage" 2>/dev/null || true
        timeout 20 tail --pid="$stage" -f /dev/null || kill -KILL -- "-$stage" 2>/dev/null || true
    fi
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
    if ! cmp -s "$pinned/constraints.txt" "$tools/python/constraints.txt"; then
        python3 -m venv --clear "$tools/python" || fail "Python's venv module is missing: install it (python3-venv on Debian)"
        "$tools/python/bin/pip" install --quiet --disable-pip-version-check \
            --constraint "$pinned/constraints.txt" boto3 websockets
        cp "$pinned/constraints.txt" "$tools/python"
    fi
    # npm creates node_modules/.package-lock.json at the end of an installation.
    if ! cmp -s "$pinned/package-lock.json" "$tools/package-lock.json" ||
        [[ ! -e $tools/node_modules/.package-lock.json ]]; then
        command -v npm >/dev/null || fail "npm is missing: install it (nodejs and npm on Debian)"
        cp "$pinned/package.json" "$pinned/package-lock.json" "$tools"
        npm ci --prefix "$tools" --silent --no-fund --no-audit
    fi
}

# ready KEY: prints a value of the ready file, the JSON file that the stage writes when it is ready.
ready() {
    python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/ready.json" "$1"
}

start_stage() {
    local deadline=$((SECONDS + 900))
    # Job control gives the stage its own process group, with SIGINT enabled.
    set -m
    cargo run --quiet -- local --port 0 --ready-file "$work/ready.json" >"$work/stage.log" 2>&1 &
    stage=$!
    set +m
    until [[ -e $work/ready.json ]]; do
        kill -0 "$stage" 2>/dev/null || fail "stage did not start: $(cat "$work/stage.log")"
        ((SECONDS < deadline)) || fail "stage did not start within 900 s: $(cat "$work/stage.log")"
        sleep 0.1
    done
    STREAMER_ENDPOINT=$(ready dynamodb_url)
    STREAMER_MANAGEMENT_URL=$(ready management_url)
    STREAMER_WS_URL=$(ready ws_url)
    STREAMER_TOKEN=$(ready token)
    export STREAMER_ENDPOINT STREAMER_MANAGEMENT_URL STREAMER_WS_URL STREAMER_TOKEN
}

# Replaces the user's AWS settings, so that the SDKs use only the test values.
clean_environment() {
    local name
    for name in "${!AWS_@}"; do unset "$name"; done
    export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
    export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
    export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
}

# run FILE: runs one test file, and appends its name to `failed` if a test fails.
run() {
    local code=0
    printf -- '---- %s\n' "$1"
    case $1 in
    *.py) (cd "$pinned" && PYTHONDONTWRITEBYTECODE=1 timeout 600 "$tools/python/bin/python" -m unittest "${1%.py}") || code=$? ;;
    # --test-force-exit ends Node.js even if clients keep connections open. The files are copied to $tools, because the
    # packages are installed there and Node.js looks for packages relative to the test file.
    *.mjs) cp "$pinned/"*.mjs "$tools" && timeout 600 node --no-warnings --test-force-exit --test "$tools/$1" || code=$? ;;
    *) fail "unknown test file $1: expected test_*.py or test_*.mjs" ;;
    esac
    ((code == 0)) || failed+=("$1")
}

if (($# > 0)); then tests=("$@"); else tests=("$pinned"/test_*.py "$pinned"/test_*.mjs); fi
install
clean_environment
start_stage
for test in "${tests[@]}"; do run "$(basename "$test")"; done
if ((${#failed[@]} > 0)); then
    printf '\n---- last lines of the stage log\n'
    tail -n 50 "$work/stage.log"
    fail "tests of independent clients failed: ${failed[*]}"
fi
printf 'Independent clients: all %d test files passed\n' "${#tests[@]}"
