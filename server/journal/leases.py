"""Claiming lanes.

At most one worker holds a lane. A lease that expires is free for anyone, so every result is accepted
only under the token it was claimed with.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from server.database.engine import Transaction
from server.journal.batch_states import BatchState
from server.journal.lanes import LaneKind

_TOKEN_BYTES = 16
_LANE = "lane_id, kind, subject_id, last_position, settled_position, failures, not_before_ms"


class LeaseLostError(Exception):
    """Another worker holds the lane by now; nothing was changed."""


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


def require_lease(transaction: Transaction, lease: Lease, *, lease_ms: int | None = None) -> Lane:
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
    return require_lease(transaction, lease, lease_ms=lease_ms)


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


def hurry(transaction: Transaction, lane_ids: Iterable[int]) -> None:
    """Let lanes that wait for others be looked at again now."""
    transaction.run_many(
        "UPDATE lanes SET not_before_ms = 0 WHERE lane_id = ? AND lease_token IS NULL",
        [(lane_id,) for lane_id in lane_ids],
    )
