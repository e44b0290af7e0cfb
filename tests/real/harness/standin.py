"""Stand-in upstreams that record what reaches them: one for HTTP, one for WebSocket."""

import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from websockets.sync.server import serve

from .process import eventually


@dataclass
class Seen:
    """One request as the upstream saw it."""

    method: str
    target: str
    headers: list
    body: bytes

    @property
    def path(self):
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self):
        """The query's values by name."""
        return parse_qs(urlsplit(self.target).query)

    def all(self, name):
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name):
        """The one value of a header, or `None`."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def holds(self, text):
        """Whether a text stands anywhere in the request."""
        return text in self.target or any(text in value for _, value in self.headers) or text.encode() in self.body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self):
        seen = Seen(self.command, self.path, list(self.headers.items()), self._body())
        with self.server.lock:
            self.server.seen.append(seen)
        self.server.answer(Answer(self), seen)

    def _body(self):
        if self.headers.get("Transfer-Encoding"):
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _handle

    def log_message(self, *_):
        pass


class Answer:
    """How a stand-in answers: whole, or piece by piece."""

    def __init__(self, handler):
        self._handler = handler

    def send(self, status, body=b"", content_type="application/json", headers=()):
        """A whole answer."""
        body = body.encode() if isinstance(body, str) else body
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", content_type)
        self._handler.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self._handler.send_header(name, value)
        self._handler.end_headers()
        self._handler.wfile.write(body)

    def stream(self, pieces, content_type="text/event-stream"):
        """An answer in chunks, each sent on its own when `pieces` gives it."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", content_type)
        self._handler.send_header("Cache-Control", "no-cache")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()
        for piece in pieces:
            self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self._handler.wfile.write(b"0\r\n\r\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        # A client that leaves in the middle of an answer is normal here.
        pass


class StandIn:
    """An HTTP upstream, over TLS with a folder of `Lab.certificate`. `answer(out, seen)` answers each request through `out`."""

    def __init__(self, answer, certificate=None):
        self._server = _Server(("127.0.0.1", 0), _Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.lock, self._server.seen, self._server.answer = threading.Lock(), [], answer
        self.address = "127.0.0.1:%d" % self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def seen(self):
        """Every request so far."""
        with self._server.lock:
            return list(self._server.seen)

    def last(self, path):
        """The latest request to a path, waited for."""
        return eventually(f"a request to {path}", lambda: [seen for seen in self.seen if seen.path == path])[-1]

    def stop(self):
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()


class SocketStandIn:
    """A WebSocket upstream that sends every message back. A text of `close:CODE:REASON` makes it close; any subprotocol of
    `protocols` is taken."""

    def __init__(self, protocols=()):
        self.seen = []
        self._server = serve(
            self._echo,
            "127.0.0.1",
            0,
            subprotocols=list(protocols) or None,
            select_subprotocol=self._select,
            max_size=None,
        )
        self._protocols = protocols
        self.address = "127.0.0.1:%d" % self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _select(self, _connection, offered):
        return next((item for item in offered if item in self._protocols), None)

    def _echo(self, socket):
        request = socket.request
        self.seen.append(Seen("GET", request.path, list(request.headers.raw_items()), b""))
        for message in socket:
            if isinstance(message, str) and message.startswith("close:"):
                _, code, reason = message.split(":", 2)
                socket.close(int(code), reason)
                return
            socket.send(message)

    def stop(self):
        """Stops it."""
        self._server.shutdown()
