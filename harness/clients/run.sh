#!/usr/bin/env bash
# Drives the local stage with clients that know nothing of it: boto3 and the AWS SDK for JavaScript, and the WebSocket
# clients `websockets` and `ws`. Each `test_*.py` and `test_*.mjs` beside this file is run against one stage.
#
# It needs Python with venv, and Node.js with npm. It installs the clients into target/clients, in the versions that
# constraints.txt and package-lock.json name, and leaves nothing running. Arguments name the files to run, such as
# `test_sqs.py`; without any, all are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

pinned=$PWD/harness/clients
tools=$PWD/target/clients
work=$(mktemp -d)
stage=
failed=()

end() {
    # A process group of its own: the functions that it started end with it.
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
        python3 -m venv --clear "$tools/python" || fail "Python has no venv: install it (python3-venv on Debian)"
        "$tools/python/bin/pip" install --quiet --disable-pip-version-check \
            --constraint "$pinned/constraints.txt" boto3 websockets
        cp "$pinned/constraints.txt" "$tools/python"
    fi
    # npm writes the latter when all is installed.
    if ! cmp -s "$pinned/package-lock.json" "$tools/package-lock.json" ||
        [[ ! -e $tools/node_modules/.package-lock.json ]]; then
        command -v npm >/dev/null || fail "there is no npm: install it (nodejs and npm on Debian)"
        cp "$pinned/package.json" "$pinned/package-lock.json" "$tools"
        npm ci --prefix "$tools" --silent --no-fund --no-audit
    fi
}

# of_ready KEY: what the ready file says of the stage.
of_ready() {
    python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/ready.json" "$1"
}

start_stage() {
    local deadline=$((SECONDS + 900))
    # Job control gives it a process group, and the signals that a terminal would.
    set -m
    cargo run --quiet -- local --port 0 --ready-file "$work/ready.json" >"$work/stage.log" 2>&1 &
    stage=$!
    set +m
    until [[ -e $work/ready.json ]]; do
        kill -0 "$stage" 2>/dev/null || fail "the stage does not start: $(cat "$work/stage.log")"
        ((SECONDS < deadline)) || fail "the stage takes too long to start: $(cat "$work/stage.log")"
        sleep 0.1
    done
    STREAMER_ENDPOINT=$(of_ready dynamodb_url)
    STREAMER_MANAGEMENT_URL=$(of_ready management_url)
    STREAMER_WS_URL=$(of_ready ws_url)
    STREAMER_TOKEN=$(of_ready token)
    export STREAMER_ENDPOINT STREAMER_MANAGEMENT_URL STREAMER_WS_URL STREAMER_TOKEN
}

# What the SDKs read of the environment: nothing of the user's own.
clean_environment() {
    local name
    for name in "${!AWS_@}"; do unset "$name"; done
    export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
    export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
    export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
}

# run FILE: runs one file of tests, and notes whether it failed.
run() {
    local code=0
    printf -- '---- %s\n' "$1"
    case $1 in
    *.py) (cd "$pinned" && PYTHONDONTWRITEBYTECODE=1 timeout 600 "$tools/python/bin/python" -m unittest "${1%.py}") || code=$? ;;
    # A connection that a client keeps open would keep Node.js from ending. And it looks for packages beside the file, not beside whoever runs it.
    *.mjs) cp "$pinned/"*.mjs "$tools" && timeout 600 node --no-warnings --test-force-exit --test "$tools/$1" || code=$? ;;
    *) fail "$1 is no test of a client" ;;
    esac
    ((code == 0)) || failed+=("$1")
}

if (($# > 0)); then tests=("$@"); else tests=("$pinned"/test_*.py "$pinned"/test_*.mjs); fi
install
clean_environment
start_stage
for test in "${tests[@]}"; do run "$(basename "$test")"; done
if ((${#failed[@]} > 0)); then
    printf '\n---- the end of what the stage says\n'
    tail -n 50 "$work/stage.log"
    fail "the stage is not what independent clients expect: ${failed[*]}"
fi
printf 'Independent clients agree with the stage: %d files of tests\n' "${#tests[@]}"
