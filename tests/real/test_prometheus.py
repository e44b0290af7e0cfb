"""Debian's Prometheus: it scrapes a target through the gate and remote-writes through it; the gate's own page too."""

import struct
import subprocess

import httpx
import pytest
import snappy

from harness.gate import Key
from harness.process import eventually

SCRAPER = Key("prometheus")


def fields(message):
    """The fields of a protobuf message as (number, value); fails at bytes that are none."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            found.append((number, varint()))
        elif kind == 1:
            found.append((number, message[at : at + 8]))
            at += 8
        elif kind == 2:
            length = varint()
            assert at + length <= len(message), "cut"
            found.append((number, message[at : at + length]))
            at += length
        else:
            raise AssertionError(f"wire type {kind}")
    return found


def samples(body):
    """The samples of a remote-write request: {(labels, time in ms): value}."""
    found = {}
    for number, series in fields(snappy.decompress(body)):
        if number != 1:
            continue
        parts = fields(series)
        labels = tuple(tuple(text.decode() for _, text in fields(part)) for kind, part in parts if kind == 1)
        for kind, part in parts:
            if kind == 2:
                sample = dict(fields(part))
                found[labels, sample[2]] = sample.get(1, struct.pack("<d", 0))
    return found


def test_scraping_and_remote_writing(lab):
    """A target is up and its value known; every sample written through the gate equals the one written past it."""

    def answer(out, seen):
        if seen.path == "/metrics":
            text = "# HELP rain_total Rain.\n# TYPE rain_total counter\nrain_total 42\n"
            out.send(200, text, "text/plain; version=0.0.4")
        else:
            out.send(204)

    target, past, through = lab.upstream(answer), lab.upstream(answer), lab.upstream(answer)
    config = f"""
upstreams:
  target: {{ servers: ["{target.address}"] }}
  store: {{ servers: ["{through.address}"] }}
routes:
  - {{ exact: /metrics, methods: [GET], upstream: target }}
  - {{ exact: /api/v1/write, methods: [POST], upstream: store }}
"""
    gate = lab.gate(config, [SCRAPER])
    folder = lab.folder("prometheus")
    (folder / "key").write_text(SCRAPER.secret + "\n")
    (folder / "prometheus.yml").write_text(f"""
global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
  - job_name: target
    authorization: {{ type: Bearer, credentials: "{SCRAPER.secret}" }}
    static_configs: [{{ targets: ["{gate.address}"] }}]
  - job_name: basic
    basic_auth: {{ username: anyone, password_file: {folder / "key"} }}
    static_configs: [{{ targets: ["{gate.address}"] }}]
  - job_name: refused
    authorization: {{ credentials: kg_nobody }}
    static_configs: [{{ targets: ["{gate.address}"] }}]
  - job_name: keygate
    static_configs: [{{ targets: ["{gate.admin}"] }}]
remote_write:
  - url: "http://{past.address}/api/v1/write"
    queue_config: {{ batch_send_deadline: 1s, max_shards: 1 }}
  - url: "{gate.url}/api/v1/write"
    authorization: {{ type: Apikey, credentials_file: {folder / "key"} }}
    queue_config: {{ batch_send_deadline: 1s, max_shards: 1 }}
""")
    web = "127.0.0.1:0"
    arguments = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={web}"]
    server = lab.program(["/usr/bin/prometheus", *arguments], folder=folder)
    web = server.wait_for(r"Listening on\W+address=(127\.0\.0\.1:\d+)").group(1)
    server.wait_for("Server is ready to receive")

    def health():
        found = httpx.get(f"http://{web}/api/v1/targets").json()["data"]["activeTargets"]
        return {one["labels"]["job"]: (one["health"], one["lastError"]) for one in found}

    def tried():
        found = health()
        return len(found) == 4 and "unknown" not in [state for state, _ in found.values()] and found

    state = eventually("every target was tried", tried)
    assert [state[job] for job in ("target", "basic", "keygate")] == [("up", "")] * 3, state
    assert state["refused"][0] == "down" and "401" in state["refused"][1]

    def value(query):
        found = httpx.get(f"http://{web}/api/v1/query", params={"query": query}).json()["data"]["result"]
        return found and float(found[0]["value"][1])

    page = httpx.get(f"http://{gate.admin}/metrics").content
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=20)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b""), checked

    assert eventually("a value", lambda: value('rain_total{job="target"}')) == 42
    assert eventually("the gate's own value", lambda: value('keygate_auth_total{outcome="ok"}')) >= 1

    def written(upstream):
        return {key: one for seen in upstream.seen if seen.path == "/api/v1/write" for key, one in samples(seen.body).items()}

    def common():
        direct, gated = written(past), written(through)
        both = direct.keys() & gated.keys()
        return len(both) > 50 and (direct, gated, both)

    direct, gated, both = eventually("samples both ways", common, 30)
    assert all(direct[key] == gated[key] for key in both)
    for seen in through.seen:
        assert seen.one("Content-Encoding") == "snappy" and seen.one("X-Auth-User") == "prometheus"
        assert seen.one("Authorization") is None and not seen.holds(SCRAPER.secret)
        assert int(seen.one("Content-Length")) == len(seen.body)
    line = gate.await_access(method="POST", status=204)
    assert line["bytes_in"] > min(len(seen.body) for seen in through.seen)
