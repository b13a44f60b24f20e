"""Barriers: entries that wait until another lane has settled a position.

An experiment and its runs, any number of them, wait for each other without a barrier for each: an entry of
the experiment's lane can wait for all lanes of its runs by one that names no lane, and what its runs hold
next waits while the experiment's lane is about to restore it. Both are looked into when it is their turn.
"""

from collections.abc import Iterable

from server.database.engine import Transaction
from server.domain.operations import RestoreExperiment
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


# One that is not next is not waited for: a deletion before it may wait for the runs.
_EXPERIMENT_BEING_RESTORED = (
    "SELECT own.lane_id FROM lanes JOIN runs ON runs.run_pk = lanes.subject_id"
    " AND lanes.lane_id IN (runs.data_lane_id, runs.artifact_lane_id, runs.overflow_lane_id)"
    " JOIN experiments ON experiments.experiment_id = runs.experiment_id"
    " JOIN lanes AS own ON own.lane_id = experiments.lane_id"
    " JOIN journal_entries ON journal_entries.lane_id = own.lane_id"
    " AND journal_entries.position = own.settled_position + 1"
    f" WHERE lanes.lane_id = ? AND journal_entries.kind = '{RestoreExperiment.__name__}'"
)


def list_unmet_barriers(
    transaction: Transaction, lane_id: int, first: int, last: int
) -> dict[int, list[int]]:
    """Position → lanes it still waits for, in a range of positions; one of them stands for all runs'."""
    unmet: dict[int, list[int]] = {}
    if restoring := [row[0] for row in transaction.rows(_EXPERIMENT_BEING_RESTORED, (lane_id,))]:
        unmet[first] = restoring
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
