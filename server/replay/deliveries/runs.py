"""A run's data lane: its creation, params, metrics, tags, status and deletion.

A run is made under our own id through Run History. Only a definite refusal of that call lets the
run fall back to `runs/create` with a marker tag, and the choice is stored before the create is
sent: once the first way may have taken effect the run never takes the second.
"""

from datetime import timedelta
from typing import assert_never, cast

from server.commit.writer import Work
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.entities import LifecycleStage, RunStatus
from server.domain.operations import (
    CreateRun,
    DeleteRun,
    DeleteTag,
    LogParam,
    RestoreRun,
    SetTag,
    UpdateRun,
)
from server.domain.verdicts import Verdict
from server.domain.workspace_limits import LimitRefusal
from server.journal.batch_states import BatchState
from server.journal.batches import Batch
from server.journal.contents import Contents, EntryRow
from server.journal.leases import Lane
from server.journal.points import PointRow
from server.replay.batching import is_loggable
from server.replay.deliveries.capacity import RunCapacity
from server.replay.deliveries.delivery import Division, SettleTimes
from server.replay.deliveries.histories import Histories, identity_of, metric_of
from server.replay.turns import LaneWriter
from server.store import upstream_ids
from server.store.upstream_ids import RunIds
from server.upstream.artifacts import UpstreamArtifacts
from server.upstream.failures import UpstreamFailure
from server.upstream.overflow import OverflowContents, read_overflow
from server.upstream.runs import NewRun, UpstreamRun, UpstreamRuns

HISTORY_WAY = "history"
MLFLOW_WAY = "mlflow"
_REFUSALS_OF_THE_WAY = (400, 404, 405)

RunOperation = CreateRun | UpdateRun | DeleteRun | RestoreRun | DeleteTag


class RunDelivery:
    """Delivers a run's data lane."""

    def __init__(
        self,
        *,
        database: Database,
        writer: LaneWriter,
        runs: UpstreamRuns,
        histories: Histories,
        artifacts: UpstreamArtifacts,
        settle: SettleTimes,
        capacity: RunCapacity,
        takes_own_ids: bool = True,
    ) -> None:
        self._database = database
        self._writer = writer
        self._runs = runs
        self._histories = histories
        self._artifacts = artifacts
        self._settle = settle
        self._capacity = capacity
        self._takes_own_ids = takes_own_ids

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        """Params, tags and points that the run cannot hold overflow."""
        ids = await self._ids(lane)
        if ids.upstream_id is None or not _is_logged(contents):
            return Division(contents)
        return await self._capacity.divide(lane, ids.upstream_id, contents, refusal)

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Send one operation, or a batch of points, params and tags."""
        ids = await self._ids(lane)
        if not _is_logged(contents):
            operation = cast(RunOperation, contents.entries[0].operation)
            await self._send_one(ids, operation, may_exist=batch.state is BatchState.UNCERTAIN)
            return
        try:
            await self._log(ids, contents)
        except UpstreamFailure:
            self._capacity.note_failed(lane)
            raise
        self._capacity.note_sent(lane, batch.last_position, contents)

    async def _send_one(self, ids: RunIds, operation: RunOperation, *, may_exist: bool) -> None:
        match operation:
            case CreateRun():
                await self._create(ids, operation, may_exist=may_exist)
            case UpdateRun():
                status = RunStatus(operation.status) if operation.status else None
                await self._runs.update(upstream_run_id(ids), status, operation.end_time_ms, operation.name)
            case DeleteRun():
                await self._runs.delete(upstream_run_id(ids))
            case RestoreRun():
                await self._runs.restore(upstream_run_id(ids))
            case DeleteTag():
                await self._runs.delete_tag(upstream_run_id(ids), operation.key)
            case _:
                assert_never(operation)

    # --- creating ---

    async def _create(self, ids: RunIds, operation: CreateRun, *, may_exist: bool) -> None:
        if ids.experiment.upstream_id is None:
            raise UpstreamFailure(
                Verdict.PARK,
                "EXPERIMENT_NOT_CREATED",
                "The workspace has refused to create this run's experiment.",
            )
        if ids.create_way == MLFLOW_WAY:
            await self._create_with_marker(ids, operation)
            return
        is_first_try = ids.create_way is None
        if is_first_try and not self._takes_own_ids and not may_exist:
            await self._choose_way(ids, MLFLOW_WAY, None)
            await self._create_with_marker(ids, operation)
            return
        if is_first_try:
            await self._choose_way(ids, HISTORY_WAY, ids.run_id)
            failpoints.reach("run.way_chosen")
        try:
            await self._runs.create_or_modify(await self._new_run(ids, operation))
        except UpstreamFailure as failure:
            if not is_first_try:
                raise
            if failure.verdict in (Verdict.RETRY, Verdict.WAIT):
                await self._choose_way(ids, None, None)
            if not failure.is_definite_refusal or failure.status not in _REFUSALS_OF_THE_WAY:
                raise
            await self._choose_way(ids, MLFLOW_WAY, None)
            if may_exist:
                # Another generation of the journal may have made it this way: it is looked for first.
                raise UpstreamFailure(
                    Verdict.UNCERTAIN, "PERHAPS_MADE_BEFORE", "The run may have been made with a marker."
                ) from failure
            await self._create_with_marker(ids, operation)

    async def _create_with_marker(self, ids: RunIds, operation: CreateRun) -> None:
        upstream_id = await self._runs.create_with_marker(await self._new_run(ids, operation), ids.run_id)
        failpoints.reach("run.made_with_marker")
        await self._remember(ids, upstream_id)

    async def _new_run(self, ids: RunIds, operation: CreateRun) -> NewRun:
        parent = await self._upstream_parent(operation.parent_run_id)
        return NewRun(
            run_id=ids.run_id,
            experiment_name=ids.experiment.upstream_name,
            experiment_id=ids.experiment.upstream_id or "",
            name=operation.name,
            start_time_ms=operation.start_time_ms or ids.created_at_ms,
            parent_run_id=parent,
            tags={key: await self._tag_value(key, value) for key, value in operation.tags.items()},
            user_id=operation.user_id,
        )

    async def _upstream_parent(self, run_id: str | None) -> str | None:
        """The parent's id there; none for a parent whose own creation was refused."""
        if run_id is None:
            return None
        parent = await self._database.read(
            lambda transaction: upstream_ids.find_run_by_id(transaction, run_id)
        )
        return run_id if parent is None else parent.upstream_id

    async def _choose_way(self, ids: RunIds, way: str | None, upstream_id: str | None) -> None:
        def choose(transaction: Transaction) -> None:
            upstream_ids.choose_create_way(transaction, ids.run_pk, way, upstream_id)

        await self._writer.commit(Work(choose), background=True)

    async def _remember(self, ids: RunIds, upstream_id: str) -> None:
        def remember(transaction: Transaction) -> None:
            upstream_ids.set_run_upstream_id(transaction, ids.run_pk, upstream_id)

        await self._writer.commit(Work(remember), background=True)

    # --- logging ---

    async def _log(self, ids: RunIds, contents: Contents) -> None:
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for entry in contents.entries:
            match entry.operation:
                case LogParam(key, value):
                    params[key] = value
                case SetTag(key, value):
                    tags[key] = await self._tag_value(key, value)
                case _:
                    raise TypeError(f"{entry.kind} cannot be part of a log-batch")
        await self._runs.log_batch(
            upstream_run_id(ids), [metric_of(point) for point in contents.points], params, tags
        )

    async def _tag_value(self, key: str, value: str) -> str:
        """Tags that name another run must name it as the workspace does."""
        if key not in upstream_ids.RUN_TAGS:
            return value
        return await self._database.read(
            lambda transaction: upstream_ids.upstream_tag_value(transaction, key, value)
        )

    async def _upstream_run(self, run_id: str) -> str:
        return await self._database.read(
            lambda transaction: upstream_ids.upstream_run_id_of(transaction, run_id)
        )

    # --- reading back ---

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        """What the workspace does not show of an uncertain batch."""
        ids = await self._ids(lane)
        if contents.entries and isinstance(contents.entries[0].operation, CreateRun):
            return contents if not await self._is_created(ids) else Contents()
        run = await self._runs.find(upstream_run_id(ids))
        if run is None:
            return contents
        if not _is_logged(contents):
            operation = cast(RunOperation, contents.entries[0].operation)
            return Contents() if _has_taken_effect(run, operation) else contents
        entries = [entry for entry in _final_entries(contents.entries) if not await self._shows(run, entry)]
        if entries and _may_be_in_overflow(lane):
            kept = await read_overflow(self._artifacts, run.experiment_id, run.run_id)
            entries = [entry for entry in entries if not await self._is_kept(kept, entry)]
        return Contents(entries, await self.missing_points(lane, run, contents.points))

    async def _is_created(self, ids: RunIds) -> bool:
        if ids.create_way != MLFLOW_WAY:
            # Made under our own id: making it again is harmless, and starts it if that was lost.
            return False
        if ids.upstream_id is not None:
            return True
        found = await self._runs.find_by_marker(ids.experiment.upstream_id or "", ids.run_id)
        if not found:
            return False
        await self._remember(ids, found[0])
        return True

    async def _shows(self, run: UpstreamRun, entry: EntryRow) -> bool:
        match entry.operation:
            case LogParam(key, value):
                return run.params.get(key) == value
            case SetTag(key, value):
                return run.tags.get(key) == await self._tag_value(key, value)
            case _:
                return False

    async def _is_kept(self, kept: OverflowContents, entry: EntryRow) -> bool:
        match entry.operation:
            case LogParam(key, value):
                return kept.params.get(key) == value
            case SetTag(key, value):
                return kept.tags.get(key) == await self._tag_value(key, value)
            case _:
                return False

    async def missing_points(self, lane: Lane, run: UpstreamRun, points: list[PointRow]) -> list[PointRow]:
        """The points that no history shows. A run that is full holds no metric that it does not show."""
        keys = dict.fromkeys(point.key for point in points)
        if await self._capacity.cannot_hold_more_metrics(lane, len(run.metrics)):
            keys = dict.fromkeys(key for key in keys if key in run.metrics)
        missing = await self._histories.list_not_shown(lane, run.run_id, points, keys)
        if missing and _may_be_in_overflow(lane):
            kept = (await read_overflow(self._artifacts, run.experiment_id, run.run_id)).points
            missing = [
                point for point in missing if identity_of(metric_of(point))[1:] not in kept.get(point.key, ())
            ]
        return missing

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        """Points and marked runs must stay unseen; everything else may be sent twice."""
        if contents.points:
            return self._settle.content
        if contents.entries and isinstance(contents.entries[0].operation, CreateRun):
            is_marked = (await self._ids(lane)).create_way == MLFLOW_WAY
            return self._settle.marker if is_marked else timedelta(0)
        return timedelta(0)

    async def _ids(self, lane: Lane) -> RunIds:
        ids = await self._database.read(
            lambda transaction: upstream_ids.find_run(transaction, lane.subject_id)
        )
        if ids is None:
            raise UpstreamFailure(Verdict.PARK, "UNKNOWN_RUN", "The run is not in the store.")
        return ids


def _may_be_in_overflow(lane: Lane) -> bool:
    """Whether another generation of the journal may have put the lane's next rows into an overflow file."""
    return lane.settled_position < lane.restored_through


def _is_logged(contents: Contents) -> bool:
    """Whether the rows share a `log-batch`, and are not one operation of another kind."""
    return not contents.entries or is_loggable(contents.entries[0])


def _has_taken_effect(run: UpstreamRun, operation: RunOperation) -> bool:
    """Whether the run is as the operation leaves it."""
    match operation:
        case UpdateRun(status, end_time_ms, name):
            return (
                status in (None, run.status.value)
                and end_time_ms in (None, run.end_time_ms)
                and name in (None, run.name)
            )
        case DeleteRun():
            return run.lifecycle_stage == LifecycleStage.DELETED.value
        case RestoreRun():
            return run.lifecycle_stage == LifecycleStage.ACTIVE.value
        case DeleteTag(key):
            return key not in run.tags
        case CreateRun():
            return True
        case _:
            assert_never(operation)


def upstream_run_id(ids: RunIds) -> str:
    """The run's id in the workspace.

    Raises:
        UpstreamFailure: it was never created there (its create is parked).
    """
    if ids.upstream_id is None:
        raise UpstreamFailure(
            Verdict.PARK, "RUN_NOT_CREATED", "The workspace has refused to create this run."
        )
    return ids.upstream_id


def _final_entries(entries: list[EntryRow]) -> list[EntryRow]:
    """Of a tag that is set several times only the last: an earlier value, sent again, would undo it."""
    last = {entry.operation.key: entry for entry in entries if isinstance(entry.operation, SetTag)}
    return [
        entry
        for entry in entries
        if not isinstance(entry.operation, SetTag) or last[entry.operation.key] is entry
    ]
