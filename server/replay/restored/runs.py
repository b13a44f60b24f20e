"""A run's restored data lane.

Entries went to the workspace in order. So if the last point or param of the restored entries is not there,
the other generation did not get past them, and no tag or status there is newer than theirs. If the workspace
holds points or params of the run that are not known here, it did get past them, and theirs are outdated.
"""

from collections import OrderedDict
from collections.abc import Iterable

import structlog

from server.commit.writer import Work
from server.database.engine import Transaction
from server.domain.entities import RunStatus
from server.domain.operations import CreateRun, DeleteTag, LogParam, Operation, SetTag, UpdateRun
from server.journal.batches import Batch
from server.journal.contents import Contents, EntryRow
from server.journal.leases import Lane
from server.journal.points import find_last_point
from server.replay.deliveries.runs import HISTORY_WAY, MLFLOW_WAY, RunDelivery, upstream_run_id
from server.replay.restored.delivery import (
    Contested,
    ContestedError,
    Reach,
    RestoredDelivery,
    RestoredParts,
    is_doubted,
)
from server.replay.restored.histories import RestoredHistories
from server.store import known_data, upstream_ids
from server.store.upstream_ids import RunIds
from server.upstream.runs import UpstreamRun, UpstreamRuns

log = structlog.get_logger(__name__)

_KEPT_REACHES = 1024


