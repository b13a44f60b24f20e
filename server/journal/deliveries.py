"""Claiming lanes, fixing batches, settling results.

At most one worker holds a lane. A lease that expires is free for anyone, so every result is
accepted only under the token it was claimed with. A batch is written down before its first send:
what was sent and not settled is *uncertain* after a restart.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from server.database.engine import Transaction
from server.domain.operations import LogPoint, Operation
from server.journal.codec import CorruptEntryError, decode_operation, encode_operation
from server.journal.lanes import LaneKind

POINT_KIND = LogPoint.__name__
_TOKEN_BYTES = 16


class LeaseLostError(Exception):
    """Another worker holds the lane by now; nothing was changed."""


class BatchState(StrEnum):
    """Where a batch stands."""

    FIXED = "fixed"
    """Written down, and definitely not applied: to be sent."""
    SENT = "sent"
    """On its way; after a restart it is uncertain."""
    UNCERTAIN = "uncertain"
    """Sent, outcome unknown: to be read back."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane's row."""

    lane_id: int
    kind: LaneKind
    subject_id: int
    last_position: int
    settled_position: int
    failures: int
    not_before_ms: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on a lane."""

    lane: Lane
    token: str
    epoch: int


@dataclass(frozen=True, slots=True)
class PointRow:
    """One metric point in a lane."""

    position: int
    key: str
    value: float
    is_nan: bool
    timestamp_ms: int
    step: int
    accepted_at_ms: int


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One other operation in a lane. `operation` is None where the row cannot be read back."""

    position: int
    kind: str
    payload: bytes
    operation: Operation | None
    accepted_at_ms: int
    principal: str | None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one upstream call carries: a range of positions, fixed durably before the first send."""

    batch_id: int
    lane_id: int
    first_position: int
    last_position: int
    state: BatchState
    attempt: int
    empty_reads: int
    first_empty_read_ms: int | None


@dataclass(slots=True)
class Contents:
    """The rows in a range of positions."""

    entries: list[EntryRow] = field(default_factory=list)
    points: list[PointRow] = field(default_factory=list)


# --- leases ---------------------------------------------------------------------------------

_LANE = "lane_id, kind, subject_id, last_position, settled_position, failures, not_before_ms"


def _lane(row: tuple[Any, ...]) -> Lane:
    return Lane(row[0], LaneKind(row[1]), *row[2:7])


def list_claimable(transaction: Transaction, *, now_ms: int, limit: int) -> list[int]:
    """Lanes with something to deliver that nobody holds and whose wait is over.

    Those whose next entry waits for another lane are left out: while only one worker may knock at the
    workspace, they would take its place for nothing.
    """
    rows = transaction.rows(
        "SELECT lane_id FROM lanes WHERE settled_position < last_position AND not_before_ms <= ?"
        " AND (lease_until_ms IS NULL OR lease_until_ms <= ?) AND NOT EXISTS (SELECT 1 FROM barriers"
        " JOIN lanes AS awaited ON awaited.lane_id = barriers.awaited_lane_id"
        " WHERE barriers.lane_id = lanes.lane_id AND barriers.position = lanes.settled_position + 1"
        " AND awaited.settled_position < barriers.awaited_position)"
        " ORDER BY not_before_ms, lane_id LIMIT ?",
        (now_ms, now_ms, limit),
    )
    return [row[0] for row in rows]


def claim(transaction: Transaction, lane_id: int, *, owner: str, lease_ms: int) -> Lease | None:
    """Claim a lane, unless someone holds it. A batch that its last holder sent becomes uncertain."""
    token = secrets.token_hex(_TOKEN_BYTES)
    lock = " FOR UPDATE SKIP LOCKED" if transaction.is_postgres else ""
    rows = transaction.rows(
        f"SELECT {_LANE}, lease_epoch FROM lanes WHERE lane_id = ? AND settled_position < last_position"
        f" AND (lease_until_ms IS NULL OR lease_until_ms <= ?){lock}",
        (lane_id, transaction.now_ms),
    )
    if not rows:
        return None
    epoch = rows[0][7] + 1
    transaction.run(
        "UPDATE lanes SET lease_owner = ?, lease_token = ?, lease_epoch = ?, lease_until_ms = ?"
        " WHERE lane_id = ?",
        (owner, token, epoch, transaction.now_ms + lease_ms, lane_id),
    )
    transaction.run(
        "UPDATE batches SET state = ? WHERE lane_id = ? AND state = ?",
        (BatchState.UNCERTAIN.value, lane_id, BatchState.SENT.value),
    )
    return Lease(_lane(rows[0]), token, epoch)


def _require_lease(transaction: Transaction, lease: Lease, *, lease_ms: int | None = None) -> Lane:
    """The lane as it is now, if the lease still holds; optionally prolonged.

    Raises:
        LeaseLostError: it does not.
    """
    until = "" if lease_ms is None else f"{transaction.now_ms + lease_ms}"
    prolong = f", lease_until_ms = {until}" if until else ""
    held = transaction.run(
        f"UPDATE lanes SET lease_epoch = lease_epoch{prolong} WHERE lane_id = ? AND lease_token = ?",
        (lease.lane.lane_id, lease.token),
    )
    if held != 1:
        raise LeaseLostError(lease.lane.lane_id)
    return read_lane(transaction, lease.lane.lane_id)


def read_lane(transaction: Transaction, lane_id: int) -> Lane:
    """The lane's row."""
    return _lane(transaction.rows(f"SELECT {_LANE} FROM lanes WHERE lane_id = ?", (lane_id,))[0])


