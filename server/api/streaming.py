"""Answers whose body is sent as it comes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from server.api.endpoints import Call, ClientDisconnectedError


async def send_body(
    call: Call, chunks: AsyncGenerator[bytes, None], *, longest_send_seconds: float | None = None
) -> None:
    """Send until the end, or until nobody listens any more; the web server would not say so.

    Raises:
        ClientDisconnectedError: nobody listens.
        TimeoutError: a chunk was not taken within `longest_send_seconds`.
    """
    gone = asyncio.create_task(_disconnection(call))
    try:
        async for chunk in chunks:
            if gone.done():
                raise ClientDisconnectedError
            async with asyncio.timeout(longest_send_seconds):
                await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
        await call.send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone


async def _disconnection(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass
