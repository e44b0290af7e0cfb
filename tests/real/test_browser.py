"""What pages in Chromium can do: WebSocket by subprotocol and cookie, EventSource by query and cookie, requests across origins."""

import json
import threading

import pytest

from harness.gate import Key, plain_and_tls

ALICE = Key("alice")
REASON = "A valid API key is required."

# Opens a socket, sends one message and tells what came of it.
SOCKET = """
const [url, protocols, done] = arguments;
const socket = new WebSocket(url, protocols);
const got = { protocol: null, message: null };
socket.onopen = () => { got.protocol = socket.protocol; socket.send("héllo"); };
socket.onmessage = (event) => { got.message = event.data; socket.send("close:4003:bye"); };
socket.onclose = (event) => done({ ...got, code: event.code, reason: event.reason });
"""

# Reads two events; says after the first that it came.
EVENTS = """
const [url, seen, done] = arguments;
const source = new EventSource(url);
const got = [];
source.onmessage = (event) => {
  got.push(event.data);
  if (got.length === 1) fetch(seen);
  else { source.close(); done(got); }
};
source.onerror = () => { source.close(); done(["error", ...got]); };
"""

FETCH = """
const [url, how, done] = arguments;
fetch(url, how).then(async (answer) => done({ status: answer.status, retry: answer.headers.get("Retry-After"), body: await answer.text() }),
  (error) => done({ error: String(error) }));
"""


class Page:
    """A page from the gate, an upstream of events, a socket upstream, and a browser that is on the page."""

    def __init__(self, lab):
        self.first_arrived = threading.Event()
        self.http = lab.upstream(self.answer)
        self.sockets = lab.socket_upstream(("app.v1",))
        config = f"""
upstreams:
  app: {{ servers: ["{self.http.address}"] }}
  sockets: {{ servers: ["{self.sockets.address}"] }}
routes:
  - {{ exact: /page, access: public, upstream: app }}
  - {{ exact: /seen, access: public, upstream: app }}
  - {{ path: /cors, cors_preflight: true, upstream: app }}
  - {{ path: /ws, upstream: sockets }}
  - {{ path: /, upstream: app }}
"""
        self.gate = lab.gate(config, [ALICE], listen=plain_and_tls(lab.certificate()))
        self.browser = lab.browser()

    def answer(self, out, seen):
        """A page, events, or what came."""
        if seen.path in ("/page", "/app"):
            out.send(200, "<!doctype html><title>page</title><p>here", "text/html")
        elif seen.path == "/events":
            out.stream(self.events())
        elif seen.path == "/seen":
            self.first_arrived.set()
            out.send(200, "{}")
        elif seen.method == "OPTIONS":
            allow = [("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Headers", "x-api-key")]
            out.send(200, b"", headers=allow)
        else:
            out.send(200, json.dumps({"query": seen.query}), headers=[("Access-Control-Allow-Origin", "*")])

    def events(self):
        """The second event only when the first has come to the page."""
        yield b"data: one\n\n"
        assert self.first_arrived.wait(15), "the first event did not arrive by itself"
        yield b"data: two\n\n"

    def run(self, script, *arguments):
        """What the script gives to its last argument."""
        return self.browser.execute_async_script(script, *arguments)


@pytest.fixture
def page(lab):
    """A browser on the gate's public page."""
    made = Page(lab)
    made.browser.get(f"{made.gate.url}/page")
    assert made.browser.title == "page"
    return made


def test_a_socket_by_subprotocol(page):
    """The key is one item, the application's protocol the other: only that goes on and comes back."""
    got = page.run(SOCKET, f"{page.gate.ws}/ws", ["app.v1", f"keygate.key.{ALICE.secret}"])
    assert got == {"protocol": "app.v1", "message": "héllo", "code": 4003, "reason": "bye"}
    [seen] = page.sockets.seen
    assert seen.one("Sec-WebSocket-Protocol") == "app.v1" and not seen.holds(ALICE.secret)
    refused = page.run(SOCKET, f"{page.gate.ws}/ws", ["app.v1", "keygate.key.nobody"])
    assert refused["code"] == 1006 and len(page.sockets.seen) == 1


