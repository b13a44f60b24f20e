"""What a lane waits for, in an operator's words."""

from server.database.engine import Transaction
from server.journal.barriers import list_unmet_barriers
from server.journal.lanes import OF_A_RUN, LaneKind
from server.journal.leases import read_lane
from server.store import upstream_ids


def blocked_by(transaction: Transaction, lane_ids: list[int]) -> str | None:
    """What a run's next entry waits for, in words."""
    for lane_id in lane_ids:
        settled = transaction.rows("SELECT settled_position FROM lanes WHERE lane_id = ?", (lane_id,))[0][0]
        unmet = list_unmet_barriers(transaction, lane_id, settled + 1, settled + 1)
        for awaited in unmet.get(settled + 1, []):
            lane = read_lane(transaction, awaited)
            failure = transaction.rows("SELECT last_failure FROM lanes WHERE lane_id = ?", (awaited,))[0][0]
            words = describe_subject(transaction, lane.kind, lane.subject_id)
            return f"{words} ({failure})" if failure else words
    return None


def describe_subject(transaction: Transaction, kind: LaneKind, subject_id: int) -> str:
    """What a lane belongs to: its kind and the name of the thing."""
    return f"{kind.value} {_subject_name(transaction, kind, subject_id)}"


def _subject_name(transaction: Transaction, kind: LaneKind, subject_id: int) -> str:
    if kind in OF_A_RUN:
        ids = upstream_ids.find_run(transaction, subject_id)
        return ids.run_id if ids else str(subject_id)
    if kind is LaneKind.EXPERIMENT:
        experiment = upstream_ids.find_experiment(transaction, subject_id)
        return experiment.upstream_name if experiment else str(subject_id)
    return upstream_ids.find_model_name(transaction, subject_id) or str(subject_id)
