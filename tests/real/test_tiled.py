"""A Tiled server with a key of its own behind the gate, its Python client and its web page before it."""

import sys
import threading
import time
from pathlib import Path

import httpx
import numpy
import pandas
import pytest
from tiled.client import from_uri

from harness.gate import Key
from harness.process import eventually

TILED_KEY = "5d1fa96ab0e64c1a9bd2d3c8e4f6a7b8"
ALICE = Key("alice")


@pytest.fixture(scope="module")
def tiled(shared_lab):
    """A single-user Tiled server on a temporary catalogue."""
    arguments = ["serve", "catalog", "--temp", "--api-key", TILED_KEY, "--port", "0"]
    server = shared_lab.program([Path(sys.executable).with_name("tiled"), *arguments])
    address = server.wait_for(r"running on \S*http://(127\.0\.0\.1:\d+)").group(1)
    return address


@pytest.fixture(scope="module")
def gate(shared_lab, tiled):
    """A gate that gives the server its own key. The client's first look at `/api/v1/` needs none, nor does the page's
    manifest, which browsers fetch without cookies."""
    config = f"""
upstreams:
  tiled: {{ servers: ["{tiled}"] }}
routes:
  - exact: /api/v1/
    access: public
    upstream: tiled
  - exact: /ui/manifest.json
    access: public
    upstream: tiled
  - path: /
    upstream: tiled
    set_headers: {{ Authorization: "Apikey ${{env:TILED_KEY}}" }}
"""
    return shared_lab.gate(config, [ALICE], {"TILED_KEY": TILED_KEY})


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """The client keeps profiles and caches in the user's folders: here, in the test's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TILED_API_KEY", raising=False)


def test_the_client_writes_lists_and_reads(gate):
    """Arrays, tables, metadata, searches and deletion; every link names the gate."""
    client = from_uri(gate.url, api_key=ALICE.secret)
    numbers = numpy.arange(100.0).reshape(10, 10)
    client.write_array(numbers, key="numbers", metadata={"colour": "red"})
    table = pandas.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    client.write_table(table, key="table")
    assert sorted(client) == ["numbers", "table"]
    assert numpy.array_equal(client["numbers"].read(), numbers)
    assert numpy.array_equal(client["numbers"][2:4, 5], numbers[2:4, 5])
    assert client["table"].read()["b"].tolist() == ["x", "y", "z"]
    assert client["numbers"].metadata["colour"] == "red"
    links = client["numbers"].item["links"]
    texts = [text for text in links.values() if isinstance(text, str)]
    assert texts and all(text.startswith(gate.url + "/") for text in texts), links
    client.delete_contents(["table"], external_only=False)
    assert list(client) == ["numbers"]
    written = gate.await_access(method="PUT", user="alice")
    assert written["status"] == 200


def test_a_large_block_passes_both_ways(gate):
    """A write of 32 MB and the same bytes back, whatever coding client and server agree on."""
    client = from_uri(gate.url, api_key=ALICE.secret)
    noise = numpy.random.default_rng(7).integers(0, 2**63, size=4 * 1024 * 1024, dtype=numpy.int64)
    client.write_array(noise, key="noise")
    assert numpy.array_equal(client["noise"].read(), noise)


def test_a_key_in_the_address(gate):
    """`?api_key=`: the client looks with the key in the query first, then moves it to its header."""
    client = from_uri(f"{gate.url}/api/v1?api_key={ALICE.secret}")
    client.write_array(numpy.ones(3), key="ones")
    assert client["ones"].read().tolist() == [1, 1, 1]


def test_a_bad_key_is_told_at_once(gate):
    """No retries, and the gate's words in the exception."""
    began = time.monotonic()
    with pytest.raises(Exception) as refused:
        from_uri(gate.url, api_key="kg_nobody")
    assert time.monotonic() - began < 10
    assert "401" in str(refused.value) and "valid API key" in str(refused.value)


def test_neither_side_sees_the_others_key(gate, tiled):
    """The server's key is in no cookie and no body; the gate's is worth nothing at the server."""
    answer = httpx.get(f"{gate.url}/api/v1/metadata/", headers={"Authorization": f"Apikey {ALICE.secret}"})
    assert answer.status_code == 200
    assert TILED_KEY not in answer.text and TILED_KEY not in str(answer.headers.raw)
    assert httpx.get(f"http://{tiled}/api/v1/metadata/", params={"api_key": ALICE.secret}).status_code == 401
    assert httpx.get(f"{gate.url}/api/v1/metadata/").status_code == 401
    assert httpx.get(f"{gate.url}/api/v1/").status_code == 200


def test_a_subscription_streams(gate):
    """New data arrives through a WebSocket while the writer writes."""
    writer = from_uri(gate.url, api_key=ALICE.secret)
    array = writer.write_array(numpy.zeros(4), key="live")
    reader = from_uri(gate.url, api_key=ALICE.secret)["live"]
    got, arrived = [], threading.Event()
    subscription = reader.subscribe()

    # The registry holds its callbacks weakly: this name keeps this one.
    def on_data(update):
        got.append(update.data().tolist())
        arrived.set()

    subscription.new_data.add_callback(on_data)
    subscription.start_in_thread()
    try:
        eventually("a stream", lambda: subscription._connected_event.is_set())
        array.write(numpy.full(4, 7.0))
        assert arrived.wait(20), "no update came"
        assert got[0] == [7.0] * 4
    finally:
        subscription.disconnect()
    line = gate.await_access(status=101)
    assert line["user"] == "alice" and line["bytes_out"] > 0


def test_the_web_page_opens_by_a_link(gate, lab):
    """A link with a key: 303 to the clean address with a cookie, and the page lives on that cookie."""
    link = f"{gate.url}/ui/?api_key={ALICE.secret}"
    first = httpx.get(link, headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})
    assert first.status_code == 303 and first.headers["location"].endswith("/ui/")
    browser = lab.browser()
    browser.get(link)
    eventually("the page's own content", lambda: len(browser.find_elements("css selector", "#root *")) > 10)
    assert ALICE.secret not in browser.current_url
    eventually("data on the page", lambda: "numbers" in browser.page_source or "noise" in browser.page_source)
    refused = [line for line in gate.access(status=401) if line["user_agent"].startswith("Mozilla")]
    assert not refused, refused
    assert len(browser.get_screenshot_as_png()) > 5000
    cookies = {cookie["name"]: cookie for cookie in browser.get_cookies()}
    assert cookies["keygate_session"]["httpOnly"] and ALICE.secret not in cookies["keygate_session"]["value"]
    assert "tiled_api_key" not in cookies
