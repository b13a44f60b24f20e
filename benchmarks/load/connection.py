"""One keep-alive connection with one request in flight: the closed loop of a load.

Requests are ready bytes, answers are parsed by httptools: a client library would cost more than
the servers that are measured.
"""

import asyncio
import time
from collections.abc import Generator
from typing import Protocol, cast

import httptools

Steps = Generator[bytes, bytes, None]
"""An operation: it yields requests and is sent the body of each answer."""

_FIRST_ERROR_STATUS = 400
_ERROR_SAMPLE_BYTES = 300
_RECONNECT_SECONDS = 0.05


class Load(Protocol):
    """What a connection needs of the load that it is part of."""

    def next_operation(self) -> Steps | None:
        """The steps of the next operation; None when the load is over."""
        ...

    def delay(self) -> float:
        """How long the next operation has to wait for its turn, in seconds."""
        ...

    def succeeded(self, begun: float, requests: int, received: int) -> None:
        """An operation that was begun at `begun` (perf_counter) was answered whole."""
        ...

    def failed(self, reason: str) -> None:
        """An operation met an error."""
        ...

    def ended(self) -> None:
        """A connection will begin no more operations."""
        ...


class Connection(asyncio.Protocol):
    """Begins an operation when the one before has ended, until the load is over."""

    def __init__(self, load: Load, host: str, port: int) -> None:
        self._load = load
        self._address = (host, port)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._steps: Steps | None = None
        self._turn: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._begun = 0.0
        self._requests = 0
        self._received = 0
        self._over = False

    async def open(self) -> None:
        """Connect and begin."""
        host, port = self._address
        await self._loop.create_connection(lambda: self, host, port)

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the first operation, or go on with the one that the last connection broke off."""
        # uvloop's transports are asyncio's by behaviour only.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._body = []
        self._begin()

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._received += len(data)
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Count what was under way as failed, and connect again."""
        self._transport = None
        if self._over:
            return
        if self._turn is not None:
            self._turn.cancel()
        if self._steps is not None:
            self._steps = None
            self._load.failed(f"connection lost: {error}")
        self._loop.call_later(_RECONNECT_SECONDS, self._reconnect)

    # --- httptools ---

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole: the operation's next request, or the next operation."""
        body = b"".join(self._body)
        self._body.clear()
        if self._steps is None:
            return
        status = self._parser.get_status_code()
        if status >= _FIRST_ERROR_STATUS:
            self._steps = None
            self._load.failed(f"{status} {body[:_ERROR_SAMPLE_BYTES].decode(errors='replace')}")
            self._begin()
            return
        try:
            request = self._steps.send(body)
        except StopIteration:
            self._steps = None
            self._load.succeeded(self._begun, self._requests, self._received)
            self._begin()
        else:
            self._send(request)

    # --- operations ---

    def _begin(self) -> None:
        delay = self._load.delay()
        if delay > 0:
            self._turn = self._loop.call_later(delay, self._begin_now)
        else:
            self._begin_now()

    def _begin_now(self) -> None:
        steps = self._load.next_operation()
        if steps is None:
            self._over = True
            if self._transport is not None:
                self._transport.close()
            self._load.ended()
            return
        self._steps = steps
        self._requests = self._received = 0
        self._begun = time.perf_counter()
        self._send(next(steps))

    def _send(self, request: bytes) -> None:
        assert self._transport is not None
        self._requests += 1
        self._transport.write(request)

    def _reconnect(self) -> None:
        task = self._loop.create_task(self.open())
        task.add_done_callback(self._reconnected)

    def _reconnected(self, task: "asyncio.Task[None]") -> None:
        error = task.exception()
        if error is not None:
            self._load.failed(f"cannot connect: {error}")
            self._over = True
            self._load.ended()
