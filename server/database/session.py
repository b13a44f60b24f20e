"""One connection to Postgres that lives as long as this process.

It does three things for replicas that share the database: a lock that it holds shows the others that this
process lives, it hears what they signal, and it sets the clock they share. Nothing that must be right hangs
on it: a process that loses its session works on, and takes the lock again as soon as it can.
"""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from server.database import postgres
from server.database.clock import DatabaseClock
from server.database.engine import Database, Transaction

log = structlog.get_logger(__name__)

CHANNEL = "mlproxy"
_LOCKS = 2**31 - 1
_PROOF_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_ANSWER_SECONDS = 10.0


class ReplicaSession:
    """The session of one process. `start` it, `stop` it.

    `hear` is called in the event loop with what another process signalled, and with an empty text whenever
    something may have been missed.
    """

    def __init__(self, *, database: Database, clock: DatabaseClock, hear: Callable[[str], None]) -> None:
        self._database = database
        self._clock = clock
        self._hear = hear
        self._task: asyncio.Task[None] | None = None
        self.lock_number = secrets.randbelow(_LOCKS)
        self.is_held = False

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name="replica-session")

    async def stop(self) -> None:
        """Close the connection: the others see at once that this process is gone."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        from psycopg import Error

        was_lost = False
        while True:
            try:
                async with await self._connect() as connection:
                    await self._take_lock(connection)
                    await self._align(connection)
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self.is_held = True
                    if was_lost:
                        log.info("session_resumed")
                    was_lost = False
                    self._hear("")
                    await self._listen(connection)
            except (Error, OSError, TimeoutError) as error:
                if not was_lost:
                    log.warning("session_lost", error=type(error).__name__)
                was_lost = True
            finally:
                self.is_held = False
            await asyncio.sleep(_RETRY_SECONDS)

    async def _connect(self) -> Any:
        from psycopg import AsyncConnection

        _, arguments = self._database.engine.dialect.create_connect_args(self._database.url)
        return await AsyncConnection.connect(**{**arguments, **postgres.CONNECT_ARGUMENTS}, autocommit=True)

    async def _take_lock(self, connection: Any) -> None:
        """Hold our lock. The server may take a while to notice that an earlier session of ours is gone."""
        # The server, too, shall notice when our machine has gone silent.
        await connection.execute("SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5")
        await connection.execute("SET tcp_keepalives_count = 3")
        while True:
            found = await connection.execute(
                "SELECT pg_try_advisory_lock(%s, %s)", (postgres.LOCK_CLASS, self.lock_number)
            )
            if (await found.fetchone())[0]:
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def _align(self, connection: Any) -> None:
        asked_at = self._clock.monotonic()
        found = await connection.execute(f"SELECT {postgres.CLOCK}")
        self._clock.align((await found.fetchone())[0], asked_at)

    async def _listen(self, connection: Any) -> None:
        """Hear what is signalled. A connection on which nothing comes proves now and then that it is one."""
        while True:
            async for notice in connection.notifies(timeout=_PROOF_SECONDS):
                self._hear(notice.payload)
            async with asyncio.timeout(_ANSWER_SECONDS):
                await connection.execute("SELECT 1")


def list_living(transaction: Transaction) -> set[int]:
    """The lock numbers of the processes whose session is there."""
    rows = transaction.rows(
        "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = ?"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (postgres.LOCK_CLASS,),
    )
    return {row[0] for row in rows}


def signal(transaction: Transaction, text: str) -> None:
    """Tell every process that listens, once this transaction is committed."""
    transaction.rows("SELECT pg_notify(?, ?)", (CHANNEL, text))
