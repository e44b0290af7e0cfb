"""Programs under test: started in a folder of their own, read line by line, ended by process id."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

# Every process that runs now, for the report of a test that failed.
RUNNING = []


def eventually(what, probe, seconds=20.0):
    """Polls `probe` until it gives something true and returns that; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def free_port():
    """A port that was free a moment ago, for programs that cannot tell which one the system chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_with_parent():
    # PR_SET_PDEATHSIG: a test run that is killed leaves nothing behind (prctl(2)).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Process:
    """A running program. Its output is collected; `stop` ends it and everything it started."""

    def __init__(self, arguments, folder, env=None):
        self.name = Path(str(arguments[0])).name
        self.folder = folder
        # A bare environment: what the machine's user has set must not change what is tested.
        clean = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.child = subprocess.Popen(
            [str(argument) for argument in arguments],
            cwd=folder,
            env=clean | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self.out, self.err = [], []
        self._readers = [
            threading.Thread(target=_collect, args=(pipe, lines), daemon=True)
            for pipe, lines in ((self.child.stdout, self.out), (self.child.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()
        RUNNING.append(self)

    def text(self):
        """All output so far, the log behind the rest."""
        return "".join(self.out + self.err)

    def wait_for(self, pattern, seconds=45.0):
        """The first match of a pattern in the output."""

        def found():
            match = re.search(pattern, self.text())
            assert match or self.child.poll() is None, f"{self.name} ended: {self.text()}"
            return match

        return eventually(f"{pattern!r} from {self.name}", found, seconds)

    def stop(self):
        """Ends the process and its group, politely at first."""
        if self in RUNNING:
            RUNNING.remove(self)
        try:
            if self.child.poll() is None:
                self.child.terminate()
                self.child.wait(5)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait(5)
        for reader in self._readers:
            reader.join(5)


def _collect(pipe, lines):
    for line in pipe:
        lines.append(line.decode(errors="replace"))
