"""A Jupyter server behind the gate and a kernel over WebSocket."""

import sys

import httpx
import pytest
from jupyter_kernel_client import JupyterKernelClient

from harness.gate import Key
from harness.process import eventually, free_port

JUPYTER_TOKEN = "b7f1d2c3a4958677aabbccddeeff0011"
ALICE = Key("alice")


@pytest.fixture(scope="module")
def gate(shared_lab):
    """A gate that gives the server its own token."""
    port = free_port()
    arguments = ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--no-browser"]
    server = shared_lab.program(
        [sys.executable, "-m", "jupyter_server", "--allow-root", *arguments], {"JUPYTER_TOKEN": JUPYTER_TOKEN}
    )
    server.wait_for(r"is running at:")
    config = f"""
upstreams:
  jupyter: {{ servers: ["127.0.0.1:{port}"] }}
routes:
  - path: /
    upstream: jupyter
    set_headers: {{ Authorization: "token ${{env:JUPYTER_TOKEN}}" }}
"""
    return shared_lab.gate(config, [ALICE], {"JUPYTER_TOKEN": JUPYTER_TOKEN})


@pytest.mark.parametrize(
    "how",
    [
        {"headers": {"Authorization": f"token {ALICE.secret}"}},
        {"headers": {"Authorization": f"Bearer {ALICE.secret}"}},
        {"params": {"token": ALICE.secret}},
    ],
    ids=["token", "bearer", "query"],
)
def test_the_three_ways_to_show_a_token(gate, how):
    """The server's documented forms, and the wrong token in each of them."""
    assert httpx.get(f"{gate.url}/api/status", **how).json()["kernels"] >= 0
    wrong = {kind: {name: text.replace("kg_", "kg-") for name, text in value.items()} for kind, value in how.items()}
    assert httpx.get(f"{gate.url}/api/status", **wrong).status_code == 401


def test_a_kernel_computes(gate):
    """Start a kernel, execute in it over its WebSocket, and shut it down."""
    with JupyterKernelClient(server_url=gate.url, token=ALICE.secret) as kernel:
        reply = kernel.execute("print(6 * 7); 1 + 1")
        texts = [output.get("text") or output["data"]["text/plain"] for output in reply["outputs"]]
        assert reply["status"] == "ok" and [text.strip() for text in texts] == ["42", "2"]
        assert kernel.execute("1 / 0")["status"] == "error"
    line = gate.await_access(status=101)
    assert line["user"] == "alice" and "/channels" in line["target"]
    eventually("no kernel left", lambda: httpx.get(f"{gate.url}/api/kernels?token={ALICE.secret}").json() == [])


def test_a_wrong_token_starts_no_kernel(gate):
    """The client says 401."""
    with pytest.raises(Exception, match="401"):
        with JupyterKernelClient(server_url=gate.url, token="kg_nobody"):
            pass