def test_events_by_query(page):
    """A key in the address of an EventSource: no redirect, events one by one."""
    got = page.run(EVENTS, f"/events?x=1&api_key={ALICE.secret}", "/seen")
    assert got == ["one", "two"]
    seen = page.http.last("/events")
    assert seen.target == "/events?x=1" and not seen.holds(ALICE.secret)
    assert page.run(EVENTS, "/events?api_key=kg_nobody", "/seen") == ["error"]


def test_a_link_logs_the_page_in(page):
    """After a link with a key, the cookie serves for events, requests and sockets; its link leaves no trace upstream."""
    page.browser.get(f"{page.gate.url}/app?tab=2&api_key={ALICE.secret}")
    assert page.browser.current_url == f"{page.gate.url}/app?tab=2"
    assert page.run(EVENTS, "/events", "/seen") == ["one", "two"]
    assert page.run(FETCH, "/data", {})["status"] == 200
    assert page.run(FETCH, "/data", {"method": "POST", "body": "x"})["status"] == 200
    assert page.run(SOCKET, f"{page.gate.ws}/ws", ["app.v1"])["message"] == "héllo"
    for seen in page.http.seen + page.sockets.seen:
        assert not seen.holds(ALICE.secret) and not seen.holds("keygate_session")


def test_another_origin_cannot_use_the_cookie(page):
    """A page elsewhere on the same host gets the cookie sent along, but neither a socket nor a change by it."""
    page.browser.get(f"{page.gate.url}/app?api_key={ALICE.secret}")
    assert page.run(SOCKET, f"{page.gate.ws}/ws", ["app.v1"])["message"] == "héllo"
    page.browser.get(f"http://{page.http.address}/page")
    assert page.run(SOCKET, f"{page.gate.ws}/ws", ["app.v1"])["code"] == 1006
    before = len(page.http.seen)
    page.run(FETCH, f"{page.gate.url}/data", {"method": "POST", "body": "x", "credentials": "include", "mode": "no-cors"})
    assert len(page.http.seen) == before and len(page.sockets.seen) == 1
    assert page.gate.await_access(status=403, method="POST")["reason"] == "foreign_origin"


def test_requests_across_origins(page):
    """The preflight passes without a key, the request with one, and a refusal can be read by the page."""
    page.browser.get(f"http://{page.http.address}/page")
    good = page.run(FETCH, f"{page.gate.url}/cors/data?x=1", {"headers": {"X-Api-Key": ALICE.secret}})
    assert good["status"] == 200 and json.loads(good["body"]) == {"query": {"x": ["1"]}}
    bad = page.run(FETCH, f"{page.gate.url}/cors/data", {"headers": {"X-Api-Key": "kg_nobody"}})
    assert bad["status"] == 401 and json.loads(bad["body"])["message"] == REASON
    preflight = next(seen for seen in page.http.seen if seen.method == "OPTIONS")
    assert preflight.one("X-Auth-User") is None


def test_over_tls(page):
    """The page comes over HTTP/2, the socket over a connection of its own; the login's cookie is Secure."""
    secure = page.gate.addresses[1]
    page.browser.get(f"https://{secure}/app?tab=2&api_key={ALICE.secret}")
    assert page.browser.current_url == f"https://{secure}/app?tab=2"
    protocol = "return performance.getEntriesByType('navigation')[0].nextHopProtocol"
    assert page.browser.execute_script(protocol) == "h2"
    [cookie] = [cookie for cookie in page.browser.get_cookies() if cookie["name"] == "keygate_session"]
    assert cookie["secure"] and cookie["httpOnly"] and cookie["sameSite"] == "Lax"
    assert page.run(EVENTS, "/events", "/seen") == ["one", "two"]
    assert page.run(FETCH, "/data", {"method": "POST", "body": "x"})["status"] == 200
    assert page.run(SOCKET, f"wss://{secure}/ws", ["app.v1"])["message"] == "h\u00e9llo"
    got = page.run(SOCKET, f"wss://{secure}/ws", ["app.v1", f"keygate.key.{ALICE.secret}"])
    assert got == {"protocol": "app.v1", "message": "h\u00e9llo", "code": 4003, "reason": "bye"}
    seen = page.http.last("/data")
    assert seen.one("X-Forwarded-Proto") == "https" and seen.one("X-Auth-User") == "alice"
    assert page.gate.await_access(target="/events")["protocol"] == "HTTP/2"
