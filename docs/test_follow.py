"""However a guide ends, what it has started ends with it: `python3 docs/test_follow.py`."""

import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
import follow  # noqa: E402

# As the stage's functions: a process group of its own.
STARTS = "set -m; sleep 300 & echo $! >{pid}.new; mv {pid}.new {pid}; "


class End(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.pid = self.folder / "pid"

    def guide(self, script):
        guide = self.folder / "guide.md"
        guide.write_text(f"```sh\n{STARTS.format(pid=self.pid)}{script}\n```\n")
        return guide

    def assert_gone(self):
        stat = Path(f"/proc/{self.pid.read_text().strip()}/stat")
        self.assertFalse(stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z", "it runs still")

    def follow(self, guide):
        place = self.folder / "place"
        place.mkdir()
        with self.assertRaises(SystemExit) as ended:
            follow.follow(guide, place)
        self.assert_gone()
        return str(ended.exception)

    def test_a_command_that_takes_too_long(self):
        patience, follow.PATIENCE_S = follow.PATIENCE_S, 3
        try:
            self.assertIn("timed out", self.follow(self.guide("sleep 300")))
        finally:
            follow.PATIENCE_S = patience

    def test_a_command_that_leaves_something(self):
        # What it left holds none of its output open.
        guide = self.guide("true").read_text().replace("sleep 300 &", "sleep 300 >/dev/null 2>&1 &")
        (self.folder / "guide.md").write_text(guide)
        self.assertIn("it left processes behind", self.follow(self.folder / "guide.md"))

    def test_a_signal(self):
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
