"""Answers that leave in one piece.

The web server writes an answer's head and its body apart. Written at once, they cost one call of the system
instead of two, one packet, and a client that wakes up once.
"""

import asyncio
from typing import Any

_LARGEST_HEAD_BYTES = 16 * 1024


class GatheredWrites:
    """A connection's transport. What is small waits for what follows it in the same turn of the event loop.

    It waits no longer than that: what is followed by nothing goes out when the turn ends. Bytes keep their
    order, and nothing that was written before `close` is lost by it.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: bytes | None = None
        self._turn: asyncio.Handle | None = None

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's."""
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether the connection is closed, or about to be."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send `data`, after what was written before it."""
        head = self._take()
        if head is not None:
            self._transport.writelines((head, data))
        elif len(data) <= _LARGEST_HEAD_BYTES:
            self._waiting = data
            self._turn = self._loop.call_soon(self._send_waiting)
        else:
            self._transport.write(data)

    def writelines(self, pieces: Any) -> None:
        """Send each of `pieces`."""
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        """Send what waits, and say that nothing follows."""
        self._send_waiting()
        self._transport.write_eof()

    def close(self) -> None:
        """Close the connection once all that was written has gone out."""
        self._send_waiting()
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._take()
        self._transport.abort()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have the connection."""
        self._send_waiting()
        self._transport.set_protocol(protocol)

    def _send_waiting(self) -> None:
        head = self._take()
        if head is not None and not self._transport.is_closing():  # else the client went away meanwhile
            self._transport.write(head)

    def _take(self) -> bytes | None:
        head, self._waiting = self._waiting, None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        return head
