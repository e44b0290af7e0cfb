"""Fixtures: a factory of gates and other programs that ends them all, and what a failed test prints."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import process
from harness.gate import Gate
from harness.process import Process
from harness.standin import SocketStandIn, StandIn
from harness.tap import Tap

# How much of each program's output a failed test shows: lines, and characters of a line.
TAIL, LINE = 40, 300


class Lab:
    """Starts what a test needs, and stops it in reverse order."""

    def __init__(self, folder):
        self._folder = folder
        self._started = []

    def folder(self, name):
        """A new folder."""
        path = self._folder / f"{len(self._started)}-{name}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _keep(self, thing):
        self._started.append(thing)
        return thing

    def gate(self, config, keys, env=None, **more):
        """A gate."""
        return self._keep(Gate(self.folder("gate"), config, keys, env, **more))

    def program(self, arguments, env=None, folder=None):
        """Any other program."""
        return self._keep(Process(arguments, folder or self.folder(Path(str(arguments[0])).name), env))

    def upstream(self, answer, certificate=None):
        """A stand-in for HTTP, over TLS with a certificate."""
        return self._keep(StandIn(answer, certificate))

    def socket_upstream(self, protocols=()):
        """A stand-in for WebSocket."""
        return self._keep(SocketStandIn(protocols))

    def tap(self, address):
        """A listener that copies what crosses to an address."""
        return self._keep(Tap(address))

    def certificate(self):
        """A folder with `cert.pem`, for 127.0.0.1 and its own authority, and `key.pem`."""
        folder = self.folder("certificate")
        subject = ["-subj", "/CN=gate.test", "-addext", "subjectAltName=IP:127.0.0.1"]
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
        subprocess.run([*make, *subject, *files], check=True, capture_output=True, timeout=20)
        (folder / "key.pem").chmod(0o600)
        return folder

    def browser(self):
        """A browser; the test is skipped, with the reason, where there is none to install."""
        if os.environ.get("KEYGATE_NO_BROWSER"):
            pytest.skip("no Chromium package on this system")
        from harness import browser

        driver = browser.start(self.folder("chromium"))
        driver.stop = driver.quit
        return self._keep(driver)

    def stop(self):
        """Stops everything; a fault of one (a key in a log, or at an upstream) is told when all are stopped."""
        faults = []
        keys = [key for gate in self._started if isinstance(gate, Gate) for key in gate.keys]
        for upstream in self._started:
            if isinstance(upstream, (StandIn, SocketStandIn)):
                leaks = [seen.target for seen in upstream.seen for key in keys if seen.holds(key.secret) or seen.holds(key.hash)]
                faults += [AssertionError(f"a key reached an upstream: {leaks}")] if leaks else []
        while self._started:
            try:
                self._started.pop().stop()
            except AssertionError as fault:
                faults.append(fault)
        if faults:
            raise faults[0]


@pytest.fixture
def lab(tmp_path):
    """What one test starts."""
    made = Lab(tmp_path)
    yield made
    made.stop()
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory):
    """What the tests of a file share."""
    folder = tmp_path_factory.mktemp("shared")
    made = Lab(folder)
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of what each program said."""
    report = (yield).get_result()
    if report.failed:
        for running in process.RUNNING:
            for stream, lines in (("log", running.err), ("output", running.out)):
                if lines:
                    tail = "\n".join(line.rstrip()[:LINE] for line in lines[-TAIL:])
                    report.sections.append((f"{running.name} {stream}", tail))
