"""What replicas tell each other through Postgres: that there is something to deliver, that someone waits.

A signal is a hint. One that gets lost costs the time until the next look at the database, nothing else.
"""

import asyncio
from contextlib import suppress

from server.database.engine import Database
from server.database.postgres import DatabaseAwayError
from server.database.session import signal

ENTRIES = "entries"
"""Entries were accepted."""
FLUSH = "flush"
"""Someone waits until everything is delivered: do not wait for company."""

_SHORTEST_GAP_SECONDS = 0.2
_FLUSH_EVERY_SECONDS = 1.0


class Signals:
    """Signals to the other replicas, at most five of a kind a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._entries_due = asyncio.Event()
        self._flushing = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to signal."""
        self._tasks = [
            asyncio.create_task(self._tell_of_entries(), name="signals-entries"),
            asyncio.create_task(self._tell_of_flush(), name="signals-flush"),
        ]

    async def stop(self) -> None:
        """Signal no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def notice(self, lane_ids: set[int]) -> None:
        """These lanes got new entries."""
        self._entries_due.set()

    def begin_flush(self) -> None:
        """Until `end_flush`, ask the others not to wait for company."""
        self._flushing += 1

    def end_flush(self) -> None:
        """Undo one `begin_flush`."""
        self._flushing -= 1

    async def _tell_of_entries(self) -> None:
        while True:
            await self._entries_due.wait()
            self._entries_due.clear()
            await self._send(ENTRIES)
            await asyncio.sleep(_SHORTEST_GAP_SECONDS)

    async def _tell_of_flush(self) -> None:
        while True:
            if self._flushing:
                await self._send(FLUSH)
            await asyncio.sleep(_FLUSH_EVERY_SECONDS)

    async def _send(self, text: str) -> None:
        with suppress(DatabaseAwayError):
            await self._database.read(lambda transaction: signal(transaction, text))
