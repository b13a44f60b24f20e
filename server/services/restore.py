"""Putting a backup in place of a database: a whole one, or nothing.

Everything is unpacked and checked beside what is there. Only then is it exchanged, under a mark that keeps
servers away if that is cut off. What was there is moved aside, never deleted. The restored journal is a new
generation (`generations`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from server.database import copying
from server.database.clock import moment_of
from server.database.data_folder import UnfinishedRestore
from server.database.engine import Database, Transaction
from server.database.migration import HEAD, create_tables, migrate, upgrade
from server.database.replacing import list_own_tables, move_tables_aside
from server.database.session import list_living
from server.domain import failpoints
from server.domain.clock import Clock
from server.domain.errors import OperatorError
from server.services import generations
from server.services.backup_file import (
    SQLITE_FILE,
    BackupFileError,
    BackupReader,
    DatabaseKind,
    Header,
    table_of,
)
from server.services.generations import GenerationState
from server.services.restore_files import (
    Place,
    Staging,
    move_files_aside,
    put_database_in_place,
    put_spool_in_place,
    staged,
)
from server.spool.spool import has_files


class RestoreError(OperatorError):
    """The backup cannot be put there; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore has left. `moved_to` is where what was there before is now."""

    header: Header
    state: GenerationState
    moved_to: list[str]


def restore(backup: Path, place: Place, *, replaces: bool, clock: Clock) -> Restored:
    """Restore a backup. No server may use the place; the caller holds the data folder's lock.

    With `replaces` what is there is moved aside.

    Raises:
        BackupFileError: the file is not a whole backup that this version can read.
        RestoreError: there is something at that place already, or a server works on it.
    """
    reader = BackupReader(backup)
    header = reader.header()
    _check_header(header, place)
    with staged(place) as staging:
        task = _Restore(reader, header, place, staging, replaces=replaces, clock=clock)
        return task.to_sqlite() if header.database is DatabaseKind.SQLITE else task.to_postgres()


def _check_header(header: Header, place: Place) -> None:
    if header.schema_revision > HEAD:
        raise BackupFileError(
            f"The backup is of a newer version ({header.product_version}, schema {header.schema_revision};"
            f" this one knows {HEAD}). Upgrade mlproxy."
        )
    kind = DatabaseKind.POSTGRES if place.sqlite_file is None else DatabaseKind.SQLITE
    if header.database is not kind:
        wanted = "set" if header.database is DatabaseKind.POSTGRES else "unset"
        raise RestoreError(
            f"The backup is of a {header.database.value} database: restore it with MLPROXY_DATABASE_URL"
            f" {wanted}."
        )


class _Restore:
    """One restore, of either kind."""

    def __init__(
        self,
        reader: BackupReader,
        header: Header,
        place: Place,
        staging: Staging,
        *,
        replaces: bool,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._header = header
        self._place = place
        self._staging = staging
        self._replaces = replaces
        self._clock = clock
        self._mark = UnfinishedRestore(place.data_dir)

    # --- SQLite ---

    def to_sqlite(self) -> Restored:
        if self._place.database_files() or has_files(self._place.spool_dir):
            self._require_replacing(str(self._place.data_dir.absolute()))
        for member in self._reader.members():
            if member.name == SQLITE_FILE:
                self._staging.take_database(member)
            else:
                self._staging.take_spooled(member)
        self._reader.manifest()
        state = self._prepare_sqlite()
        moved_to = self._exchange_files(self._clock.now_ms())
        put_database_in_place(self._place, self._staging)
        self._mark.clear()
        return Restored(self._header, state, moved_to)

    def _prepare_sqlite(self) -> GenerationState:
        """Make the unpacked database one of this version, and of a new generation."""
        database = Database(f"sqlite:///{self._staging.database}")
        try:
            migrate(database)
            with database.writing(self._clock.now_ms()) as transaction:
                return self._begin_generation(transaction)
        finally:
            database.close()  # the last connection also brings the write-ahead log home

    # --- Postgres ---

    def to_postgres(self) -> Restored:
        database = Database(self._place.database_url)
        try:
            database.require_reachable()
            with database.reading() as transaction:
                now_ms = moment_of(transaction, self._clock)
            with database.writing(now_ms) as transaction:
                transaction.run("SET LOCAL idle_in_transaction_session_timeout = 0")
                schema = self._make_room(transaction)
                state = self._fill_tables(transaction)
                moved_to = self._exchange_files(now_ms)
            self._mark.clear()
        finally:
            database.close()
        return Restored(self._header, state, [*([f"schema {schema}"] if schema else []), *moved_to])

    def _make_room(self, transaction: Transaction) -> str | None:
        """An empty database; the schema that the tables were moved to, if there were any."""
        if list_living(transaction):
            raise RestoreError("A server works on this database: stop every one of them first.")
        tables = list_own_tables(transaction)
        if tables or has_files(self._place.spool_dir):
            self._require_replacing("The database, or the spool's folder,")
        if not tables:
            return None
        schema = f"mlproxy_replaced_{_stamp(transaction.now_ms)}"
        move_tables_aside(transaction, tables, schema)
        return schema

    def _fill_tables(self, transaction: Transaction) -> GenerationState:
        tables = self._header.tables
        is_current = self._header.schema_revision == HEAD
        if is_current:
            create_tables(transaction)
        else:
            upgrade(transaction, self._header.schema_revision)
        for member in self._reader.members():
            table = table_of(member.name)
            if table is None:
                self._staging.take_spooled(member)
            elif table in tables:
                copying.import_rows(transaction, table, tables[table], member.pieces())
            else:
                raise BackupFileError(f"The backup holds rows of {table!r}, which its header does not name.")
        self._reader.manifest()
        if not is_current:
            upgrade(transaction)
        copying.set_sequences(transaction, self._header.sequences)
        return self._begin_generation(transaction)

    # --- both ---

    def _require_replacing(self, what: str) -> None:
        if not self._replaces:
            raise RestoreError(
                f"{what} is not empty. Restore to an empty place, or use --replace: what is there is then"
                " moved aside, and nothing is deleted."
            )

    def _begin_generation(self, transaction: Transaction) -> GenerationState:
        self._staging.check_spooled(transaction, self._header)
        return generations.begin_next(transaction, restored_from_ms=self._header.created_at_ms)

    def _exchange_files(self, now_ms: int) -> list[str]:
        """Move aside what is there, and the spooled files into place. Once begun, it must be finished."""
        self._mark.set()
        moved_to = move_files_aside(self._place, _stamp(now_ms))
        failpoints.reach("restore.moved_aside")
        put_spool_in_place(self._place, self._staging)
        failpoints.reach("restore.spool_placed")
        return [str(path) for path in moved_to]


def _stamp(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y%m%dt%H%M%S%f")[:-3]
