"""A run's restored artifact lane.

What storage holds of a file tells when it was written. Before the backup was made: then it is older than what
the backup holds as undelivered. After it: then another generation wrote it, as the last that it had of that
path. Clocks differ, so the time of what was written close to the backup tells nothing. If the last of the
restored files is not there at all, the other generation did not get that far.
"""

from datetime import timedelta
from typing import cast

import structlog

from server.database.engine import Transaction
from server.domain.operations import DeleteArtifact, UploadArtifact
from server.journal import restored
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.leases import Lane
from server.replay.deliveries.delivery import Delivery
from server.replay.deliveries.runs import upstream_run_id
from server.replay.restored.delivery import Contested, ContestedError, Reach, RestoredDelivery, RestoredParts
from server.store import upstream_ids
from server.store.upstream_ids import RunIds
from server.upstream.artifacts import UpstreamArtifacts
from server.upstream.blobs import StoredArtifact

log = structlog.get_logger(__name__)

_CLOCK_DIFFERENCE = timedelta(minutes=5)


class RestoredArtifacts(RestoredDelivery):
    """Delivers runs' artifact lanes, restored entries included."""

    def __init__(self, inner: Delivery, parts: RestoredParts, *, artifacts: UpstreamArtifacts) -> None:
        super().__init__(inner, parts)
        self._artifacts = artifacts

    async def judge(self, lane: Lane, batch: Batch, missing: Contents) -> Contents:
        """What is to be sent of a restored upload or deletion.

        Raises:
            UpstreamFailure: the workspace could not be read.
            ContestedError: it could undo something newer.
        """
        entry = missing.entries[0]
        operation = cast(UploadArtifact | DeleteArtifact, entry.operation)
        ids, restored_from_ms = await self._database.read(
            lambda transaction: _read_ids(transaction, lane.subject_id)
        )
        if ids is None or restored_from_ms is None:
            return missing
        stored = await self._find(ids, operation.upstream_path)
        if stored is None or _is_as_wanted(stored, operation):
            return missing
        reach = _reach_by_time(stored, restored_from_ms)
        if reach is Reach.UNKNOWN and await self._lacks_last(lane, ids, entry.position):
            reach = Reach.WITHIN
        match reach:
            case Reach.WITHIN:
                return missing
            case Reach.PAST:
                log.info("restored_file_outdated", lane_id=lane.lane_id, path=operation.upstream_path)
                return Contents()
            case Reach.UNKNOWN:
                raise ContestedError([Contested(entry, f"other bytes under {operation.upstream_path!r}")])

    async def _lacks_last(self, lane: Lane, ids: RunIds, position: int) -> bool:
        """Whether the run has no file where the last of the restored uploads goes."""
        plan = await self._plans.plan_of(lane)
        last = max(plan.last_fill, key=plan.last_fill.__getitem__)
        return plan.last_fill[last] > position and await self._find(ids, str(last[1])) is None

    async def _find(self, ids: RunIds, path: str) -> StoredArtifact | None:
        experiment = ids.experiment.upstream_id or ids.experiment.upstream_name
        return await self._artifacts.info(experiment, upstream_run_id(ids), path)


def _reach_by_time(stored: StoredArtifact, restored_from_ms: int) -> Reach:
    """Whether a file was written before the backup was made, or after it."""
    if stored.modified_ms is None:
        return Reach.UNKNOWN
    later = timedelta(milliseconds=stored.modified_ms - restored_from_ms)
    if later < -_CLOCK_DIFFERENCE:
        return Reach.WITHIN
    return Reach.PAST if later > _CLOCK_DIFFERENCE else Reach.UNKNOWN


def _is_as_wanted(stored: StoredArtifact, operation: UploadArtifact | DeleteArtifact) -> bool:
    if isinstance(operation, DeleteArtifact):
        return False
    return stored == StoredArtifact(operation.size_bytes, operation.md5)


def _read_ids(transaction: Transaction, run_pk: int) -> tuple[RunIds | None, int | None]:
    return upstream_ids.find_run(transaction, run_pk), restored.restored_from(transaction)
