"""Asking an application in this process, as over HTTP. Bodies stream both ways: none is held whole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx

_PIECES_AHEAD = 4


class InProcessTransport(httpx.AsyncBaseTransport):
    """Hands each request to an ASGI application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, as soon as it begins.

        Raises:
            Exception: what the application raised before it answered.
        """
        exchange = _Exchange(request)
        exchange.begin(self._app)
        started = await exchange.next_message()
        return httpx.Response(started["status"], headers=started["headers"], stream=_Body(exchange))


class _Exchange:
    """One request, and what the application sends."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._pieces = aiter(request.stream) if isinstance(request.stream, httpx.AsyncByteStream) else None
        self._sent: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_PIECES_AHEAD)
        self._closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, app: Any) -> None:
        url = self._request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(key.lower(), value) for key, value in self._request.headers.raw],
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 0),
        }
        self._task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: Any, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._sent.put)
        finally:
            if not self._closed.is_set():
                await self._sent.put(None)

    async def _receive(self) -> dict[str, Any]:
        if self._pieces is not None:
            piece = await anext(self._pieces, None)
            if piece is not None:
                return {"type": "http.request", "body": piece, "more_body": True}
            self._pieces = None
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._closed.wait()
        return {"type": "http.disconnect"}

    async def next_message(self) -> dict[str, Any]:
        """What the application sends next.

        Raises:
            httpx.RemoteProtocolError: it ended without a word.
        """
        message = await self._sent.get()
        if message is None:
            assert self._task is not None
            await self._task  # raises what it raised
            raise httpx.RemoteProtocolError("The answer broke off.")
        return message

    async def close(self) -> None:
        """Go away; the application hears of it."""
        self._closed.set()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._task


class _Body(httpx.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._exchange.next_message()
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                return

    async def aclose(self) -> None:
        await self._exchange.close()