def renew(transaction: Transaction, lease: Lease, *, lease_ms: int) -> Lane:
    """Prolong a lease; the lane as it is now.

    Raises:
        LeaseLostError: another worker holds it.
    """
    return _require_lease(transaction, lease, lease_ms=lease_ms)


def release(transaction: Transaction, lease: Lease, *, not_before_ms: int) -> None:
    """Give a lane back; nobody claims it before the given moment. A lost lease is left alone."""
    transaction.run(
        "UPDATE lanes SET lease_owner = NULL, lease_token = NULL, lease_until_ms = NULL, not_before_ms = ?"
        " WHERE lane_id = ? AND lease_token = ?",
        (not_before_ms, lease.lane.lane_id, lease.token),
    )


def release_all(transaction: Transaction) -> None:
    """Take back every lease, at the start of the only process that uses this database.

    What its predecessor had sent is uncertain as soon as it is claimed; nobody waits for the leases to end.
    """
    transaction.run(
        "UPDATE lanes SET lease_owner = NULL, lease_token = NULL, lease_until_ms = NULL, not_before_ms = 0"
        " WHERE lease_token IS NOT NULL"
    )


# --- reading --------------------------------------------------------------------------------


def read_range(transaction: Transaction, lane_id: int, first: int, last: int, *, limit: int) -> Contents:
    """Up to `limit` rows of each table in a range of positions, in order."""
    entries = transaction.rows(
        "SELECT position, kind, payload, accepted_at_ms, principal FROM journal_entries"
        " WHERE lane_id = ? AND position BETWEEN ? AND ? ORDER BY position LIMIT ?",
        (lane_id, first, last, limit),
    )
    points = transaction.rows(
        "SELECT journal_points.position, series.key, journal_points.value, journal_points.is_nan,"
        " journal_points.timestamp_ms, journal_points.step, journal_points.accepted_at_ms"
        " FROM journal_points JOIN series ON series.series_id = journal_points.series_id"
        " WHERE lane_id = ? AND position BETWEEN ? AND ? ORDER BY position LIMIT ?",
        (lane_id, first, last, limit),
    )
    return Contents(
        [_entry(row) for row in entries],
        [PointRow(row[0], row[1], row[2], bool(row[3]), *row[4:7]) for row in points],
    )


def _entry(row: tuple[Any, ...]) -> EntryRow:
    position, kind, payload, accepted_at_ms, principal = row
    try:
        return EntryRow(
            position, kind, bytes(payload), decode_operation(kind, bytes(payload)), accepted_at_ms, principal
        )
    except CorruptEntryError as error:
        return EntryRow(position, kind, bytes(payload), None, accepted_at_ms, principal, str(error))


def find_open_batch(transaction: Transaction, lane_id: int) -> Batch | None:
    """The lane's batch that was sent and is not settled."""
    rows = transaction.rows(
        "SELECT batch_id, lane_id, first_position, last_position, state, attempt, empty_reads,"
        " first_empty_read_ms"
        " FROM batches WHERE lane_id = ? ORDER BY first_position LIMIT 1",
        (lane_id,),
    )
    if not rows:
        return None
    batch_id, lane, first, last, state, attempt, empty_reads, first_empty_read_ms = rows[0]
    return Batch(batch_id, lane, first, last, BatchState(state), attempt, empty_reads, first_empty_read_ms)


