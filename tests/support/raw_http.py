"""HTTP as bytes on a socket, for requests that no client library would send."""

import socket
from dataclasses import dataclass

_READ_BYTES = 65_536
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What came until the other side closed or fell silent. Status 0: it closed without a word."""

    status: int
    head: str
    body: bytes

    @property
    def answers(self) -> int:
        """How many answers there are: more than one for a request that was read as two."""
        whole = self.head.encode("latin-1") + b"\r\n\r\n" + self.body
        return whole.count(b"HTTP/1.1 ")

    def header(self, name: str) -> list[str]:
        """Every value of a header."""
        lines = [line.partition(":") for line in self.head.split("\r\n")[1:]]
        return [value.strip() for key, _, value in lines if key.lower() == name.lower()]


def send_raw(port: int, *pieces: bytes, patience: float = _PATIENCE_SECONDS) -> RawAnswer:
    """Send the pieces as they are, one write each, and read until the server closes or is silent.

    `Connection: close` in the request makes it close; else `patience` (seconds) is waited out.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:
            pass  # It closed before it had read all: its answer may still be there.
        return parse(_read_all(connection))


def request_bytes(
    target: str | bytes, *headers: str, method: str = "GET", host: str | None = "localhost", body: bytes = b""
) -> bytes:
    """A request whose connection ends with it. Header lines are sent as they are given."""
    raw_target = target if isinstance(target, bytes) else target.encode("latin-1")
    lines = [b"%s %s HTTP/1.1" % (method.encode(), raw_target)]
    if host is not None:
        lines.append(b"Host: " + host.encode("latin-1"))
    lines += [line.encode("latin-1") for line in headers]
    lines.append(b"Connection: close")
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def parse(raw: bytes) -> RawAnswer:
    """The first answer in what came."""
    head, _, body = raw.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return RawAnswer(status, head.decode("latin-1"), body)


def _read_all(connection: socket.socket) -> bytes:
    parts = []
    while True:
        try:
            part = connection.recv(_READ_BYTES)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)
