"""A run's artifact lane: files to the run's folder in the workspace's storage.

Every upload is harmless to repeat: what is there already, by size and MD5, is left alone.
"""

from datetime import timedelta
from pathlib import Path
from typing import assert_never, cast

from server.commit.writer import Work
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.operations import DeleteArtifact, UploadArtifact
from server.domain.verdicts import Verdict
from server.domain.workspace_limits import LimitRefusal
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.leases import Lane
from server.replay.deliveries.delivery import Division
from server.replay.deliveries.runs import upstream_run_id
from server.replay.turns import LaneWriter
from server.spool.spool import Spool
from server.store import artifacts, upstream_ids
from server.store.upstream_ids import RunIds
from server.upstream.artifacts import UpstreamArtifacts
from server.upstream.failures import UpstreamFailure


class ArtifactDelivery:
    """Delivers a run's artifact lane."""

    def __init__(
        self, *, database: Database, writer: LaneWriter, artifacts_upstream: UpstreamArtifacts, spool: Spool
    ) -> None:
        self._database = database
        self._writer = writer
        self._upstream = artifacts_upstream
        self._spool = spool

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Upload or delete one file."""
        operation = cast(UploadArtifact | DeleteArtifact, contents.entries[0].operation)
        ids = await self._database.read(
            lambda transaction: upstream_ids.find_run(transaction, lane.subject_id)
        )
        if ids is None:
            raise UpstreamFailure(Verdict.PARK, "UNKNOWN_RUN", "The run is not in the store.")
        match operation:
            case UploadArtifact():
                await self._upload(ids, operation)
            case DeleteArtifact():
                await self._upstream.delete(upstream_run_id(ids), operation.upstream_path)
            case _:
                assert_never(operation)

    async def _upload(self, ids: RunIds, operation: UploadArtifact) -> None:
        source = await self._source(operation)
        if source is None:
            return  # overwritten or deleted since: a later entry brings what is there now
        try:
            await self._upstream.upload(
                _experiment_key(ids),
                upstream_run_id(ids),
                operation.upstream_path,
                source,
                operation.size_bytes,
                operation.md5,
            )
        except FileNotFoundError as error:
            if await self._source(operation) == source:
                raise _bytes_lost(operation) from error
            return
        await self._let_go(operation)

    async def _source(self, operation: UploadArtifact) -> Path | bytes | None:
        """The bytes to send; None when others have taken their place."""
        row = await self._database.read(
            lambda transaction: artifacts.find(transaction, operation.root_id, operation.path)
        )
        if row is None or row.md5 != operation.md5 or row.size_bytes != operation.size_bytes:
            return None
        if row.content is not None:
            return row.content
        return None if row.spool_name is None else self._spool.path_of(row.spool_name)

    async def _let_go(self, operation: UploadArtifact) -> None:
        """The bytes are upstream, verified: only now may they leave the spool."""

        def mark(transaction: Transaction) -> bool:
            return artifacts.mark_delivered(
                transaction,
                operation.root_id,
                operation.path,
                md5=operation.md5,
                spool_name=operation.spool_name,
                upstream_path=operation.upstream_path,
            )

        may_go = await self._writer.commit(Work(mark), background=True)
        failpoints.reach("upload.recorded")
        if may_go and operation.spool_name is not None:
            await self._spool.remove(operation.spool_name)

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        """Everything is sent."""
        return Division(contents)

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        """Everything: sending again is harmless."""
        return contents

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        """None."""
        return timedelta(0)


def _bytes_lost(operation: UploadArtifact) -> UpstreamFailure:
    return UpstreamFailure(
        Verdict.PARK, "SPOOL_FILE_MISSING", f"The spool has lost the bytes of {operation.path!r}."
    )


def _experiment_key(ids: RunIds) -> str:
    return ids.experiment.upstream_id or ids.experiment.upstream_name
