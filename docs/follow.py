#!/usr/bin/env python3
"""Follows guide.md, or the guide that is named, to the letter, in an empty folder.

It ends with what did not come out as it says.

The shell blocks are run, one after another; a block that follows a line such as `src/lib.rs`: becomes that file. A JSON
block after a shell block is what that must print; a text block is what it must say when it fails. The command `streamer`
alone keeps running until a file is written or the guide ends. Console blocks are for people. However it ends, SIGTERM
included, nothing that it has started outlives it.

The crates' versions are those of this workspace's lock file, so that the outcome hangs on nothing else.
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
PATIENCE_S = 1200


def blocks(text):
    """Each fenced block: its line, its language, its text, and the file that it is to become."""
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
    assert fence is None, f"the block of line {fence[0]} does not end"


def living(session):
    """The processes of a session: a function of the stage is a process group of its own, but not a session."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of_session, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of_session) == session and state not in "ZX":
            yield int(stat.parent.name)


def end(process):
    """Ends a command and whatever it has started, and waits until that is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for one in living(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)
        deadline = time.monotonic() + 20
        while any(living(process.pid)) and time.monotonic() < deadline:
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
        self.end_stage()
        file = self.here / file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def start(self, command, **options):
        process = subprocess.Popen(
            command, cwd=self.here, env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
        self.started.append(process)
        return process

    def ended(self, process):
        left = list(living(process.pid))
        assert not left, f"it left processes behind: {left}"
        self.started.remove(process)

    def run(self, script):
        *commands, last = script.strip().splitlines()
        if last == "streamer":
            if commands:
                self.run("\n".join(commands))
                self.succeeded()
            self.start_stage()
            return
        where = self.folder / "where"
        script = f"set -e\n{script}\npwd >{where}\n"
        process = self.start(["bash", "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output = process.communicate(timeout=PATIENCE_S)
        self.ended(process)
        self.last = subprocess.CompletedProcess(process.args, process.returncode, *output)
        if self.last.returncode == 0:
            before, self.here = self.here, Path(where.read_text().strip())
            if self.here != before:
                shutil.copy(WORKSPACE / "Cargo.lock", self.here)

    def succeeded(self):
        last, self.last = self.last, None
        assert last is None or last.returncode == 0, f"it failed:\n{last.stdout}{last.stderr}"

    def printed(self, expected):
        last = self.last
        self.succeeded()
        assert json.loads(last.stdout) == json.loads(expected), f"it printed:\n{last.stdout}{last.stderr}"

    def refused(self, expected):
        last, self.last = self.last, None
        assert last.returncode != 0, f"it succeeded:\n{last.stdout}"
        assert expected.strip() in last.stderr.splitlines(), f"it said:\n{last.stderr}"

    def start_stage(self):
        log = self.folder / "stage.log"
        with log.open("w") as output:
            self.stage = self.start(["streamer"], stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + PATIENCE_S
        while "\nCtrl-C ends it" not in log.read_text():
            running = self.stage.poll() is None and time.monotonic() < deadline
            assert running, f"the stage is not up:\n{log.read_text()}"
            time.sleep(0.2)

    def end_stage(self):
        if self.stage is None:
            return
        self.stage.send_signal(signal.SIGINT)
        code = self.stage.wait(timeout=60)
        self.ended(self.stage)
        self.stage = None
        assert code == 0, f"the stage ended with {code}"


def follow(guide, folder):
    follower = Follower(folder)
    steps = {"sh": follower.run, "json": follower.printed, "text": follower.refused}
    try:
        for line, language, text, file in blocks(guide.read_text()):
            started = time.monotonic()
            try:
                if language not in ("json", "text"):
                    follower.succeeded()
                if file:
                    follower.write(file, text)
                elif language in steps:
                    steps[language](text)
                else:
                    # Rust that is to be read alone is compiled all the same: all of the guide's is, as doctests.
                    assert language in ("console", "rust"), f"a {language} block has no file"
            except (AssertionError, subprocess.TimeoutExpired, ValueError) as problem:
                sys.exit(f"{guide.name}, line {line}: {text}\n{problem}")
            print(f"line {line}: {file or language}, {time.monotonic() - started:.1f} s", flush=True)
        follower.succeeded()
        follower.end_stage()
    finally:
        for process in follower.started:
            end(process)


def terminated(number, _):
    # Once: what ends the rest is not to be cut short.
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminated)
    guide = Path(sys.argv[1]) if sys.argv[1:] else WORKSPACE / "docs/guide.md"
    with tempfile.TemporaryDirectory() as folder:
        follow(guide, folder)
