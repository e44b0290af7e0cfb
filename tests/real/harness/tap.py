"""A listener that hands bytes on to another address and keeps a copy of both directions."""

import socket
import threading
from dataclasses import dataclass


@dataclass
class Frame:
    """A WebSocket frame as it was on the wire (RFC 6455 section 5.2), unmasked."""

    final: bool
    compressed: bool
    opcode: int
    payload: bytes
    masked: bool


class Tap:
    """Hands on one connection after the other to `address`; `up` and `down` hold all bytes of each direction."""

    def __init__(self, address):
        self._target = address.rsplit(":", 1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self.up, self.down = bytearray(), bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client = self._listener.accept()[0]
                server = socket.create_connection(self._target)
            except OSError:
                return
            for source, sink, kept in ((client, server, self.up), (server, client, self.down)):
                threading.Thread(target=_hand_on, args=(source, sink, kept), daemon=True).start()

    def stop(self):
        """Takes no more connections."""
        self._listener.close()


def _hand_on(source, sink, kept):
    try:
        while part := source.recv(65536):
            kept += part
            sink.sendall(part)
    except OSError:
        pass
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def head(copy):
    """The head of a copied direction, in lower case."""
    return bytes(copy).split(b"\r\n\r\n", 1)[0].decode("latin-1").lower()


def frames(copy):
    """The whole frames behind the head of a copied direction."""
    rest, found = bytes(copy).split(b"\r\n\r\n", 1)[1], []
    while len(rest) >= 2:
        masked, length, at = rest[1] >> 7, rest[1] & 0x7F, 2
        if length > 125:
            at = 4 if length == 126 else 10
            length = int.from_bytes(rest[2:at], "big")
        end = at + 4 * masked + length
        if len(rest) < end:
            break
        mask, payload = rest[at : at + 4] if masked else bytes(4), rest[end - length : end]
        plain = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        found.append(Frame(bool(rest[0] & 0x80), bool(rest[0] & 0x40), rest[0] & 0x0F, plain, bool(masked)))
        rest = rest[end:]
    return found
