"""Which runs, logged models and model versions have been named by a request since they were made.

Only the answer to its create tells a client such a name. What has been named is therefore known to
somebody, and a create like the one that made it is another create, not the same one asked again.

A write takes the fingerprint away in its own transaction, so no crash can bring it back; a read counts at
once in this process, and is written down a moment later, in the background. Between the two, another
replica or a restart may take a run that was only read for one that nobody knows.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.store import accepted_creates

log = structlog.get_logger(__name__)

_COMPANY_SECONDS = 0.2
"""How long a first reader waits for others, so that they share a commit."""
_AGAIN_SECONDS = 1.0
_PURGE_EVERY = timedelta(minutes=1)
_PURGED_AT_ONCE = 200
_REMEMBERED = 20_000


class Namings:
    """Hears what requests name. `start` in the event loop, `stop` before the writer stops."""

    def __init__(self, *, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer
        # Two generations, so that what has been named lately is never forgotten all at once.
        self._young: set[str] = set()
        self._old: set[str] = set()
        self._read: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def knows(self, transaction: Transaction, subject: str) -> bool:
        """Whether a request named it, here, before or in this transaction."""
        return subject in transaction.named or subject in self._young or subject in self._old

    # --- hearing ---

    def before_commit(self, transaction: Transaction) -> None:
        """Take away, with the first write that names a thing, what its create could be recognised by."""
        if new := self._unknown(transaction.named):
            accepted_creates.forget_named(transaction, sorted(new))

    def after_commit(self, named: set[str]) -> None:
        """Remember what the transaction named."""
        if new := self._unknown(named):
            with self._lock:
                self._remember(new)

    def after_read(self, named: set[str]) -> None:
        """Remember what a read named, and have it written down. Called in a reading thread."""
        if new := self._unknown(named):
            with self._lock:
                self._remember(new)
                self._read |= new
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake.set)

    def _unknown(self, named: set[str]) -> set[str]:
        return named - self._young - self._old

    def _remember(self, new: set[str]) -> None:
        if len(self._young) + len(new) > _REMEMBERED:
            self._old, self._young = self._young, set()
        self._young |= new

    # --- in the background ---

    def start(self) -> None:
        """Begin writing down."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="namings")

    async def stop(self) -> None:
        """Write down what is left, then end."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        purge_at = 0.0
        while not self._stopping:
            now = asyncio.get_running_loop().time()
            if now >= purge_at:
                await self._try(self.purge)
                purge_at = now + _PURGE_EVERY.total_seconds()
            await self._rest(_AGAIN_SECONDS if self._read else _PURGE_EVERY.total_seconds())
            await self._try(self._write_down)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        if not self._stopping:
            await asyncio.sleep(_COMPANY_SECONDS)
        self._wake.clear()

    async def _write_down(self) -> None:
        with self._lock:
            read, self._read = self._read, set()
        if not read:
            return
        try:
            await self._forget_unnamed(read)
        except BaseException:
            with self._lock:
                self._read |= read
            raise

    async def _forget_unnamed(self, named: set[str]) -> None:
        """Most that is read was made long ago: only what can still be asked for again costs a commit."""
        unnamed = await self._database.read(
            lambda transaction: accepted_creates.list_unnamed(transaction, named)
        )
        if unnamed:
            subjects = sorted(unnamed)
            await self._writer.commit(
                Work(lambda transaction: accepted_creates.forget_named(transaction, subjects)),
                background=True,
            )

    async def purge(self) -> None:
        """Remove what has expired, in small transactions."""
        removed = _PURGED_AT_ONCE
        while removed == _PURGED_AT_ONCE:
            removed = await self._writer.commit(
                Work(
                    lambda transaction: accepted_creates.purge(transaction, limit=_PURGED_AT_ONCE),
                    rows=_PURGED_AT_ONCE,
                ),
                background=True,
            )

    async def _try(self, step: Callable[[], Awaitable[None]]) -> None:
        """The database may be away or full for a while: what is left to do is done the next time."""
        try:
            await step()
        except Exception as error:
            log.warning("namings_not_kept", error=type(error).__name__)
