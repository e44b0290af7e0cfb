"""gRPC with the real library on both sides: unary and streaming calls, refusals, a cancelled call."""

from concurrent import futures

import grpc
import pytest

from harness.gate import Key, plain_and_tls

ALICE = Key("alice")
SLOW = Key("slow", limits={"requests": 1, "per": "1h", "burst": 1})


class Service(grpc.GenericRpcHandler):
    """Calls by name, without generated code: bytes in, bytes out."""

    def service(self, call):
        """The handler of a method."""
        if call.method == "/lab.Echo/Unary":
            return grpc.unary_unary_rpc_method_handler(self.unary)
        if call.method == "/lab.Echo/Stream":
            return grpc.stream_stream_rpc_method_handler(lambda pieces, context: iter(pieces))
        return None

    @staticmethod
    def unary(message, context):
        """The message and who sent it; the caller is told its length in the trailers."""
        told = dict(context.invocation_metadata())
        assert "x-api-key" not in told
        context.set_trailing_metadata((("length", str(len(message))),))
        return told["x-auth-user"].encode() + b":" + message


@pytest.fixture
def channel(lab):
    """A channel through a gate's TLS listener to a gRPC server without TLS."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), handlers=[Service()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    certificate = lab.certificate()
    config = f"""
identity: {{ headers: {{ user: X-Auth-User }} }}
upstreams:
  echo: {{ servers: ["127.0.0.1:{port}"], http2: true }}
routes:
  - {{ path: /, upstream: echo }}
"""
    gate = lab.gate(config, [ALICE, SLOW], listen=plain_and_tls(certificate))
    roots = grpc.ssl_channel_credentials((certificate / "cert.pem").read_bytes())
    with grpc.secure_channel(gate.addresses[1], roots) as made:
        yield made
    server.stop(None)


def test_unary_calls_pass_with_trailers_and_large_messages(channel):
    call = channel.unary_unary("/lab.Echo/Unary")
    for size in (0, 1, 3_000_000):
        answer, status = call.with_call(b"x" * size, metadata=(("x-api-key", ALICE.secret),), timeout=20)
        assert answer == b"alice:" + b"x" * size
        assert dict(status.trailing_metadata())["length"] == str(size)


def test_streams_flow_both_ways(channel):
    pieces = [bytes([n]) * 1000 for n in range(100)]
    call = channel.stream_stream("/lab.Echo/Stream")
    assert list(call(iter(pieces), metadata=(("x-api-key", ALICE.secret),), timeout=20)) == pieces


def test_refusals_are_grpc_statuses(channel):
    call = channel.unary_unary("/lab.Echo/Unary")
    with pytest.raises(grpc.RpcError) as refused:
        call(b"x", timeout=20)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    key = (("x-api-key", SLOW.secret),)
    assert call(b"x", metadata=key, timeout=20) == b"slow:x"
    with pytest.raises(grpc.RpcError) as refused:
        call(b"x", metadata=key, timeout=20)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/lab.Echo/None")(b"x", metadata=(("x-api-key", ALICE.secret),), timeout=20)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
