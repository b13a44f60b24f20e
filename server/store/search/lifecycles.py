"""Which lifecycle stages a view shows."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, true

from server.database.schema import experiments, runs
from server.domain.entities import LifecycleStage, ViewType

STAGES = {
    ViewType.ACTIVE_ONLY: (LifecycleStage.ACTIVE.value,),
    ViewType.DELETED_ONLY: (LifecycleStage.DELETED.value,),
    ViewType.ALL: (LifecycleStage.ACTIVE.value, LifecycleStage.DELETED.value),
}

_DELETION_OF_EXPERIMENT = (
    select(experiments.c.last_update_time_ms)
    .where(experiments.c.experiment_id == runs.c.experiment_id)
    .correlate(runs)
    .scalar_subquery()
)
_OUTLIVES = func.coalesce(runs.c.outlived_ms, 0) == _DELETION_OF_EXPERIMENT


def run_stage_condition(
    connection: Connection, experiment_ids: Sequence[int], view: ViewType
) -> ColumnElement[bool]:
    """That a run of these experiments is in a stage the view shows.

    In a deleted experiment only the runs that were restored by themselves are not deleted (`store.runs`).
    """
    if view is ViewType.ALL:
        return true()
    own = runs.c.lifecycle_stage.in_(STAGES[view])
    deleted = _deleted_among(connection, experiment_ids)
    if not deleted:
        return own
    if view is ViewType.ACTIVE_ONLY:
        return and_(own, or_(runs.c.experiment_id.not_in(deleted), _OUTLIVES))
    return or_(own, and_(runs.c.experiment_id.in_(deleted), ~_OUTLIVES))


def _deleted_among(connection: Connection, experiment_ids: Sequence[int]) -> list[int]:
    return list(
        connection.scalars(
            select(experiments.c.experiment_id).where(
                experiments.c.experiment_id.in_(experiment_ids),
                experiments.c.lifecycle_stage == LifecycleStage.DELETED.value,
            )
        )
    )
