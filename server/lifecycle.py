"""What starts with a server, and ends with it in the opposite order."""

from collections.abc import Awaitable, Callable
from typing import Protocol


class Part(Protocol):
    """Something that works beside the requests."""

    def start(self) -> None:
        """Begin."""
        ...

    async def stop(self) -> None:
        """End, finishing what is in flight."""
        ...


class Lifecycle:
    """Collects the parts of a server while it is built."""

    def __init__(self) -> None:
        self._starts: list[Callable[[], Awaitable[None]]] = []
        self._stops: list[Callable[[], Awaitable[None]]] = []

    def run(self, part: Part) -> None:
        """Start the part with the server, and stop it before all that was built earlier."""

        async def start() -> None:
            part.start()

        self._starts.append(start)
        self._stops.append(part.stop)

    def on_start(self, start: Callable[[], Awaitable[None]]) -> None:
        """Call this when the server starts."""
        self._starts.append(start)

    def on_stop(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Call this when the server ends, before all that was built earlier is ended."""
        self._stops.append(stop)

    def close(self, close: Callable[[], None]) -> None:
        """Like `on_stop`, for what closes at once."""

        async def stop() -> None:
            close()

        self._stops.append(stop)

    async def start(self) -> None:
        """Start everything, in the order it was built."""
        for start in self._starts:
            await start()

    async def stop(self) -> None:
        """End everything, in the opposite order."""
        for stop in reversed(self._stops):
            await stop()
