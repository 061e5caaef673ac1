#!/usr/bin/env python3
"""Runs every step of a guide in an empty folder: `python3 docs/follow.py [GUIDE]` (default: guide.md beside this file).

Exits with 1 and a message at the first step whose result differs from the guide.

- A block after a line such as "`src/lib.rs`:" is written to that file.
- A shell block (`sh`) is run.
- A JSON block is the expected output of the shell block before it.
- A text block is a line of standard error. The shell block before the text block must print this line and fail.
- The command `streamer` alone starts the local stage, which runs until the next file is written or the guide ends.
- Console blocks, and Rust blocks without a file name, are skipped.

All processes that this script starts are stopped before it exits, also on SIGTERM and SIGHUP.

Crate versions come from this workspace's lock file, so that new releases of dependencies cannot change the result.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parent.parent
TIMEOUT_S = 1200


def blocks(text):
    """Yields each fenced block as (line number, language, text, name of the file to write or None)."""
    file, fence, lines = None, None, []
    for number, line in enumerate(text.splitlines(), 1):
        if fence is None and line.startswith("```"):
            fence, lines = (number, line[3:].split(",")[0]), []
        elif fence is not None and line == "```":
            yield *fence, "\n".join(lines) + "\n", file
            file, fence = None, None
        elif fence is not None:
            lines.append(line)
        elif line:
            named = re.fullmatch(r"`([^`]+)`:", line)
            file = named and named[1]
    assert fence is None, f"code block that begins at line {fence[0]} has no closing fence"


def processes_of(session):
    """Yields the ids of the running processes of a session.

    A session contains all processes of the stage, because each function has its own process group, but not its own session.
    """
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of_session, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of_session) == session and state not in "ZX":
            yield int(stat.parent.name)


def kill_session(process):
    """Kills all processes in the session of a command, and waits until they have exited."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + 20
        while any(processes_of(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
    process.wait()


class Follower:
    def __init__(self, folder):
        self.folder = self.here = Path(folder)
        self.stage = self.last = None
        self.started = []
        (self.folder / "streamer").symlink_to(WORKSPACE)
        tools = self.folder / "tools"
        self.environment = os.environ | {
            "CARGO_INSTALL_ROOT": str(tools),
            "CARGO_TARGET_DIR": str(WORKSPACE / "target/guide"),
            "PATH": f"{tools}/bin:{os.environ['PATH']}",
        }

    def write(self, file, text):
        self.stop_stage()
        file = self.here / file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def start(self, command, **options):
        process = subprocess.Popen(
            command, cwd=self.here, env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
        self.started.append(process)
        return process

    def check_nothing_left(self, process):
        left = list(processes_of(process.pid))
        assert not left, f"command left processes running: {left}"
        self.started.remove(process)

    def run(self, script):
        *commands, last = script.strip().splitlines()
        if last == "streamer":
            if commands:
                self.run("\n".join(commands))
                self.expect_success()
            self.start_stage()
            return
        pwd = self.folder / "pwd"
        script = f"set -e\n{script}\npwd >{pwd}\n"
        process = self.start(["bash", "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output = process.communicate(timeout=TIMEOUT_S)
        self.check_nothing_left(process)
        self.last = subprocess.CompletedProcess(process.args, process.returncode, *output)
        if self.last.returncode == 0:
            before, self.here = self.here, Path(pwd.read_text().strip())
            if self.here != before:
                shutil.copy(WORKSPACE / "Cargo.lock", self.here)

    def expect_success(self):
        last, self.last = self.last, None
        assert last is None or last.returncode == 0, f"command failed:\n{last.stdout}{last.stderr}"

    def expect_json(self, expected):
        last = self.last
        self.expect_success()
        assert json.loads(last.stdout) == json.loads(expected), f"command's JSON output differs from the guide:\n{last.stdout}{last.stderr}"

    def expect_failure(self, expected):
        last, self.last = self.last, None
        assert last.returncode != 0, f"command should fail, but succeeded:\n{last.stdout}"
        found = expected.strip() in last.stderr.splitlines()
        assert found, f"expected line is missing in the command's standard error:\n{last.stderr}"

    def start_stage(self):
        log = self.folder / "stage.log"
        with log.open("w") as output:
            self.stage = self.start(["streamer"], stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + TIMEOUT_S
        while "\nPress Ctrl-C to stop the stage" not in log.read_text():
            running = self.stage.poll() is None and time.monotonic() < deadline
            assert running, f"stage did not start:\n{log.read_text()}"
            time.sleep(0.2)

    def stop_stage(self):
        if self.stage is None:
            return
        self.stage.send_signal(signal.SIGINT)
        code = self.stage.wait(timeout=60)
        self.check_nothing_left(self.stage)
        self.stage = None
        assert code == 0, f"stage exited with code {code}"


def follow(guide, folder):
    follower = Follower(folder)
    steps = {"sh": follower.run, "json": follower.expect_json, "text": follower.expect_failure}
    try:
        for line, language, text, file in blocks(guide.read_text()):
            started = time.monotonic()
            try:
                if language not in ("json", "text"):
                    follower.expect_success()
                if file:
                    follower.write(file, text)
                elif language in steps:
                    steps[language](text)
                else:
                    # A Rust block without a file is not written here: docs/lib.rs compiles all Rust blocks as doctests.
                    assert language in ("console", "rust"), f"{language} block has no file name before it"
            except (AssertionError, subprocess.TimeoutExpired, ValueError) as problem:
                sys.exit(f"{guide.name}, line {line}: {text}\n{problem}")
            print(f"line {line}: {file or language}, {time.monotonic() - started:.1f} s", flush=True)
        follower.expect_success()
        follower.stop_stage()
    finally:
        for process in follower.started:
            kill_session(process)


def exit_on_signal(number, _):
    # Ignore further signals, so that they cannot interrupt the cleanup.
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, exit_on_signal)
    guide = Path(sys.argv[1]) if sys.argv[1:] else WORKSPACE / "docs/guide.md"
    with tempfile.TemporaryDirectory() as folder:
        follow(guide, folder)
