"""A registered model's restored lane.

Versions carry markers. If the last version that was restored is not there, the other generation did not get
past it; if the workspace has marked versions of the model that are not known here, it got past all of them.
"""

from server.database.engine import Transaction
from server.domain.operations import (
    CreateModelVersion,
    CreateRegisteredModel,
    DeleteModelVersionTag,
    DeleteRegisteredModelTag,
    Operation,
    SetModelVersionTag,
    SetRegisteredModelTag,
    TransitionModelVersion,
    UpdateModelVersion,
    UpdateRegisteredModel,
)
from server.journal import restored
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.leases import Lane
from server.replay.deliveries.models import MARKER_TAG, ModelDelivery
from server.replay.restored.delivery import (
    Contested,
    ContestedError,
    Reach,
    RestoredDelivery,
    RestoredParts,
    is_doubted,
)
from server.store import upstream_ids
from server.upstream.models import UpstreamModels, UpstreamVersion

_MOST_OPERATIONS = 100_000
_NO_STAGE = ("", "None")

Place = tuple[str, str | None, str | None]
"""What a value is called, what is there, and what is to be there; None is nothing."""


class RestoredModels(RestoredDelivery):
    """Delivers registered models' lanes, restored entries included."""

    def __init__(self, inner: ModelDelivery, parts: RestoredParts, *, models: UpstreamModels) -> None:
        super().__init__(inner, parts)
        self._delivery = inner
        self._models = models

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Send it; a model that had to be made cannot hold anything yet.

        Raises:
            UpstreamFailure: with the verdict on what to do now.
        """
        is_create = isinstance(contents.entries[0].operation, CreateRegisteredModel)
        is_new = is_create and is_doubted(lane, batch) and not await self._is_there(lane)
        await super().send(lane, batch, contents)
        if is_new:
            await self.trust_rest(lane, batch)

    async def _is_there(self, lane: Lane) -> bool:
        name = await self._delivery.find_name(lane)
        return name is None or await self._models.find_model(name) is not None

    async def judge(self, lane: Lane, batch: Batch, missing: Contents) -> Contents:
        """What is to be sent of a restored entry.

        Raises:
            UpstreamFailure: the workspace could not be read.
            ContestedError: it could overwrite something newer.
        """
        entry = missing.entries[0]
        name = await self._delivery.find_name(lane)
        if name is None or entry.operation is None:
            return missing
        versions = await self._models.list_versions(name)
        place = await self._place_of(lane, name, versions, entry.operation)
        if place is None:
            return missing
        what, there, wanted = place
        if there == wanted:
            return Contents()
        if there is None:
            return missing
        match await self._find_reach(lane, batch, versions):
            case Reach.PAST:
                return Contents()
            case Reach.WITHIN:
                return missing
            case Reach.UNKNOWN:
                raise ContestedError([Contested(entry, f"{there!r} as {what}")])

    async def _place_of(
        self, lane: Lane, name: str, versions: list[UpstreamVersion], operation: Operation
    ) -> Place | None:
        """Where an operation would write; None where it cannot overwrite anything."""
        match operation:
            case (
                UpdateModelVersion(version=number)
                | TransitionModelVersion(version=number)
                | SetModelVersionTag(version=number)
                | DeleteModelVersionTag(version=number)
            ):
                known = await self._database.read(
                    lambda transaction: upstream_ids.find_upstream_version(
                        transaction, lane.subject_id, number
                    )
                )
                version = next((item for item in versions if item.version == known), None)
                return None if version is None else _place_in_version(version, operation)
            case UpdateRegisteredModel() | SetRegisteredModelTag() | DeleteRegisteredModelTag():
                model = await self._models.find_model(name)
                if model is None:
                    return None
                if isinstance(operation, UpdateRegisteredModel):
                    return "description", model.description or None, operation.description or None
                value = operation.value if isinstance(operation, SetRegisteredModelTag) else None
                return f"the tag {operation.key!r}", model.tags.get(operation.key), value
            case _:
                return None

    async def _find_reach(self, lane: Lane, batch: Batch, versions: list[UpstreamVersion]) -> Reach:
        def read(transaction: Transaction) -> tuple[set[str | None], list[CreateModelVersion]]:
            known = {
                number for _, number in upstream_ids.list_upstream_versions(transaction, lane.subject_id)
            }
            rest = restored.read_operations(
                transaction,
                lane.lane_id,
                after=batch.last_position,
                through=lane.restored_through,
                limit=_MOST_OPERATIONS,
            )
            return known, [operation for _, operation in rest if isinstance(operation, CreateModelVersion)]

        known, to_come = await self._database.read(read)
        expected = [self._delivery.marker(lane, operation) for operation in to_come]
        markers = {version.tags[MARKER_TAG]: version for version in versions if MARKER_TAG in version.tags}
        foreign = [mark for mark, version in markers.items() if version.version not in known]
        if set(foreign) - set(expected):
            return Reach.PAST
        return Reach.WITHIN if expected and expected[-1] not in markers else Reach.UNKNOWN


def _place_in_version(version: UpstreamVersion, operation: Operation) -> Place | None:
    match operation:
        case UpdateModelVersion(description=description):
            return (
                f"the description of version {version.version}",
                version.description or None,
                description or None,
            )
        case TransitionModelVersion(stage=stage):
            there = None if version.stage in _NO_STAGE else version.stage
            wanted = None if stage in _NO_STAGE else stage
            return f"the stage of version {version.version}", there, wanted
        case SetModelVersionTag(key=key, value=value):
            return f"the tag {key!r} of version {version.version}", version.tags.get(key), value
        case DeleteModelVersionTag(key=key):
            return f"the tag {key!r} of version {version.version}", version.tags.get(key), None
        case _:
            return None
