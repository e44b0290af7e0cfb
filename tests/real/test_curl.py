"""Debian's curl over HTTP/1.1 and HTTP/2."""

import hashlib
import json
import os
import re
import subprocess

import pytest

from harness.gate import Key, plain_and_tls

ALICE = Key("alice")
FORMAT = "\n%{json}"


@pytest.fixture(scope="module")
def certificate(shared_lab):
    """A certificate for 127.0.0.1 that is its own authority."""
    return shared_lab.certificate()


@pytest.fixture(scope="module")
def site(shared_lab, certificate):
    """A gate with a plain and a TLS listener before an upstream that tells what it got."""

    def answer(out, seen):
        told = {"method": seen.method, "digest": hashlib.sha256(seen.body).hexdigest(), "size": len(seen.body)}
        if seen.path == "/large":
            out.stream((b"x" * 65536 for _ in range(256)), "application/octet-stream")
        else:
            out.send(200, json.dumps(told))

    upstream = shared_lab.upstream(answer)
    listen = plain_and_tls(certificate)
    config = f"""
upstreams:
  app: {{ servers: ["{upstream.address}"] }}
routes:
  - {{ path: /, upstream: app }}
"""
    return upstream, shared_lab.gate(config, [ALICE], listen=listen)


@pytest.fixture(params=["http1.1", "http1.1-tls", "http2"])
def curl(request, site, certificate, tmp_path):
    """Runs curl in one of the three ways; gives body, what curl measured, and its trace."""
    _, gate = site
    plain = request.param == "http1.1"
    base = f"http://{gate.addresses[0]}" if plain else f"https://{gate.addresses[1]}"
    flags = ["--http2"] if request.param == "http2" else ["--http1.1"]
    version = "2" if request.param == "http2" else "1.1"

    def run(path, *arguments, key=ALICE.secret):
        command = ["curl", "-sS", "-v", "-w", FORMAT, "--max-time", "30", "--cacert", certificate / "cert.pem", *flags]
        command += ["-H", f"X-Api-Key: {key}"] if key else []
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        done = subprocess.run([*command, *arguments, base + path], capture_output=True, timeout=40, env=env)
        body, _, measured = done.stdout.rpartition(b"\n")
        trace = done.stderr.decode(errors="replace")
        assert done.returncode == 0, trace
        measured = json.loads(measured)
        assert measured["http_version"] == version, trace
        return body, measured, trace

    run.version = version
    return run


@pytest.fixture
def large_file(tmp_path):
    """8 MiB that compress badly."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(8 << 20))
    return path


def test_a_download_is_whole(curl):
    """16 MiB in chunks."""
    body, measured, _ = curl("/large")
    assert (measured["http_code"], len(body)) == (200, 16 << 20)


def test_an_upload_waits_for_100_and_is_whole(curl, large_file):
    """`Expect: 100-continue` is answered after admission; the upstream's digest is the file's."""
    body, measured, trace = curl("/put", "-T", large_file, "-H", "Expect: 100-continue")
    assert measured["http_code"] == 200, trace
    assert json.loads(body)["digest"] == hashlib.sha256(large_file.read_bytes()).hexdigest()
    assert measured["size_upload"] == 8 << 20
    assert re.search(r"< HTTP/\S+ 100", trace) and "Done waiting for 100-continue" not in trace


def test_an_upload_of_unknown_length(curl, large_file):
    """Chunked, or over HTTP/2 without a length."""
    chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Content-Length:"]
    body, measured, _ = curl("/pipe", "-X", "POST", "-T", large_file, *chunked)
    assert measured["http_code"] == 200 and json.loads(body)["size"] == 8 << 20


def test_a_wrong_key_is_told_before_the_body(curl, large_file, site):
    """With `Expect`, nothing of the body is sent; without, the answer is read all the same. Over HTTP/2 curl 7.88 fills the
    first window all the same, which is all that the gate grants a stranger."""
    upstream, _ = site
    before = len(upstream.seen)
    body, measured, trace = curl("/put", "-T", large_file, "-H", "Expect: 100-continue", key="kg_nobody")
    assert measured["http_code"] == 401 and measured["size_upload"] <= (65535 if curl.version == "2" else 0), trace
    assert json.loads(body)["message"] == "A valid API key is required."
    body, measured, trace = curl("/put", "-T", large_file, "-H", "Expect:", key="kg_nobody")
    assert measured["http_code"] == 401 and json.loads(body)["status"] == 401, trace
    assert len(upstream.seen) == before


def test_head_has_no_body(curl):
    """HEAD ends at once, with the length it would have."""
    _, measured, trace = curl("/head", "-I")
    assert measured["http_code"] == 200 and measured["time_total"] < 10
    assert re.search(r"< content-length: \d+", trace, re.IGNORECASE)
