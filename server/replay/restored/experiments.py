"""An experiment's restored lane. Its tags are all there is that something newer could stand in for."""

from server.domain.operations import CreateExperiment, SetExperimentTag
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.leases import Lane
from server.replay.deliveries.delivery import Delivery
from server.replay.restored.delivery import (
    Contested,
    ContestedError,
    RestoredDelivery,
    RestoredParts,
    is_doubted,
)
from server.store import upstream_ids
from server.upstream.experiments import UpstreamExperiment, UpstreamExperiments


class RestoredExperiments(RestoredDelivery):
    """Delivers experiments' lanes, restored entries included."""

    def __init__(self, inner: Delivery, parts: RestoredParts, *, experiments: UpstreamExperiments) -> None:
        super().__init__(inner, parts)
        self._experiments = experiments

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Send it; an experiment that had to be made cannot hold anything yet.

        Raises:
            UpstreamFailure: with the verdict on what to do now.
        """
        is_create = isinstance(contents.entries[0].operation, CreateExperiment)
        is_new = is_create and is_doubted(lane, batch) and await self._find(lane) is None
        await super().send(lane, batch, contents)
        if is_new:
            await self.trust_rest(lane, batch)

    async def judge(self, lane: Lane, batch: Batch, missing: Contents) -> Contents:
        """What is to be sent of a restored entry.

        Raises:
            UpstreamFailure: the workspace could not be read.
            ContestedError: it could overwrite something newer.
        """
        entry = missing.entries[0]
        if not isinstance(entry.operation, SetExperimentTag):
            return missing
        operation = entry.operation
        experiment = await self._find(lane)
        shown = None if experiment is None else experiment.tags.get(operation.key)
        if shown is None:
            return missing
        if shown == operation.value:
            return Contents()
        raise ContestedError([Contested(entry, f"{shown!r} in the tag {operation.key!r}")])

    async def _find(self, lane: Lane) -> UpstreamExperiment | None:
        ids = await self._database.read(
            lambda transaction: upstream_ids.find_experiment(transaction, lane.subject_id)
        )
        return None if ids is None else await self._experiments.find_by_name(ids.upstream_name)