def list_unmet_barriers(
    transaction: Transaction, lane_id: int, first: int, last: int
) -> dict[int, list[int]]:
    """Position → lanes it still waits for, in a range of positions."""
    unmet: dict[int, list[int]] = {}
    for position, awaited in transaction.rows(
        "SELECT barriers.position, barriers.awaited_lane_id FROM barriers"
        " JOIN lanes ON lanes.lane_id = barriers.awaited_lane_id"
        " WHERE barriers.lane_id = ? AND barriers.position BETWEEN ? AND ?"
        " AND lanes.settled_position < barriers.awaited_position ORDER BY barriers.position",
        (lane_id, first, last),
    ):
        unmet.setdefault(position, []).append(awaited)
    return unmet


def list_waiting_lanes(transaction: Transaction, awaited: Iterable[int]) -> list[int]:
    """Lanes that have a barrier on one of these lanes."""
    return [
        row[0]
        for row in transaction.rows_in("SELECT DISTINCT lane_id FROM barriers WHERE awaited_lane_id", awaited)
    ]


# --- batches --------------------------------------------------------------------------------


def fix_batch(transaction: Transaction, lease: Lease, first: int, last: int, *, lease_ms: int) -> Batch:
    """Write down what is about to be sent.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    _require_lease(transaction, lease, lease_ms=lease_ms)
    rows = transaction.rows(
        "INSERT INTO batches (lane_id, first_position, last_position, state, attempt, epoch, sent_at_ms)"
        " VALUES (?, ?, ?, ?, 1, ?, ?) RETURNING batch_id",
        (lease.lane.lane_id, first, last, BatchState.SENT.value, lease.epoch, transaction.now_ms),
    )
    return Batch(rows[0][0], lease.lane.lane_id, first, last, BatchState.SENT, 1, 0, None)


def mark_sent(transaction: Transaction, lease: Lease, batch: Batch, *, lease_ms: int) -> None:
    """Write down that a fixed batch is about to be sent (once more).

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    _require_lease(transaction, lease, lease_ms=lease_ms)
    transaction.run(
        "UPDATE batches SET state = ?, attempt = attempt + 1, empty_reads = 0, first_empty_read_ms = NULL,"
        " sent_at_ms = ?, epoch = ? WHERE batch_id = ?",
        (BatchState.SENT.value, transaction.now_ms, lease.epoch, batch.batch_id),
    )


def mark_uncertain(transaction: Transaction, lease: Lease, batch: Batch, failure: str) -> None:
    """The outcome of a batch is unknown.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    _require_lease(transaction, lease)
    transaction.run(
        "UPDATE batches SET state = ? WHERE batch_id = ?", (BatchState.UNCERTAIN.value, batch.batch_id)
    )
    _note_failure(transaction, lease, failure)


def note_empty_read(transaction: Transaction, lease: Lease, batch: Batch) -> Batch:
    """An uncertain batch was looked for and not (all) found.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    _require_lease(transaction, lease)
    first = batch.first_empty_read_ms or transaction.now_ms
    transaction.run(
        "UPDATE batches SET empty_reads = empty_reads + 1, first_empty_read_ms = ? WHERE batch_id = ?",
        (first, batch.batch_id),
    )
    return Batch(
        batch.batch_id,
        batch.lane_id,
        batch.first_position,
        batch.last_position,
        batch.state,
        batch.attempt,
        batch.empty_reads + 1,
        first,
    )


def forget_batch(transaction: Transaction, lease: Lease, batch: Batch, failure: str) -> None:
    """A batch was definitely not applied: its positions are free to be batched anew.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    _require_lease(transaction, lease)
    transaction.run("DELETE FROM batches WHERE batch_id = ?", (batch.batch_id,))
    _note_failure(transaction, lease, failure)


def split_batch(
    transaction: Transaction, lease: Lease, batch: Batch, *, state: BatchState, failure: str
) -> None:
    """A batch holds something that is refused: it becomes two halves, in the given state.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    _require_lease(transaction, lease)
    middle = (batch.first_position + batch.last_position) // 2
    halves = ((batch.first_position, middle), (middle + 1, batch.last_position))
    transaction.run("DELETE FROM batches WHERE batch_id = ?", (batch.batch_id,))
    transaction.run_many(
        "INSERT INTO batches (lane_id, first_position, last_position, parent_batch_id, state, attempt, epoch,"
        " sent_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                batch.lane_id,
                first,
                last,
                batch.batch_id,
                state.value,
                batch.attempt,
                lease.epoch,
                transaction.now_ms,
            )
            for first, last in halves
        ],
    )
    _note_failure(transaction, lease, failure)


