"""What became of a transaction whose COMMIT got no answer.

A writer has a row of its own, in which each of its transactions leaves a number just before COMMIT. When
the connection is lost, the number in the row, read by another connection, tells whether the transaction was
kept. The lost transaction holds the row's lock for as long as Postgres still works on it, so the reader
waits for its end by itself. (Postgres' own `pg_xact_status` cannot be asked: after a crash it gives the
number of a transaction that is gone to the next one, and then calls it committed.)

SQLite needs none of this. Its COMMIT is a call in this process, not a message: a COMMIT that fails has left
the transaction out of the log's index, where no connection sees it, and the next commit overwrites what
had been written of it.
"""

import time
from uuid import uuid4

import structlog

from server.database.engine import Database, Transaction
from server.database.postgres import DatabaseAwayError, OutcomeUnknownError

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.1
_LOCK_SECONDS = 2
_DEAD_AFTER_MS = 30 * 24 * 3600 * 1000
_ADD = (
    "INSERT INTO commit_marks (writer, number, marked_at_ms) VALUES (?, 0, ?) ON CONFLICT (writer) DO NOTHING"
)
_REMOVE_DEAD = "DELETE FROM commit_marks WHERE marked_at_ms < ?"
_MARK = (
    "UPDATE commit_marks SET number = ?, marked_at_ms = ? WHERE writer = ?"
    # What has written nothing shall not be made to wait for the disk.
    " AND pg_current_xact_id_if_assigned() IS NOT NULL"
)
_READ = "SELECT number FROM commit_marks WHERE writer = ? FOR UPDATE"


class CommitMarks:
    """The marks of one writer, which has one transaction at a time."""

    def __init__(self, database: Database, *, answer_seconds: float = 20.0) -> None:
        self._database = database
        self._answer_seconds = answer_seconds
        self._writer = uuid4().hex
        self._number = 0
        self._has_row = False

    def prepare(self, now_ms: int) -> None:
        """Have a row to mark, before the first transaction. The rows of writers long dead go.

        Raises:
            DatabaseAwayError: Postgres cannot be reached.
        """
        if self._has_row or not self._database.is_postgres:
            return
        try:
            with self._database.writing(now_ms) as transaction:
                transaction.run(_ADD, (self._writer, now_ms))
                transaction.run(_REMOVE_DEAD, (now_ms - _DEAD_AFTER_MS,))
        except OutcomeUnknownError as lost:
            raise DatabaseAwayError from lost  # to do it twice changes nothing
        self._has_row = True

    def mark(self, transaction: Transaction) -> int | None:
        """Mark a transaction that has done its work; None where nothing is to be found out later."""
        if not self._database.is_postgres:
            return None
        self._number += 1
        marked = transaction.run(_MARK, (self._number, transaction.now_ms, self._writer))
        return self._number if marked else None

    def was_committed(self, mark: int | None) -> bool:
        """Whether the transaction with this mark, the writer's last, was committed. It has ended by then.

        Raises:
            OutcomeUnknownError: the database does not tell in time.
        """
        if mark is None:
            return False
        deadline = time.monotonic() + self._answer_seconds
        while True:
            number = self._find_number()
            if number is not None:
                log.warning("commit_outcome_found", committed=number == mark)
                return number == mark
            if time.monotonic() >= deadline:
                # Whatever still holds the row must not hold up what comes next.
                self._writer, self._has_row = uuid4().hex, False
                raise OutcomeUnknownError
            time.sleep(_LOOK_SECONDS)

    def _find_number(self) -> int | None:
        """The number in the row once nobody holds it; None while the database cannot say."""
        try:
            with self._database.writing(0) as transaction:
                transaction.run(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
                rows = transaction.rows(_READ, (self._writer,))
        except (DatabaseAwayError, OutcomeUnknownError):
            return None
        except transaction.driver_error as error:
            log.info("commit_still_under_way", error=type(error).__name__)
            return None
        return int(rows[0][0]) if rows else None
