"""Claiming lanes.

At most one worker holds a lane. A lease that expires is free for anyone, so every result is accepted
only under the token it was claimed with. Replicas on machines whose clocks differ share one Postgres: when a
lease ends is told by the database's clock.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from server.database import postgres
from server.database.engine import Transaction
from server.journal.batch_states import BatchState
from server.journal.gathering import wait_is_over_sql
from server.journal.lanes import LaneKind

_TOKEN_BYTES = 16
_LANE = (
    "lane_id, kind, subject_id, last_position, settled_position, failures, not_before_ms, uncertain_through,"
    " restored_through"
)
# No lane is made to wait this long: its moment was written down before the clock was put back.
_NEVER_THIS_LONG_MS = 60 * 60_000


class LeaseLostError(Exception):
    """Another worker holds the lane by now; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane's row.

    What it holds up to `uncertain_through` may have arrived already; up to `restored_through` because another
    generation of the journal may have sent it (`journal.restored`).
    """

    lane_id: int
    kind: LaneKind
    subject_id: int
    last_position: int
    settled_position: int
    failures: int
    not_before_ms: int
    uncertain_through: int = 0
    restored_through: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on a lane."""

    lane: Lane
    token: str
    epoch: int


def _lane(row: tuple[Any, ...]) -> Lane:
    return Lane(row[0], LaneKind(row[1]), *row[2:9])


class Preference(StrEnum):
    """Which lanes come first among those that can be claimed."""

    LEAST_RECENT = "not_before_ms, lane_id"
    """Those that were served the longest time ago: everyone has a turn."""
    SHORTEST = "last_position - settled_position, not_before_ms, lane_id"
    """Those with the least to deliver: a single point does not wait for a thousand runs."""


def list_claimable(
    transaction: Transaction,
    *,
    now_ms: int,
    limit: int,
    kinds: Iterable[LaneKind] = tuple(LaneKind),
    preference: Preference = Preference.LEAST_RECENT,
    is_flushing: bool = False,
) -> list[int]:
    """Lanes with something to deliver that nobody holds and whose wait is over.

    Those whose next entry waits for another lane are left out: while only one worker may knock at the
    workspace, they would take its place for nothing. An overflow file may have waited long enough though
    its lane was to wait on (`journal.gathering`).
    """
    is_free, moment = _is_free(transaction, now_ms)
    kind_values = [kind.value for kind in kinds]
    rows = transaction.rows(
        "SELECT lane_id FROM lanes WHERE settled_position < last_position"
        " AND (not_before_ms <= ? OR not_before_ms > ?"
        f" OR (kind = '{LaneKind.RUN_OVERFLOW.value}' AND {wait_is_over_sql(is_flushing=is_flushing)}))"
        f" AND {is_free}"
        f" AND kind IN ({','.join('?' * len(kind_values))}) AND NOT EXISTS (SELECT 1 FROM barriers"
        " JOIN lanes AS awaited ON awaited.lane_id = barriers.awaited_lane_id"
        " WHERE barriers.lane_id = lanes.lane_id AND barriers.position = lanes.settled_position + 1"
        " AND awaited.settled_position < barriers.awaited_position)"
        f" ORDER BY {preference.value} LIMIT ?",
        (now_ms, now_ms + _NEVER_THIS_LONG_MS, *moment, *kind_values, limit),
    )
    return [row[0] for row in rows]


def _is_free(transaction: Transaction, now_ms: int) -> tuple[str, tuple[int, ...]]:
    """The condition that nobody holds a lane, and its parameters."""
    now, moment = _moment(transaction, now_ms)
    return f"(lease_until_ms IS NULL OR lease_until_ms <= {now})", moment


def _moment(transaction: Transaction, now_ms: int, ahead_ms: int = 0) -> tuple[str, tuple[int, ...]]:
    """A moment some time ahead in SQL, and its parameters; on Postgres by the database's own clock."""
    if transaction.is_postgres:
        return f"{postgres.CLOCK} + {ahead_ms}", ()
    return "?", (now_ms + ahead_ms,)


def claim(transaction: Transaction, lane_id: int, *, owner: str, lease_ms: int) -> Lease | None:
    """Claim a lane, unless someone holds it. A batch that its last holder sent becomes uncertain."""
    token = secrets.token_hex(_TOKEN_BYTES)
    lock = " FOR UPDATE SKIP LOCKED" if transaction.is_postgres else ""
    is_free, moment = _is_free(transaction, transaction.now_ms)
    rows = transaction.rows(
        f"SELECT {_LANE}, lease_epoch FROM lanes WHERE lane_id = ? AND settled_position < last_position"
        f" AND {is_free}{lock}",
        (lane_id, *moment),
    )
    if not rows:
        return None
    epoch = rows[0][-1] + 1
    until, moment = _moment(transaction, transaction.now_ms, lease_ms)
    transaction.run(
        f"UPDATE lanes SET lease_owner = ?, lease_token = ?, lease_epoch = ?, lease_until_ms = {until}"
        " WHERE lane_id = ?",
        (owner, token, epoch, *moment, lane_id),
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
    prolong, moment = "", tuple[int, ...]()
    if lease_ms is not None:
        until, moment = _moment(transaction, transaction.now_ms, lease_ms)
        prolong = f", lease_until_ms = {until}"
    held = transaction.run(
        f"UPDATE lanes SET lease_epoch = lease_epoch{prolong} WHERE lane_id = ? AND lease_token = ?",
        (*moment, lease.lane.lane_id, lease.token),
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


def release_owned(
    transaction: Transaction, owners: Iterable[str], *, only_lanes: Iterable[int] | None = None
) -> int:
    """Take back what these owners hold, or some of it; how many leases that were."""
    wanted = None if only_lanes is None else set(only_lanes)
    held = transaction.rows_in("SELECT lane_id, lease_token FROM lanes WHERE lease_owner", owners)
    taken = [(lane_id, token) for lane_id, token in held if wanted is None or lane_id in wanted]
    transaction.run_many(
        "UPDATE lanes SET lease_owner = NULL, lease_token = NULL, lease_until_ms = NULL"
        " WHERE lane_id = ? AND lease_token = ?",
        sorted(taken),
    )
    return len(taken)


def list_owned(transaction: Transaction, owners: Iterable[str]) -> list[int]:
    """The lanes that these owners hold."""
    return [row[0] for row in transaction.rows_in("SELECT lane_id FROM lanes WHERE lease_owner", owners)]


def list_owners(transaction: Transaction) -> list[str]:
    """Who holds lanes."""
    rows = transaction.rows("SELECT DISTINCT lease_owner FROM lanes WHERE lease_owner IS NOT NULL")
    return [row[0] for row in rows]


def hurry(transaction: Transaction, lane_ids: Iterable[int]) -> None:
    """Let lanes that wait for others be looked at again now."""
    transaction.run_many(
        "UPDATE lanes SET not_before_ms = ? WHERE lane_id = ? AND lease_token IS NULL AND not_before_ms > ?",
        [(transaction.now_ms, lane_id, transaction.now_ms) for lane_id in sorted(set(lane_ids))],
    )


def list_postponed(transaction: Transaction, *, now_ms: int) -> list[int]:
    """Lanes with something to deliver that wait for a moment to come."""
    rows = transaction.rows(
        "SELECT lane_id FROM lanes WHERE settled_position < last_position AND not_before_ms > ?"
        " AND lease_token IS NULL ORDER BY lane_id",
        (now_ms,),
    )
    return [row[0] for row in rows]
