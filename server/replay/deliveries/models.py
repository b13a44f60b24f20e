"""A registered model's lane: the model, its versions, stages, descriptions and tags.

Making a version is the one call that is not harmless to repeat: it carries a marker tag, by which
it is found again after an outcome that nobody knows.
"""

from datetime import timedelta
from typing import assert_never, cast

from server.commit.writer import Work
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.operations import (
    CreateModelVersion,
    CreateRegisteredModel,
    DeleteModelVersion,
    DeleteModelVersionTag,
    DeleteRegisteredModelTag,
    SetModelVersionTag,
    SetRegisteredModelTag,
    TransitionModelVersion,
    UpdateModelVersion,
    UpdateRegisteredModel,
)
from server.domain.verdicts import Verdict
from server.domain.workspace_limits import LimitRefusal
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.leases import Lane
from server.replay.deliveries.delivery import Division, SettleTimes
from server.replay.turns import LaneWriter
from server.store import upstream_ids
from server.upstream.failures import UpstreamFailure
from server.upstream.models import UpstreamModels
from server.upstream.uris import run_artifact_source

MARKER_TAG = "mlproxy.version_uid"

ModelOperation = (
    CreateRegisteredModel
    | UpdateRegisteredModel
    | SetRegisteredModelTag
    | DeleteRegisteredModelTag
    | CreateModelVersion
    | UpdateModelVersion
    | TransitionModelVersion
    | SetModelVersionTag
    | DeleteModelVersionTag
    | DeleteModelVersion
)


class ModelDelivery:
    """Delivers a registered model's lane."""

    def __init__(
        self,
        *,
        database: Database,
        writer: LaneWriter,
        models: UpstreamModels,
        settle: SettleTimes,
        installation: str,
    ) -> None:
        self._database = database
        self._writer = writer
        self._models = models
        self._settle = settle
        self._installation = installation

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Send one operation."""
        operation = cast(ModelOperation, contents.entries[0].operation)
        name = await self.find_name(lane)
        if name is None:
            return  # deleted here since: there is nothing left to bring
        match operation:
            case CreateRegisteredModel():
                await self._models.create_model(name, operation.description or "", operation.tags)
            case UpdateRegisteredModel():
                await self._models.update_model(name, operation.description)
            case SetRegisteredModelTag():
                await self._models.set_model_tag(name, operation.key, operation.value)
            case DeleteRegisteredModelTag():
                await self._models.delete_model_tag(name, operation.key)
            case CreateModelVersion():
                await self._create_version(lane, name, operation)
            case UpdateModelVersion():
                version = await self._version(lane, operation.version)
                await self._models.update_version(name, version, operation.description)
            case TransitionModelVersion():
                version = await self._version(lane, operation.version)
                await self._models.transition_stage(
                    name, version, operation.stage, archive_existing=operation.archive_existing
                )
            case SetModelVersionTag():
                version = await self._version(lane, operation.version)
                await self._models.set_version_tag(name, version, operation.key, operation.value)
            case DeleteModelVersionTag():
                version = await self._version(lane, operation.version)
                await self._models.delete_version_tag(name, version, operation.key)
            case DeleteModelVersion():
                await self._models.delete_version(name, await self._version(lane, operation.version))
            case _:
                assert_never(operation)

    async def _create_version(self, lane: Lane, name: str, operation: CreateModelVersion) -> None:
        run_id = await self._upstream_run(operation.run_id)
        source = operation.source
        if run_id is not None and operation.upstream_path is not None:
            source = run_artifact_source(run_id, operation.upstream_path)
        tags = {**operation.tags, MARKER_TAG: self.marker(lane, operation)}
        version = await self._models.create_version(name, source, run_id, operation.description or "", tags)
        failpoints.reach("version.made")
        await self._remember(lane, operation.version, version)

    def marker(self, lane: Lane, operation: CreateModelVersion) -> str:
        """Names one version of one registered model of this installation."""
        return operation.uid or f"{self._installation}.{lane.subject_id}.{operation.version}"

    async def _upstream_run(self, run_id: str | None) -> str | None:
        if run_id is None:
            return None
        return await self._database.read(
            lambda transaction: upstream_ids.upstream_run_id_of(transaction, run_id)
        )

    async def _remember(self, lane: Lane, version: int, upstream_version: str) -> None:
        def remember(transaction: Transaction) -> None:
            upstream_ids.set_upstream_version(transaction, lane.subject_id, version, upstream_version)

        await self._writer.commit(Work(remember), background=True)

    async def find_name(self, lane: Lane) -> str | None:
        """The model's name there; None for a model that was deleted here."""
        return await self._database.read(
            lambda transaction: upstream_ids.find_model_name(transaction, lane.subject_id)
        )

    async def _version(self, lane: Lane, version: int) -> str:
        found = await self._database.read(
            lambda transaction: upstream_ids.find_upstream_version(transaction, lane.subject_id, version)
        )
        if found is None:
            raise UpstreamFailure(
                Verdict.PARK,
                "VERSION_NOT_CREATED",
                f"The workspace has no version for our version {version}.",
            )
        return found

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        """Everything is sent."""
        return Division(contents)

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        """A version is looked for by its marker; everything else is harmless to repeat."""
        operation = contents.entries[0].operation
        name = await self.find_name(lane)
        if not isinstance(operation, CreateModelVersion) or name is None:
            return contents
        marker = self.marker(lane, operation)
        found = await self._models.find_versions_by_tag(name, MARKER_TAG, marker)
        if not found:
            return contents
        await self._remember(lane, operation.version, found[0])
        return Contents()

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        """A version must stay unseen for long before it is made again."""
        if contents.entries and isinstance(contents.entries[0].operation, CreateModelVersion):
            return self._settle.marker
        return timedelta(0)
