"""WebSocket clients of Python and Node before an echo upstream."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from harness.gate import Key

ALICE = Key("alice")
HERE = Path(__file__).parent


def make(lab, protocols=("app.v1", "realtime")):
    """An echo upstream and a gate before it."""
    upstream = lab.socket_upstream(protocols)
    config = f"""
upstreams:
  echo: {{ servers: ["{upstream.address}"] }}
routes:
  - {{ path: /, upstream: echo }}
"""
    return upstream, lab.gate(config, [ALICE])


WAYS = {
    "x-api-key": {"additional_headers": {"X-API-Key": ALICE.secret}},
    "bearer": {"additional_headers": {"Authorization": f"Bearer {ALICE.secret}"}},
    "query": {"query": f"?room=5&token={ALICE.secret}&x=%2C"},
    "subprotocol": {"subprotocols": ["app.v1", f"keygate.key.{ALICE.secret}"]},
    "openai": {"subprotocols": ["realtime", f"openai-insecure-api-key.{ALICE.secret}"]},
}


@pytest.mark.parametrize("way", WAYS)
def test_python_websockets(lab, way):
    """Text, binary, fragments, 16 MiB, ping, and the close code and reason back; the key stays at the gate."""
    upstream, gate = make(lab)
    how = dict(WAYS[way])
    with connect(f"{gate.ws}/ws/room{how.pop('query', '')}", max_size=None, **how) as socket:
        socket.send("héllo")
        assert socket.recv() == "héllo"
        socket.send(b"\x00\xff")
        assert socket.recv() == b"\x00\xff"
        socket.send(["in ", "three ", "parts"])
        assert socket.recv() == "in three parts"
        large = os.urandom(16 << 20) if way == "bearer" else os.urandom(70_000)
        socket.send(large)
        assert socket.recv() == large
        assert socket.ping().wait(10)
        if "subprotocols" in how:
            assert socket.subprotocol == how["subprotocols"][0]
        assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
        socket.send("close:4001:enough")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "enough")
    [seen] = upstream.seen
    assert not seen.holds(ALICE.secret) and seen.one("X-Auth-User") == "alice"
    if way == "query":
        assert seen.target == "/ws/room?room=5&x=%2C"
    line = gate.await_access(status=101)
    assert line["user"] == "alice"


def test_a_refused_handshake_is_readable(lab):
    """A plain answer with a reason, not a broken connection."""
    upstream, gate = make(lab)
    for more in ({}, {"additional_headers": {"X-API-Key": "kg_nobody"}}):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{gate.ws}/ws", **more)
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["message"] == "A valid API key is required."
    assert upstream.seen == []


def test_node_ws(lab):
    """The same with Node's `ws`."""
    upstream, gate = make(lab)
    done = subprocess.run(
        ["node", HERE / "ws_client.cjs", gate.ws, ALICE.secret],
        env={"PATH": os.environ["PATH"], "NODE_PATH": f"{os.environ['KEYGATE_REAL_NODE']}/node_modules"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout)
    assert set(results) == {"header", "bearer", "query", "subprotocol", "refused"}
    assert results.pop("refused") == {"status": 401, "message": "A valid API key is required."}
    for way, result in results.items():
        assert result == {"echo": True, "binary": True, "pong": True, "code": 4002, "reason": "bye"}, way
    assert len(upstream.seen) == 4 and not any(seen.holds(ALICE.secret) for seen in upstream.seen)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["revoke"], "key revoked"),
        (["disable"], "key revoked"),
        (["update", "--allow-from", "10.0.0.0/8"], "key revoked"),
        (["rotate", "--grace", "0"], "key revoked"),
        (["rotate", "--grace", "1"], "key expired"),
        (["update", "--expires-in", "1"], "key expired"),
    ],
    ids=lambda value: "-".join(value).replace("/", "-") if isinstance(value, list) else "",
)
def test_the_end_of_a_key_closes_its_socket_and_no_other(lab, command, reason):
    """Close 1008 with a reason, as the client reports it, when an operator's command ends the key."""
    _, gate = make(lab)
    done = gate.keys_command("create", "--user", "carol", "--name", "crane")
    secret = done.stdout.strip()
    gate.secrets.append(secret)
    gate.await_key(secret)
    with (
        connect(f"{gate.ws}/ws", additional_headers={"X-API-Key": secret}) as socket,
        connect(f"{gate.ws}/ws", additional_headers={"X-API-Key": ALICE.secret}) as other,
    ):
        socket.send("still here")
        assert socket.recv() == "still here"
        gate.keys_command(command[0], "crane", *command[1:])
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, reason)
        other.send("not mine")
        assert other.recv() == "not mine"
