"""Overflow: what the workspace's limits cannot hold, until the file that it goes into is delivered.

An entry leaves its run's data lane for the run's open file in the transaction that settles it, so it is in
one place at any moment. A file takes entries until it is closed: because it is full, or by its delivery
(`close_file`). What a closed file holds never changes.

Every file has one entry, `DeliverOverflow`, in the run's overflow lane, which is opened with the first of
them. The end of a run, and its deletion, wait for that lane; since only delivery knows what overflows, they
are made to wait when they are next (`list_undelivered`), not when they are accepted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from server.database.engine import Transaction
from server.domain.entities import RunStatus
from server.domain.operations import (
    DeleteRun,
    DeliverOverflow,
    LogPoint,
    Operation,
    UpdateRun,
)
from server.domain.overflow_files import path_of_file
from server.domain.workspace_limits import WorkspaceLimit
from server.journal import batches
from server.journal.batches import Batch
from server.journal.codec import encode_operation
from server.journal.contents import EntryRow
from server.journal.entries import Awaited, append_entry
from server.journal.lanes import LaneKind, lock_lanes, open_lane
from server.journal.leases import Lease, require_lease
from server.journal.points import PointRow

FILE_ENTRIES = 10_000
FILE_BYTES = 8 * 1024 * 1024
_ROW_BYTES = 64


@dataclass(frozen=True, slots=True)
class Overflowed:
    """A row of a data lane that the workspace cannot hold, with the limit that it breaks."""

    row: EntryRow | PointRow
    limit: WorkspaceLimit


@dataclass(frozen=True, slots=True)
class KeptRow:
    """An entry as the overflow keeps it."""

    position: int
    kind: str
    payload: bytes
    limit_name: str
    accepted_at_ms: int


@dataclass(frozen=True, slots=True)
class OverflowFile:
    """A file of a run's overflow."""

    number: int
    entries: int
    is_delivered: bool

    @property
    def path(self) -> str:
        """Its place in the run's folder in the workspace."""
        return path_of_file(self.number)


@dataclass(slots=True)
class _File:
    number: int
    entries: int = 0
    size_bytes: int = 0
    is_new: bool = True

    @property
    def is_full(self) -> bool:
        return self.entries >= FILE_ENTRIES or self.size_bytes >= FILE_BYTES


# --- filling --------------------------------------------------------------------------------


