"""Making a backup while everything goes on.

The database and the spooled files that it names are copied as one snapshot shows them. A spooled file may be
delivered, and removed, while the copy is made: all of them are held first, under the snapshot, so that no row
of the backup is without its bytes.
"""

import asyncio
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from server import __version__
from server.database import copying
from server.database.clock import moment_of
from server.database.engine import Database, Transaction
from server.database.migration import HEAD
from server.domain import failpoints
from server.domain.clock import Clock
from server.domain.errors import ErrorCode, MlflowError
from server.domain.fullness import no_room
from server.services import generations
from server.services.backup_file import (
    FORMAT,
    SQLITE_FILE,
    BackupWriter,
    DatabaseKind,
    Header,
    spool_member,
    table_member,
)
from server.spool.holds import Hold
from server.spool.spool import Spool
from server.store import artifacts

log = structlog.get_logger(__name__)

_READ_BYTES = 1024 * 1024
_KEPT_FREE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What a backup holds. `lost_files` are named by the database, and nowhere."""

    transaction: Transaction
    spool_names: list[str]
    lost_files: list[str]


class Backups:
    """Makes backups, one at a time."""

    def __init__(self, *, database: Database, spool: Spool, clock: Clock) -> None:
        self._database = database
        self._spool = spool
        self._clock = clock
        self._is_busy = False

    async def expected_bytes(self) -> int:
        """About how large a backup would be now."""

        def measure(transaction: Transaction) -> int:
            spooled: int = transaction.rows(
                "SELECT coalesce(sum(size_bytes), 0) FROM artifacts WHERE spool_name IS NOT NULL"
            )[0][0]
            size = copying.table_bytes if transaction.is_postgres else copying.sqlite_bytes
            return size(transaction) + int(spooled)

        return await self._database.read(measure)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes of a new backup (`backup_file`). It is whole only if this ends without an error.

        Raises:
            MlflowError: one is being made already (409), or the disk has no room for the copy of the database
                that is made beside it (507).
        """
        if self._is_busy:
            raise MlflowError(ErrorCode.RESOURCE_CONFLICT, "A backup is being made already.")
        self._is_busy = True
        loop = asyncio.get_running_loop()
        # A thread of its own: the readers are for those who wait for an answer.
        thread = ThreadPoolExecutor(1, thread_name_prefix="backup")
        unwanted = threading.Event()
        pieces = self._pieces(lambda: not unwanted.is_set())
        try:
            while (piece := await loop.run_in_executor(thread, next, pieces, None)) is not None:
                yield piece
        finally:
            unwanted.set()
            await asyncio.shield(loop.run_in_executor(thread, pieces.close))
            thread.shutdown(wait=False)
            self._is_busy = False

    # --- in the thread ---

    def _pieces(self, is_wanted: Callable[[], bool]) -> Generator[bytes, None, None]:
        hold = self._spool.hold()
        try:
            with self._snapshot(hold) as snapshot:
                transaction, spool_names = snapshot.transaction, snapshot.spool_names
                if not transaction.is_postgres:
                    self._require_room(copying.sqlite_bytes(transaction))
                backup = BackupWriter(self._header(snapshot))
                yield from backup.begin()
                if transaction.is_postgres:
                    yield from _table_pieces(transaction, backup)
                else:
                    copying.copy_sqlite(transaction, hold.folder / SQLITE_FILE, is_wanted)
            # From here on nobody's old rows are kept for the backup: the files are its own.
            if not self._database.is_postgres:
                yield from _file_pieces(backup, SQLITE_FILE, hold.folder / SQLITE_FILE)
                (hold.folder / SQLITE_FILE).unlink()
            for name in spool_names:
                yield from _file_pieces(backup, spool_member(name), hold.path_of(name))
            yield from backup.end()
            log.info("backup_made", spooled_files=len(spool_names), lost_files=len(snapshot.lost_files))
        finally:
            hold.release()

    @contextmanager
    def _snapshot(self, hold: Hold) -> Iterator[_Snapshot]:
        """A transaction with its snapshot, and the spooled files that it names, all of them held."""
        gone: set[str] = set()
        while True:
            with self._database.reading() as transaction:
                if transaction.is_postgres:
                    # Whoever receives the backup may be slow: the transaction is not stuck.
                    transaction.run("SET LOCAL idle_in_transaction_session_timeout = 0")
                names = artifacts.list_spool_names(transaction)
                failpoints.reach("backup.snapshot")
                missing = set(hold.add(names))
                # A file goes after its row has changed: the next snapshot does not name it any more. One that
                # was gone before this snapshot, which names it nevertheless, has been lost.
                if missing <= gone:
                    yield _Snapshot(transaction, sorted({*names} - missing), sorted(missing))
                    return
            gone = missing

    def _header(self, snapshot: _Snapshot) -> Header:
        transaction = snapshot.transaction
        is_postgres = transaction.is_postgres
        state = generations.read_state(transaction)
        return Header(
            format=FORMAT,
            product_version=__version__,
            schema_revision=HEAD,
            database=DatabaseKind.POSTGRES if is_postgres else DatabaseKind.SQLITE,
            installation=state.installation,
            generation=state.generation,
            created_at_ms=moment_of(transaction, self._clock),
            tables=copying.list_tables() if is_postgres else {},
            sequences=copying.read_sequences(transaction) if is_postgres else {},
            lost_files=snapshot.lost_files,
        )

    def _require_room(self, size_bytes: int) -> None:
        """A backup must not be what fills the disk.

        Raises:
            MlflowError: it might (507).
        """
        folder = self._spool.folder
        free = shutil.disk_usage(folder).free
        if free - size_bytes < _KEPT_FREE_BYTES:
            raise no_room(
                f"A backup needs {size_bytes} bytes in {folder} for a copy of the database, and would leave"
                f" less than {_KEPT_FREE_BYTES} of the {free} bytes that are free."
            )


def _table_pieces(transaction: Transaction, backup: BackupWriter) -> Iterator[bytes]:
    for table, columns in copying.list_tables().items():
        for number, part in enumerate(copying.export_table(transaction, table, columns)):
            failpoints.reach("backup.part")
            yield from backup.member(table_member(table, number), len(part), [part])


def _file_pieces(backup: BackupWriter, name: str, path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        size_bytes = path.stat().st_size
        yield from backup.member(name, size_bytes, iter(lambda: file.read(_READ_BYTES), b""))
