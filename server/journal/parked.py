"""Parked entries: set aside with a reason, until an operator decides on them.

A decided row stays, with the decision and who made it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from server.database.engine import Transaction
from server.journal.lanes import LaneKind


class Reason(StrEnum):
    """Why an entry was set aside."""

    REFUSED = "refused"
    UNCERTAIN_OUTCOME = "uncertain_outcome"
    CORRUPT_ENTRY = "corrupt_entry"


class Decision(StrEnum):
    """What became of a parked entry."""

    RETRIED = "retried"
    """Back on its lane."""
    SUPERSEDED = "superseded"
    """To be retried, but what came later has taken its place: nothing was left to send."""
    DROPPED = "dropped"
    """Never to be delivered."""


@dataclass(frozen=True, slots=True)
class ParkedEntry:
    """One entry that was set aside, and where it stood."""

    parked_id: int
    lane_id: int
    lane_kind: LaneKind
    subject_id: int
    position: int
    run_pk: int | None
    run_id: str | None
    kind: str
    payload: bytes
    reason: str
    message: str
    principal: str | None
    accepted_at_ms: int
    parked_at_ms: int
    decision: str | None
    decided_by: str | None
    decided_at_ms: int | None
    decision_reason: str | None


@dataclass(frozen=True, slots=True)
class ParkedKey:
    """What is needed to put parked entries in order."""

    parked_id: int
    lane_id: int
    lane_kind: LaneKind
    subject_id: int
    position: int
    kind: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Undecided entries: those named, those of one run, or all. What is None does not matter."""

    parked_ids: tuple[int, ...] | None = None
    run_pk: int | None = None
    reason: str | None = None


_ENTRY = (
    "SELECT parked.parked_id, parked.lane_id, lanes.kind, lanes.subject_id, parked.position, parked.run_pk,"
    " runs.run_id, parked.kind, parked.payload, parked.reason, parked.message, parked.principal,"
    " parked.accepted_at_ms, parked.parked_at_ms, parked.decision, parked.decided_by, parked.decided_at_ms,"
    " parked.decision_reason FROM parked JOIN lanes ON lanes.lane_id = parked.lane_id"
    " LEFT JOIN runs ON runs.run_pk = parked.run_pk"
)


def _entry(row: tuple[Any, ...]) -> ParkedEntry:
    parked_id, lane_id, lane_kind, *rest = row
    rest[5] = bytes(rest[5])
    return ParkedEntry(parked_id, lane_id, LaneKind(lane_kind), *rest)


# --- looking --------------------------------------------------------------------------------


def list_undecided(
    transaction: Transaction, selection: Selection, *, after: int, limit: int
) -> list[ParkedEntry]:
    """A page of undecided entries behind the id `after`, in the order in which they were set aside."""
    where, values = _undecided(selection)
    rows = transaction.rows(
        f"{_ENTRY} WHERE {where} AND parked.parked_id > ? ORDER BY parked.parked_id LIMIT ?",
        [*values, after, limit],
    )
    return [_entry(row) for row in rows]


def count_undecided(transaction: Transaction, selection: Selection) -> int:
    """How many entries wait for a decision."""
    where, values = _undecided(selection)
    return int(transaction.rows(f"SELECT count(*) FROM parked WHERE {where}", values)[0][0])


def find(transaction: Transaction, parked_id: int) -> ParkedEntry | None:
    """One entry, decided or not."""
    rows = transaction.rows(f"{_ENTRY} WHERE parked.parked_id = ?", (parked_id,))
    return _entry(rows[0]) if rows else None


def get_many(transaction: Transaction, parked_ids: Iterable[int]) -> dict[int, ParkedEntry]:
    """Entries by id; those that exist."""
    rows = transaction.rows_in(f"{_ENTRY} WHERE parked.parked_id", parked_ids)
    return {row[0]: _entry(row) for row in rows}


def list_keys(transaction: Transaction, selection: Selection) -> list[ParkedKey]:
    """All undecided entries of a selection, in the order of their lanes and positions."""
    select = (
        "SELECT parked.parked_id, parked.lane_id, lanes.kind, lanes.subject_id, parked.position, parked.kind"
        " FROM parked JOIN lanes ON lanes.lane_id = parked.lane_id"
    )
    if selection.parked_ids is not None:
        rows = transaction.rows_in(
            f"{select} WHERE parked.decision IS NULL AND parked.parked_id", selection.parked_ids
        )
    else:
        where, values = _undecided(selection)
        rows = transaction.rows(f"{select} WHERE {where}", values)
    keys = [ParkedKey(row[0], row[1], LaneKind(row[2]), *row[3:6]) for row in rows]
    return sorted(keys, key=lambda key: (key.lane_id, key.position))


def list_dependent(transaction: Transaction, create: ParkedKey, *, limit: int) -> list[int]:
    """Undecided entries that may have been refused because this create was: of the same thing, or in it."""
    match create.lane_kind:
        case LaneKind.EXPERIMENT:
            condition = "lane_id = ? OR run_pk IN (SELECT run_pk FROM runs WHERE experiment_id = ?)"
        case LaneKind.REGISTERED_MODEL:
            condition = "lane_id = ? AND 0 < ?"
        case _:
            condition = "lane_id = ? OR run_pk = ?"
    rows = transaction.rows(
        f"SELECT parked_id FROM parked WHERE decision IS NULL AND ({condition})"
        " AND parked_id <> ? ORDER BY parked_id LIMIT ?",
        (create.lane_id, create.subject_id, create.parked_id, limit),
    )
    return [row[0] for row in rows]


def _undecided(selection: Selection) -> tuple[str, list[Any]]:
    conditions: list[str] = ["parked.decision IS NULL"]
    values: list[Any] = []
    if selection.run_pk is not None:
        conditions.append("parked.run_pk = ?")
        values.append(selection.run_pk)
    if selection.reason is not None:
        conditions.append("parked.reason = ?")
        values.append(selection.reason)
    return " AND ".join(conditions), values


def count_by_reason(transaction: Transaction) -> dict[str, int]:
    """How many entries wait for a decision, by reason; the known reasons always."""
    rows = transaction.rows("SELECT reason, count(*) FROM parked WHERE decision IS NULL GROUP BY reason")
    return {reason.value: 0 for reason in Reason} | {row[0]: int(row[1]) for row in rows}


# --- deciding -------------------------------------------------------------------------------


def decide(
    transaction: Transaction, parked_id: int, decision: Decision, *, decided_by: str, reason: str | None
) -> bool:
    """Write a decision down; whether the entry was still waiting for one."""
    changed = transaction.run(
        "UPDATE parked SET decision = ?, decided_by = ?, decided_at_ms = ?, decision_reason = ?"
        " WHERE parked_id = ? AND decision IS NULL",
        (decision.value, decided_by, transaction.now_ms, reason, parked_id),
    )
    return changed == 1