class RestoredRuns(RestoredDelivery):
    """Delivers runs' data lanes, restored entries included."""

    def __init__(
        self, inner: RunDelivery, parts: RestoredParts, *, runs: UpstreamRuns, histories: RestoredHistories
    ) -> None:
        super().__init__(inner, parts)
        self._delivery = inner
        self._runs = runs
        self._histories = histories
        self._reaches: OrderedDict[int, Reach] = OrderedDict()

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Send it; a run that had to be made cannot hold anything yet.

        Raises:
            UpstreamFailure: with the verdict on what to do now.
        """
        await super().send(lane, batch, contents)
        if is_doubted(lane, batch) and _makes_a_run(contents.entries):
            ids = await self._ids(lane)
            if ids is not None and ids.create_way == HISTORY_WAY:
                await self.trust_rest(lane, batch)

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        """Of an uncertain batch, what is to be sent.

        Raises:
            UpstreamFailure: the workspace could not be read.
            ContestedError: some entries could overwrite something newer.
        """
        if is_doubted(lane, batch) and contents.points:
            await self._read_histories_ahead(lane, batch)
        return await super().find_missing(lane, batch, contents)

    async def _read_histories_ahead(self, lane: Lane, batch: Batch) -> None:
        is_fresh = batch.first_empty_read_ms is not None
        self._histories.use(lane, is_fresh=is_fresh)
        if not is_fresh or not self._may_judge(batch) or self._histories.knows(lane):
            return
        ids = await self._ids(lane)
        run = None if ids is None else await self._runs.find(upstream_run_id(ids))
        if run is not None:
            await self._histories.read_ahead(lane, run.run_id)

    async def without_present(self, lane: Lane, batch: Batch, missing: Contents) -> Contents:
        """A run that is there is not made again."""
        ids = await self._ids(lane)
        if ids is not None and _makes_a_run(missing.entries) and await self._is_made(ids):
            return Contents()
        return missing

    async def judge(self, lane: Lane, batch: Batch, missing: Contents) -> Contents:
        """What is to be sent of restored rows that the workspace does not show.

        Raises:
            UpstreamFailure: the workspace could not be read.
            ContestedError: some could overwrite something newer.
        """
        if _makes_a_run(missing.entries):
            return await self.without_present(lane, batch, missing)
        ids = await self._ids(lane)
        run = None if ids is None else await self._runs.find(upstream_run_id(ids))
        if ids is None or run is None:
            return missing
        lasting = [entry for entry in missing.entries if isinstance(entry.operation, LogParam)]
        reach = self._reaches.get(lane.lane_id) or await self._find_reach(lane, batch, ids, run, missing)
        self._remember(lane, reach)
        if reach is Reach.PAST:
            log.info("restored_entries_outdated", lane_id=lane.lane_id, first=batch.first_position)
            return Contents(lasting, missing.points)
        contested = [
            Contested(entry, shown)
            for entry in missing.entries
            if (shown := _shown_instead(run, entry.operation)) is not None
        ]
        if contested and reach is Reach.UNKNOWN:
            raise ContestedError(contested)
        return missing

    # --- the run itself ---

    async def _is_made(self, ids: RunIds) -> bool:
        """Whether the workspace has the run, made in either way. One that was not started does not count."""
        if ids.create_way == MLFLOW_WAY:
            return False  # it was looked for by its marker already
        run = await self._runs.find(ids.run_id)
        if run is not None:
            is_started = run.status is not RunStatus.SCHEDULED
            if is_started and ids.upstream_id is None:
                await self._choose_way(ids, HISTORY_WAY, ids.run_id)
            return is_started
        if ids.create_way is None and ids.experiment.upstream_id is not None:
            found = await self._runs.find_by_marker(ids.experiment.upstream_id, ids.run_id)
            if found:
                await self._choose_way(ids, MLFLOW_WAY, found[0])
                return True
        return False

    async def _choose_way(self, ids: RunIds, way: str, upstream_id: str) -> None:
        def choose(transaction: Transaction) -> None:
            upstream_ids.choose_create_way(transaction, ids.run_pk, way, upstream_id)

        await self._writer.commit(Work(choose), background=True)

    async def _ids(self, lane: Lane) -> RunIds | None:
        return await self._database.read(
            lambda transaction: upstream_ids.find_run(transaction, lane.subject_id)
        )

    # --- how far the other generation got ---

    async def _find_reach(
        self, lane: Lane, batch: Batch, ids: RunIds, run: UpstreamRun, missing: Contents
    ) -> Reach:
        if await self._is_past(ids, run):
            return Reach.PAST
        lacks_lasting = missing.points or any(isinstance(row.operation, LogParam) for row in missing.entries)
        if lacks_lasting or await self._lacks_last(lane, batch, run):
            return Reach.WITHIN
        return Reach.UNKNOWN

    async def _lacks_last(self, lane: Lane, batch: Batch, run: UpstreamRun) -> bool:
        """Whether the run lacks the last point or param that was restored."""
        plan = await self._plans.plan_of(lane)
        if plan.last_lasting is not None and plan.last_lasting[0] > batch.last_position:
            operation = plan.last_lasting[1]
            if isinstance(operation, LogParam) and operation.key not in run.params:
                return True
        point = await self._database.read(
            lambda transaction: find_last_point(
                transaction, lane.lane_id, after=batch.last_position, through=lane.restored_through
            )
        )
        return point is not None and bool(await self._delivery.missing_points(lane, run, [point]))

    async def _is_past(self, ids: RunIds, run: UpstreamRun) -> bool:
        """Whether the workspace holds points or params of the run that this journal never had."""
        known = await self._database.read(
            lambda transaction: known_data.read_known_data(transaction, ids.run_pk)
        )
        return not run.params.keys() <= known.params or any(
            metric.step > known.highest_steps.get(key, -(2**63)) for key, metric in run.metrics.items()
        )

    def _remember(self, lane: Lane, reach: Reach) -> None:
        self._reaches[lane.lane_id] = reach
        self._reaches.move_to_end(lane.lane_id)
        while len(self._reaches) > _KEPT_REACHES:
            self._reaches.popitem(last=False)


def _makes_a_run(entries: Iterable[EntryRow]) -> bool:
    return any(isinstance(entry.operation, CreateRun) for entry in entries)


def _shown_instead(run: UpstreamRun, operation: Operation | None) -> str | None:
    """What the run shows where an operation would write; None where it shows nothing that could be newer.

    A run that goes on, has never ended: so does every run before its end is delivered.
    """
    match operation:
        case SetTag(key=key) | DeleteTag(key=key) if key in run.tags:
            return f"{run.tags[key]!r} in the tag {key!r}"
        case UpdateRun():
            return _other_state(run, operation)
        case _:
            return None


def _other_state(run: UpstreamRun, update: UpdateRun) -> str | None:
    if update.name is not None and update.name != run.name:
        return f"the name {run.name!r}"
    goes_on = run.status in (RunStatus.RUNNING, RunStatus.SCHEDULED) and run.end_time_ms is None
    if goes_on:
        return None
    if update.status is not None and update.status != run.status.value:
        return f"the status {run.status.value}"
    if update.end_time_ms is not None and update.end_time_ms != run.end_time_ms:
        return f"the end time {run.end_time_ms}"
    return None
