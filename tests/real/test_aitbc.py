"""The habits of AITBC's clients (a coordinator, miners, agents) and FetchML's `ml`, each with the library it uses."""

import json
import threading
import time

import httpx
import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from harness.gate import Key

CLIENT = Key("carol", ["client"], secret="client_dev_key_1_valid")
MINER = Key("mike", ["miner"], secret="miner_dev_key_1_valid")
ADMIN = Key("ada", ["admin", "miner", "client"])
ADMIN_SECRET = "coordinator-admin-0815"


class Coordinator:
    """A stand-in for the coordinator and its agents' socket, behind a gate with roles per route."""

    def __init__(self, lab):
        self.job = threading.Event()
        self.http = lab.upstream(self.answer)
        self.sockets = lab.socket_upstream()
        config = f"""
identity:
  headers:
    user: [X-Auth-User, X-Miner-ID]
    roles: X-Auth-Roles
upstreams:
  coordinator: {{ servers: ["{self.http.address}"] }}
  agents: {{ servers: ["{self.sockets.address}"] }}
routes:
  - exact: /health
    access: public
    upstream: coordinator
  - path: /v1/admin/
    roles: [admin]
    upstream: coordinator
    set_headers: {{ X-Api-Key: "${{env:COORDINATOR_ADMIN_KEY}}" }}
  - path: /v1/miners/
    roles: [miner]
    upstream: coordinator
  - path: /v1/
    roles: [client, miner]
    upstream: coordinator
  - path: /api/v1/agent/
    upstream: agents
  - path: /ws
    upstream: agents
"""
        self.gate = lab.gate(config, [CLIENT, MINER, ADMIN], {"COORDINATOR_ADMIN_KEY": ADMIN_SECRET})

    def answer(self, out, seen):
        """201 for a job, a long poll for miners, 404 for what the coordinator does not know."""
        if seen.path == "/v1/jobs":
            self.job.set()
            out.send(201, json.dumps({"job_id": "j1"}))
        elif seen.path == "/v1/miners/poll":
            got = self.job.wait(json.loads(seen.body)["max_wait_seconds"])
            out.send(200, json.dumps({"job_id": "j1"}) if got else b"")
        elif seen.path in ("/health", "/v1/admin/stats", "/v1/miners/heartbeat"):
            out.send(200, "{}")
        else:
            out.send(404, json.dumps({"detail": "Not Found"}))


@pytest.fixture
def coordinator(lab):
    """The coordinator."""
    return Coordinator(lab)


@pytest.mark.parametrize("spelling", ["X-Api-Key", "X-API-Key", "x-api-key"])
@pytest.mark.parametrize("library", [requests, httpx], ids=["requests", "httpx"])
def test_every_spelling_of_the_header(coordinator, library, spelling):
    """201, 404 for an endpoint that is missing, 401 for a bad key: the client tells them apart by status alone."""
    url, headers = coordinator.gate.url, {spelling: CLIENT.secret}
    assert library.post(f"{url}/v1/jobs", json={"prompt": "test"}, headers=headers).status_code == 201
    assert coordinator.http.seen[-1].all("x-api-key") == []
    assert library.get(f"{url}/v1/agents/workflows", headers=headers).status_code == 404
    assert library.get(f"{url}/v1/agents/workflows", headers={spelling: "wrong"}).status_code == 401
    assert library.get(f"{url}/health").status_code == 200


def test_roles_per_route_and_the_coordinators_own_key(coordinator):
    """403 for a good key in the wrong place; the admin route gets the coordinator's secret, others get none."""
    url = coordinator.gate.url

    def get(key, path):
        return requests.get(url + path, headers={"X-Api-Key": key.secret}).status_code

    assert [get(key, "/v1/admin/stats") for key in (CLIENT, MINER, ADMIN)] == [403, 403, 200]
    assert coordinator.http.seen[-1].one("X-Api-Key") == ADMIN_SECRET
    assert [get(key, "/v1/miners/heartbeat") for key in (CLIENT, MINER, ADMIN)] == [403, 200, 200]
    assert coordinator.http.seen[-1].one("X-Api-Key") is None
    assert len(coordinator.http.seen) == 3


@pytest.mark.parametrize("spelling", ["X-Miner-ID", "X_Miner_Id", "x-miner-id"])
def test_a_miner_is_who_its_key_says(coordinator, spelling):
    """The claimed identity is dropped and the key's user takes its place."""
    headers = {"X-Api-Key": MINER.secret, spelling: "somebody-else"}
    requests.post(f"{coordinator.gate.url}/v1/miners/heartbeat", json={}, headers=headers).raise_for_status()
    seen = coordinator.http.seen[-1]
    assert seen.one("X-Miner-ID") == "mike" and not seen.holds("somebody-else")
    assert seen.one("X-Auth-Roles") == "miner"


def test_a_long_poll_waits_and_comes_back_at_once(coordinator):
    """A poll without work ends when the coordinator says; one with work as soon as there is some."""
    url, headers = f"{coordinator.gate.url}/v1/miners/poll", {"X-Api-Key": MINER.secret}
    began = time.monotonic()
    empty = requests.post(url, json={"max_wait_seconds": 3}, headers=headers, timeout=10)
    assert (empty.status_code, empty.content) == (200, b"") and 3 <= time.monotonic() - began < 4
    ended = []

    def poll():
        found = requests.post(url, json={"max_wait_seconds": 30}, headers=headers, timeout=30)
        ended.append((found.json(), time.monotonic()))

    polling = threading.Thread(target=poll)
    polling.start()
    coordinator.gate.await_access(status=200)
    requests.post(f"{coordinator.gate.url}/v1/jobs", json={}, headers={"X-Api-Key": CLIENT.secret})
    given = time.monotonic()
    polling.join(20)
    assert ended and ended[0][0] == {"job_id": "j1"} and ended[0][1] - given < 2


def test_an_agent_streams_messages(coordinator):
    """`?token=` on the handshake, pasted in without encoding; a refusal comes before any upgrade."""
    stream = f"{coordinator.gate.ws}/api/v1/agent/messages/stream?agent_id=a1&token="
    with connect(stream + CLIENT.secret) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
    [seen] = coordinator.sockets.seen
    assert seen.target == "/api/v1/agent/messages/stream?agent_id=a1" and seen.one("X-Miner-ID") == "carol"
    with pytest.raises(InvalidStatus) as refused:
        connect(stream + "wrong")
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize(
    "how",
    [
        {"additional_headers": {"X-API-Key": CLIENT.secret}},
        {"additional_headers": {"Authorization": f"Bearer {CLIENT.secret}"}},
        {"query": f"?api_key={CLIENT.secret}"},
        {"query": f"?token={CLIENT.secret}"},
    ],
    ids=["header", "bearer", "api_key", "token"],
)
def test_fetchml_on_a_plain_listener(coordinator, how):
    """`ws://host:port/ws` with a key whose bare hash was made elsewhere."""
    how = dict(how)
    with connect(f"{coordinator.gate.ws}/ws{how.pop('query', '')}", **how) as socket:
        socket.send("status")
        assert socket.recv() == "status"
    [seen] = coordinator.sockets.seen
    assert seen.target == "/ws" and not seen.holds(CLIENT.secret) and seen.one("X-Auth-User") == "carol"
