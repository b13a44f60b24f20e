"""Barriers: entries that wait until another lane has settled a position.

An entry of an experiment's lane can also wait for all lanes of the experiment's runs, however many they are:
that is one barrier, which names no lane and is looked into when its turn comes.
"""

from collections.abc import Iterable

from server.database.engine import Transaction
from server.journal.entries import Awaited

_EVERY_RUN = 0
ALL_RUNS_SETTLED = Awaited(_EVERY_RUN, 1)
"""For an experiment's lane: its runs have settled all they hold, or it is not deleted any more."""

# CROSS keeps SQLite from walking through all the experiment's runs: pending lanes are few.
_UNSETTLED_RUN_LANE = (
    "SELECT pending.lane_id FROM lanes AS own"
    " JOIN experiments ON experiments.experiment_id = own.subject_id"
    " AND experiments.lifecycle_stage = 'deleted'"
    " CROSS JOIN lanes AS pending CROSS JOIN runs"
    " WHERE own.lane_id = ? AND pending.settled_position < pending.last_position"
    " AND runs.run_pk = pending.subject_id AND runs.experiment_id = own.subject_id"
    " AND pending.lane_id IN (runs.data_lane_id, runs.artifact_lane_id, runs.overflow_lane_id) LIMIT 1"
)


def list_unmet_barriers(
    transaction: Transaction, lane_id: int, first: int, last: int
) -> dict[int, list[int]]:
    """Position → lanes it still waits for, in a range of positions; one of them stands for all runs'."""
    unmet: dict[int, list[int]] = {}
    for position, awaited in transaction.rows(
        "SELECT barriers.position, barriers.awaited_lane_id FROM barriers"
        " LEFT JOIN lanes ON lanes.lane_id = barriers.awaited_lane_id"
        " WHERE barriers.lane_id = ? AND barriers.position BETWEEN ? AND ?"
        " AND (barriers.awaited_lane_id = ? OR lanes.settled_position < barriers.awaited_position)"
        " ORDER BY barriers.position",
        (lane_id, first, last, _EVERY_RUN),
    ):
        lanes = [awaited] if awaited != _EVERY_RUN else _find_unsettled_run_lane(transaction, lane_id)
        if lanes:
            unmet.setdefault(position, []).extend(lanes)
    return unmet


def _find_unsettled_run_lane(transaction: Transaction, lane_id: int) -> list[int]:
    """One lane, if there is any, that keeps a deleted experiment's runs from being all settled."""
    return [row[0] for row in transaction.rows(_UNSETTLED_RUN_LANE, (lane_id,))]


def list_waiting_lanes(transaction: Transaction, awaited: Iterable[int]) -> list[int]:
    """Lanes that have a barrier on one of these lanes."""
    return [
        row[0]
        for row in transaction.rows_in("SELECT DISTINCT lane_id FROM barriers WHERE awaited_lane_id", awaited)
    ]