def settle(transaction: Transaction, lease: Lease, batch: Batch) -> None:
    """A batch is delivered: the watermark moves, its rows leave the journal.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    _require_lease(transaction, lease)
    _remove_range(transaction, batch)
    transaction.run(
        "UPDATE lanes SET settled_position = ?, failures = 0, last_failure = NULL WHERE lane_id = ?",
        (batch.last_position, batch.lane_id),
    )


def park(
    transaction: Transaction, lease: Lease, batch: Batch, contents: Contents, *, reason: str, message: str
) -> None:
    """Set a batch's entries aside, and let the lane go on behind them.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    lane = _require_lease(transaction, lease)
    run_pk = lane.subject_id if lane.kind in (LaneKind.RUN_DATA, LaneKind.RUN_ARTIFACTS) else None
    rows = [
        (lane.lane_id, row.position, run_pk, row.kind, row.payload, row.principal, row.accepted_at_ms)
        for row in contents.entries
    ]
    for point in contents.points:
        value = None if point.is_nan else point.value
        kind, payload = encode_operation(LogPoint(point.key, value, point.timestamp_ms, point.step))
        rows.append((lane.lane_id, point.position, run_pk, kind, payload, None, point.accepted_at_ms))
    transaction.run_many(
        "INSERT INTO parked (lane_id, position, run_pk, kind, payload, principal, accepted_at_ms,"
        " reason, message,"
        " parked_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(*row, reason, message, transaction.now_ms) for row in rows],
    )
    settle(transaction, lease, batch)


def _remove_range(transaction: Transaction, batch: Batch) -> None:
    where = " WHERE lane_id = ? AND position BETWEEN ? AND ?"
    bounds = (batch.lane_id, batch.first_position, batch.last_position)
    for table in ("journal_entries", "journal_points", "barriers"):
        transaction.run(f"DELETE FROM {table}{where}", bounds)
    transaction.run("DELETE FROM batches WHERE batch_id = ?", (batch.batch_id,))


def _note_failure(transaction: Transaction, lease: Lease, failure: str) -> None:
    transaction.run(
        "UPDATE lanes SET failures = failures + 1, last_failure = ? WHERE lane_id = ?",
        (failure, lease.lane.lane_id),
    )


# --- figures --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has still to be delivered."""

    pending: int
    uncertain: int
    parked: int
    overflow: int
    oldest_ms: int | None


def measure_backlog(transaction: Transaction, lane_ids: list[int] | None = None) -> Backlog:
    """Counts over all lanes, or over some."""
    only = "" if lane_ids is None else f" AND lane_id IN ({','.join('?' * len(lane_ids))})"
    ids = lane_ids or []
    pending = transaction.rows(
        "SELECT coalesce(sum(last_position - settled_position), 0) FROM lanes"
        f" WHERE settled_position < last_position{only}",
        ids,
    )[0][0]
    uncertain = transaction.rows(
        f"SELECT coalesce(sum(last_position - first_position + 1), 0) FROM batches WHERE state = ?{only}",
        [BatchState.UNCERTAIN.value, *ids],
    )[0][0]
    parked = transaction.rows(f"SELECT count(*) FROM parked WHERE decision IS NULL{only}", ids)[0][0]
    overflowed = transaction.rows(f"SELECT count(*) FROM overflow WHERE 1 = 1{only}", ids)[0][0]
    return Backlog(
        int(pending), int(uncertain), int(parked), int(overflowed), _oldest(transaction, only, ids)
    )


def _oldest(transaction: Transaction, only: str, ids: list[int]) -> int | None:
    """When the oldest undelivered entry was accepted: each lane's next position is looked up."""
    times = []
    for table in ("journal_entries", "journal_points"):
        rows = transaction.rows(
            f"SELECT min(heads.accepted) FROM (SELECT (SELECT accepted_at_ms FROM {table}"
            f" WHERE {table}.lane_id = lanes.lane_id ORDER BY position LIMIT 1) AS accepted FROM lanes"
            f" WHERE settled_position < last_position{only}) AS heads",
            ids,
        )
        if rows[0][0] is not None:
            times.append(rows[0][0])
    return min(times) if times else None


def hurry(transaction: Transaction, lane_ids: Iterable[int]) -> None:
    """Let lanes that wait for others be looked at again now."""
    transaction.run_many(
        "UPDATE lanes SET not_before_ms = 0 WHERE lane_id = ? AND lease_token IS NULL",
        [(lane_id,) for lane_id in lane_ids],
    )