def settle_with_overflow(
    transaction: Transaction, lease: Lease, batch: Batch, overflowed: Sequence[Overflowed]
) -> None:
    """A batch is delivered but for what overflows, which is kept.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    keep_overflow(transaction, lease, overflowed)
    batches.settle(transaction, lease, batch)


def keep_overflow(transaction: Transaction, lease: Lease, overflowed: Sequence[Overflowed]) -> None:
    """Put rows of a run's data lane, which this transaction settles, into the run's open file.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    if not overflowed:
        return
    lane = require_lease(transaction, lease)
    run_pk = lane.subject_id
    overflow_lane = _lane_of_run(transaction, run_pk)
    file = _find_last_file(transaction, run_pk)
    rows = []
    files: dict[int, _File] = {}
    for item in sorted(overflowed, key=lambda item: item.row.position):
        if file.is_full:
            file = _File(file.number + 1)
        files[file.number] = file
        kind, payload = _encoded(item.row)
        rows.append(
            (
                lane.lane_id,
                item.row.position,
                run_pk,
                file.number,
                kind,
                payload,
                item.limit.value,
                item.row.accepted_at_ms,
            )
        )
        file.entries += 1
        file.size_bytes += _ROW_BYTES + len(payload)
    transaction.run_many(
        "INSERT INTO overflow (lane_id, position, run_pk, file_number, kind, payload, limit_name,"
        " accepted_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    _write_files(transaction, run_pk, overflow_lane, list(files.values()))


def _encoded(row: EntryRow | PointRow) -> tuple[str, bytes]:
    if isinstance(row, EntryRow):
        return row.kind, row.payload
    value = None if row.is_nan else row.value
    return encode_operation(LogPoint(row.key, value, row.timestamp_ms, row.step))


def _lane_of_run(transaction: Transaction, run_pk: int) -> int:
    """The run's overflow lane, held until the transaction ends; opened if this is its first use."""
    lane_id = find_lane(transaction, run_pk)
    if lane_id is None:
        lane_id = open_lane(transaction, LaneKind.RUN_OVERFLOW, run_pk)
        transaction.run("UPDATE runs SET overflow_lane_id = ? WHERE run_pk = ?", (lane_id, run_pk))
    lock_lanes(transaction, [lane_id])
    return lane_id


def _find_last_file(transaction: Transaction, run_pk: int) -> _File:
    """The run's open file, held until the transaction ends; the next one where there is none."""
    lock = " FOR UPDATE" if transaction.is_postgres else ""
    rows = transaction.rows(
        "SELECT file_number, entries, size_bytes, closed_at_ms FROM overflow_files WHERE run_pk = ?"
        f" ORDER BY file_number DESC LIMIT 1{lock}",
        (run_pk,),
    )
    if not rows:
        return _File(1)
    number, entries, size_bytes, closed_at_ms = rows[0]
    if closed_at_ms is not None:
        return _File(number + 1)
    return _File(number, entries, size_bytes, is_new=False)


def _write_files(transaction: Transaction, run_pk: int, overflow_lane: int, files: Sequence[_File]) -> None:
    now_ms = transaction.now_ms
    for file in files:
        closed_at_ms = now_ms if file.is_full else None
        if not file.is_new:
            transaction.run(
                "UPDATE overflow_files SET entries = ?, size_bytes = ?, closed_at_ms = ?"
                " WHERE run_pk = ? AND file_number = ?",
                (file.entries, file.size_bytes, closed_at_ms, run_pk, file.number),
            )
            continue
        transaction.run(
            "INSERT INTO overflow_files (run_pk, file_number, entries, size_bytes, opened_at_ms,"
            " closed_at_ms) VALUES (?, ?, ?, ?, ?, ?)",
            (run_pk, file.number, file.entries, file.size_bytes, now_ms, closed_at_ms),
        )
        append_entry(transaction, overflow_lane, DeliverOverflow(file.number), principal=None)


# --- delivering -----------------------------------------------------------------------------


def close_file(transaction: Transaction, run_pk: int, file_number: int) -> None:
    """Fix what the file holds. Closing what is closed changes nothing."""
    transaction.run(
        "UPDATE overflow_files SET closed_at_ms = ? WHERE run_pk = ? AND file_number = ?"
        " AND closed_at_ms IS NULL",
        (transaction.now_ms, run_pk, file_number),
    )


def is_delivered(transaction: Transaction, run_pk: int, file_number: int) -> bool:
    """Whether the workspace has the file."""
    rows = transaction.rows(
        "SELECT 1 FROM overflow_files WHERE run_pk = ? AND file_number = ? AND delivered_at_ms IS NOT NULL",
        (run_pk, file_number),
    )
    return bool(rows)


def read_file(
    transaction: Transaction, run_pk: int, file_number: int, *, after: int, limit: int
) -> list[KeptRow]:
    """Up to `limit` entries of a file behind position `after`, in order."""
    rows = transaction.rows(
        "SELECT position, kind, payload, limit_name, accepted_at_ms FROM overflow"
        " WHERE run_pk = ? AND file_number = ? AND position > ? ORDER BY position LIMIT ?",
        (run_pk, file_number, after, limit),
    )
    return [KeptRow(row[0], row[1], bytes(row[2]), row[3], row[4]) for row in rows]


def count_delivered(transaction: Transaction, run_pk: int, *, with_file: int) -> int:
    """How many entries the run's delivered files hold, the one named included."""
    return int(
        transaction.rows(
            "SELECT coalesce(sum(entries), 0) FROM overflow_files WHERE run_pk = ?"
            " AND (delivered_at_ms IS NOT NULL OR file_number = ?)",
            (run_pk, with_file),
        )[0][0]
    )


def mark_delivered(transaction: Transaction, run_pk: int, file_number: int) -> None:
    """The workspace has the file."""
    transaction.run(
        "UPDATE overflow_files SET delivered_at_ms = ? WHERE run_pk = ? AND file_number = ?",
        (transaction.now_ms, run_pk, file_number),
    )


def remove_delivered(transaction: Transaction, run_pk: int, file_number: int, *, limit: int) -> int:
    """Let go of up to `limit` entries of a delivered file; how many there were."""
    rows = transaction.rows(
        "SELECT overflow.lane_id, overflow.position FROM overflow JOIN overflow_files"
        " ON overflow_files.run_pk = overflow.run_pk AND overflow_files.file_number = overflow.file_number"
        " WHERE overflow.run_pk = ? AND overflow.file_number = ?"
        " AND overflow_files.delivered_at_ms IS NOT NULL LIMIT ?",
        (run_pk, file_number, limit),
    )
    transaction.run_many("DELETE FROM overflow WHERE lane_id = ? AND position = ?", rows)
    return len(rows)


# --- waiting --------------------------------------------------------------------------------


def find_lane(transaction: Transaction, run_pk: int) -> int | None:
    """The run's overflow lane, if anything of it has ever overflowed."""
    rows = transaction.rows("SELECT overflow_lane_id FROM runs WHERE run_pk = ?", (run_pk,))
    return rows[0][0] if rows else None


def list_undelivered(transaction: Transaction, run_pk: int, operation: Operation | None) -> list[Awaited]:
    """The overflow that must be delivered before an operation, if that ends the run."""
    match operation:
        case UpdateRun(status) if status is not None and RunStatus(status).is_terminal:
            pass
        case DeleteRun():
            pass
        case _:
            return []
    rows = transaction.rows(
        "SELECT lanes.lane_id, lanes.last_position FROM runs JOIN lanes ON lanes.lane_id = overflow_lane_id"
        " WHERE runs.run_pk = ? AND lanes.settled_position < lanes.last_position",
        (run_pk,),
    )
    return [Awaited(lane_id, position) for lane_id, position in rows]


def await_overflow(transaction: Transaction, lease: Lease, position: int, awaited: Sequence[Awaited]) -> None:
    """Hold the lane's entry at `position` until other lanes have settled these positions.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    lane = require_lease(transaction, lease)
    transaction.run_many(
        "INSERT INTO barriers (lane_id, position, awaited_lane_id, awaited_position) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (lane_id, position, awaited_lane_id)"
        " DO UPDATE SET awaited_position = excluded.awaited_position",
        [(lane.lane_id, position, item.lane_id, item.position) for item in awaited],
    )


# --- telling --------------------------------------------------------------------------------


def count_overflow(transaction: Transaction, lane_ids: Sequence[int] | None = None) -> int:
    """How many entries overflowed, delivered or not; over all runs, or those that have these lanes."""
    if lane_ids is None:
        return int(transaction.rows("SELECT coalesce(sum(entries), 0) FROM overflow_files")[0][0])
    rows = transaction.rows_in(
        "SELECT coalesce(sum(overflow_files.entries), 0) FROM lanes JOIN overflow_files"
        f" ON overflow_files.run_pk = lanes.subject_id WHERE lanes.kind = '{LaneKind.RUN_OVERFLOW.value}'"
        " AND lanes.lane_id",
        lane_ids,
    )
    return sum(int(row[0]) for row in rows)


def list_files(transaction: Transaction, run_pk: int) -> list[OverflowFile]:
    """The run's files, in order."""
    rows = transaction.rows(
        "SELECT file_number, entries, delivered_at_ms FROM overflow_files WHERE run_pk = ?"
        " ORDER BY file_number",
        (run_pk,),
    )
    return [OverflowFile(number, entries, delivered is not None) for number, entries, delivered in rows]
