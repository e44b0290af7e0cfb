"""permessage-deflate (RFC 7692) through the gate, from Python and Node to both: what crosses is compressed, is the same bytes on
both sides of the gate, and a key's end arrives readable."""

import hashlib
import json
import os
import zlib
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from harness.gate import Key
from harness.process import eventually
from harness.tap import frames, head

ALICE = Key("alice")
HERE = Path(__file__).parent
# Messages exchanged before the key ends; they go on until they are stopped.
COUNT = 60
# Text that holds nothing twice: only with the messages before it does it become small. `ws_deflate.cjs` has the same.
NOISE = "".join(hashlib.sha256(str(at).encode()).hexdigest() for at in range(32))
TEXT, CLOSE = 1, 8


def node(lab, *arguments):
    """A program of Node's."""
    modules = f"{os.environ['KEYGATE_REAL_NODE']}/node_modules"
    return lab.program(["node", HERE / "ws_deflate.cjs", *arguments], {"NODE_PATH": modules})


def python_talks(base, revoke):
    """Exchanges messages until it is closed; calls `revoke` in the middle."""
    exchanged = 0
    with connect(f"{base}/ws", additional_headers={"X-API-Key": ALICE.secret}) as socket:
        extensions = ", ".join(extension.name for extension in socket.protocol.extensions)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                message = f"{NOISE}{exchanged}"
                # Now and then in fragments, of which only the first is marked as compressed.
                socket.send([message[:700], message[700:1500], message[1500:]] if exchanged % 10 == 9 else message)
                assert socket.recv(timeout=10) == message
                exchanged += 1
                if exchanged == COUNT:
                    revoke()
    end = closed.value.rcvd
    return {"extensions": extensions, "exchanged": exchanged, "code": end.code, "reason": end.reason}


def node_talks(lab, base, revoke):
    """The same with Node's `ws`."""
    client = node(lab, "talk", base, ALICE.secret, COUNT)
    client.wait_for("going")
    revoke()
    return json.loads(client.wait_for(r"\{.*\}").group())


def messages(found):
    """The messages in frames, inflated with one window for all of them, and each one's size on the wire."""
    window, texts, sizes = zlib.decompressobj(wbits=-15), [], []
    for frame in found:
        if frame.opcode >= CLOSE:
            continue
        # The first frame of a message is marked, the others are not (RFC 7692 section 6).
        assert frame.compressed == (frame.opcode == TEXT)
        if frame.opcode == TEXT:
            texts.append("")
            sizes.append(0)
        texts[-1] += window.decompress(frame.payload + (b"\0\0\xff\xff" if frame.final else b"")).decode()
        sizes[-1] += len(frame.payload)
    return texts, sizes


@pytest.mark.parametrize("server", ["python", "node"])
@pytest.mark.parametrize("client", ["python", "node"])
def test_compressed_messages_and_a_readable_end(lab, client, server):
    """Negotiated at both ends, compressed with the window kept, no byte changed; and Close 1008 in the middle of it."""
    if server == "node":
        upstream = node(lab, "serve")
        address = "127.0.0.1:" + upstream.wait_for(r"port (\d+)").group(1)
    else:
        address = lab.socket_upstream().address
    behind = lab.tap(address)
    gate = lab.gate(f'upstreams: {{ echo: {{ servers: ["{behind.address}"] }} }}\nroutes: [{{ path: /, upstream: echo }}]', [ALICE])
    before = lab.tap(gate.address)
    base = f"ws://{before.address}"
    talked = python_talks(base, gate.disable_keys) if client == "python" else node_talks(lab, base, gate.disable_keys)
    exchanged = talked.pop("exchanged")
    assert exchanged >= COUNT
    assert talked == {"extensions": "permessage-deflate", "code": 1008, "reason": "key revoked"}
    for copy in (before.up, behind.up, behind.down, before.down):
        assert "\r\nsec-websocket-extensions: permessage-deflate" in head(copy)
    if server == "node":
        upstream.wait_for("extensions permessage-deflate")
    gate.await_access(status=101)

    # What the client got is what the upstream sent, and then the gate's own end, which is not compressed.
    sent, got = frames(behind.down), frames(before.down)
    end = got.pop()
    assert (end.opcode, end.final, end.compressed, end.masked) == (CLOSE, True, False, False)
    assert end.payload == (1008).to_bytes(2, "big") + b"key revoked"
    assert got == sent[: len(got)]
    eventually("an end for the upstream", lambda: frames(behind.up)[-1].opcode == CLOSE)
    taken = frames(behind.up)
    end = taken.pop()
    assert (end.compressed, end.masked, end.payload) == (False, True, (1001).to_bytes(2, "big"))
    assert taken == frames(before.up)[: len(taken)]

    for found, masked in ((got, False), (taken, True)):
        assert all(frame.masked == masked for frame in found)
        texts, sizes = messages(found)
        # A last message may have been in one direction only, or in a part of it.
        assert exchanged <= len(texts) <= exchanged + 1
        assert texts[:exchanged] == [f"{NOISE}{at}" for at in range(exchanged)]
        assert len(NOISE) / 4 < sizes[0] < len(NOISE) and max(sizes[1:exchanged]) < 100, sizes
