"""One client's connection: how much, and for how long, it may send before somebody has asked who it is.

The web server bounds neither: it keeps a request's head until that ends, so one connection could take all the
memory there is, or hold its place for ever with a byte a minute. Bodies are counted by whoever reads them.
"""

import asyncio
import socket
import struct
from itertools import chain
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.api.endpoints import CONNECTION, OPERATOR
from server.api.errors import error_body
from server.domain.access import user_name
from server.domain.errors import ErrorCode, MlflowError
from server.gathered_writes import GatheredWrites

LARGEST_HEAD_BYTES = 128 * 1024
"""Request line and headers together. The parser takes 64 KiB of a line, which leaves as much again."""
HEAD_SECONDS = 30.0
"""How long a head may take, from the connection's first moment or from its own first bytes."""
_PEER = struct.Struct("3i")  # process, user and group of a socket's other end


class _HeadRefusedError(Exception):
    """Stops the parser; what is answered has been noted."""


class ClientConnection(HttpToolsProtocol):
    """Reads requests whose heads are bounded. Lets a request see by which connection it came.

    An answer's head and body leave together.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._awaits_head = True
        self._bytes_without_progress = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._refusal: tuple[int, str] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        gathered = cast(asyncio.Transport, GatheredWrites(transport, self.loop))
        super().connection_made(gathered)
        self.app_state = {**self.app_state, CONNECTION: gathered, OPERATOR: _local_user(transport)}
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes came. Chunk extensions and trailers, neither body nor head, are counted as well."""
        self._bytes_without_progress += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._bytes_without_progress > LARGEST_HEAD_BYTES:
            self._refuse(431, f"The request's head is larger than {LARGEST_HEAD_BYTES} bytes.")
        elif self._bytes_without_progress and self._awaits_head and self._head_timer is None:
            self._start_head_timer()

    # --- what the parser tells ---

    def on_message_begin(self) -> None:
        """A request begins."""
        self._bytes_without_progress = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._awaits_head = False
        self._bytes_without_progress = 0
        self._stop_head_timer()
        size = len(self.url) + sum(map(len, chain.from_iterable(self.headers)))
        if size > LARGEST_HEAD_BYTES:
            self._refusal = 431, f"The request's head is larger than {LARGEST_HEAD_BYTES} bytes."
            raise _HeadRefusedError
        if not self.url.startswith((b"/", b"*")) or b"#" in self.url:
            # A whole URL names a host beside the Host header; a fragment is not the server's to see.
            self._refusal = 400, "The request's target is not a path."
            raise _HeadRefusedError
        super().on_headers_complete()
        # Trailers go into a list that nobody reads: they would join headers that are being judged.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Some of the body came."""
        self._bytes_without_progress = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._awaits_head = True
        self._bytes_without_progress = 0
        super().on_message_complete()

    # --- refusing ---

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or was refused while it was read, with MLflow's error body, and close."""
        status, message = self._refusal or (400, msg)
        self._refuse(status, message)

    def _refuse(self, status: int, message: str) -> None:
        body = error_body(MlflowError(ErrorCode.INVALID_PARAMETER_VALUE, message))
        head = (
            b"content-type: application/json\r\nx-content-type-options: nosniff\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            # Else an answer is under way, and nothing can be put into it.
            self.transport.write(STATUS_LINE[status] + head + body)
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if not self._bytes_without_progress:
            # Opened in advance and never used.
            self.transport.close()
        else:
            self._refuse(408, f"No whole request came within {HEAD_SECONDS:g} s.")


def _local_user(transport: asyncio.Transport) -> str | None:
    """The operating system's user at the other end of a socket for commands; None for any other."""
    connection = transport.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        return None
    if not hasattr(socket, "SO_PEERCRED"):
        return "local operator"
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, user_id, _ = _PEER.unpack(peer)
    return user_name(user_id)
