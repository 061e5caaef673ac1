"""Tests that follow.py leaves no process running, however it exits: `python3 docs/test_follow.py`."""

import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
import follow  # noqa: E402

# Starts a process in its own process group, as the stage does with each function.
START_PROCESS = "set -m; sleep 300 & echo $! >{pid}.new; mv {pid}.new {pid}; "


class Cleanup(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.pid = self.folder / "pid"

    def guide(self, script):
        guide = self.folder / "guide.md"
        guide.write_text(f"```sh\n{START_PROCESS.format(pid=self.pid)}{script}\n```\n")
        return guide

    def assert_gone(self):
        stat = Path(f"/proc/{self.pid.read_text().strip()}/stat")
        is_running = stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
        self.assertFalse(is_running, "process started by the guide is still running")

    def follow(self, guide):
        place = self.folder / "place"
        place.mkdir()
        with self.assertRaises(SystemExit) as ended:
            follow.follow(guide, place)
        self.assert_gone()
        return str(ended.exception)

    def test_command_that_times_out_leaves_no_process(self):
        timeout, follow.TIMEOUT_S = follow.TIMEOUT_S, 3
        try:
            self.assertIn("timed out", self.follow(self.guide("sleep 300")))
        finally:
            follow.TIMEOUT_S = timeout

    def test_command_that_leaves_a_process_running_fails(self):
        # The remaining process must not hold the command's output open: follow.py reads the output to its end.
        guide = self.guide("true").read_text().replace("sleep 300 &", "sleep 300 >/dev/null 2>&1 &")
        (self.folder / "guide.md").write_text(guide)
        self.assertIn("command left processes running", self.follow(self.folder / "guide.md"))

    def test_sigterm_stops_the_started_processes(self):
        command = [sys.executable, follow.__file__, self.guide("sleep 300")]
        follower = subprocess.Popen(command, stderr=subprocess.PIPE)
        while not self.pid.exists() and follower.poll() is None:
            time.sleep(0.05)
        follower.send_signal(signal.SIGTERM)
        follower.communicate(timeout=60)
        self.assertEqual(follower.returncode, 128 + signal.SIGTERM)
        self.assert_gone()


if __name__ == "__main__":
    unittest.main()
