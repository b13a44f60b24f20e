"""Experiments: every call is harmless to repeat (names are unique in the workspace)."""

from datetime import timedelta
from typing import assert_never, cast

from server.commit.writer import Work
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.entities import LifecycleStage
from server.domain.operations import (
    CreateExperiment,
    DeleteExperiment,
    PurgeRun,
    RestoreExperiment,
    SetExperimentTag,
)
from server.domain.verdicts import Verdict
from server.domain.workspace_limits import LimitRefusal
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.leases import Lane
from server.replay.deliveries.delivery import Division
from server.replay.deliveries.purges import Purges
from server.replay.turns import LaneWriter
from server.store import experiments, upstream_ids
from server.store.upstream_ids import ExperimentIds
from server.upstream.experiments import UpstreamExperiments
from server.upstream.failures import UpstreamFailure

ExperimentOperation = CreateExperiment | DeleteExperiment | RestoreExperiment | SetExperimentTag | PurgeRun


_STAGE_AFTER = {
    DeleteExperiment: LifecycleStage.DELETED.value,
    RestoreExperiment: LifecycleStage.ACTIVE.value,
}


class ExperimentDelivery:
    """Delivers an experiment's lane."""

    def __init__(
        self, *, database: Database, writer: LaneWriter, experiments: UpstreamExperiments, purges: Purges
    ) -> None:
        self._database = database
        self._writer = writer
        self._experiments = experiments
        self._purges = purges

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Send one operation."""
        operation = cast(ExperimentOperation, contents.entries[0].operation)
        ids = await self._ids(operation)
        match operation:
            case CreateExperiment():
                await self._create(ids)
            case DeleteExperiment():
                # One restored here since needs neither call, and its runs are being written to.
                if await self._is_deleted_here(ids):
                    await self._experiments.delete(_known(ids))
            case RestoreExperiment():
                if not await self._is_there(ids, LifecycleStage.ACTIVE.value):
                    await self._experiments.restore(_known(ids))
            case SetExperimentTag():
                await self._experiments.set_tag(_known(ids), operation.key, operation.value)
            case PurgeRun():
                await self._purges.send(operation)
            case _:
                assert_never(operation)

    async def _ids(self, operation: ExperimentOperation) -> ExperimentIds:
        ids = await self._database.read(
            lambda transaction: upstream_ids.find_experiment(transaction, operation.experiment_id)
        )
        if ids is None:
            raise UpstreamFailure(Verdict.PARK, "UNKNOWN_EXPERIMENT", "The experiment is not in the store.")
        return ids

    async def _create(self, ids: ExperimentIds) -> None:
        upstream_id = await self._experiments.create(ids.upstream_name)
        failpoints.reach("experiment.made")

        def remember(transaction: Transaction) -> None:
            upstream_ids.set_experiment_upstream_id(transaction, ids.experiment_id, upstream_id)

        await self._writer.commit(Work(remember), background=True)

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        """Everything is sent."""
        return Division(contents)

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        """Deleting and restoring are looked for; everything else is harmless to repeat."""
        operation = contents.entries[0].operation
        wanted = _STAGE_AFTER.get(type(operation))
        if wanted is None:
            return contents
        ids = await self._ids(cast(ExperimentOperation, operation))
        return Contents() if await self._is_there(ids, wanted) else contents

    async def _is_there(self, ids: ExperimentIds, stage: str) -> bool:
        """Whether the workspace has the experiment in that stage."""
        found = await self._experiments.find_by_name(ids.upstream_name)
        return found is not None and found.lifecycle_stage == stage

    async def _is_deleted_here(self, ids: ExperimentIds) -> bool:
        found = await self._database.read(
            lambda transaction: experiments.find(transaction, ids.experiment_id)
        )
        return found is not None and found.lifecycle_stage is LifecycleStage.DELETED

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        """None."""
        return timedelta(0)


def _known(ids: ExperimentIds) -> str:
    if ids.upstream_id is None:
        raise UpstreamFailure(
            Verdict.PARK, "EXPERIMENT_NOT_CREATED", "The workspace has refused to create this experiment."
        )
    return ids.upstream_id
