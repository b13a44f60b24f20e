"""Removing for good what was deleted long ago: here, and as far as the workspace allows there.

What has still to arrive in the workspace is not thrown away: its run stays, unless the operator says so.
A run goes in two steps. It is announced in one transaction that checks everything once more; from then on it
cannot be restored. Its rows then go in slices, among other writers' commits. What must go from the workspace
is put on the lane of its experiment, in the transaction in which the row that knows of it goes. A removal
that was cut off is finished by the next call.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.clock import Clock
from server.domain.entities import LifecycleStage
from server.domain.errors import invalid_parameter
from server.domain.operations import PurgeRun
from server.journal.discards import discard_rest
from server.journal.entries import append_entry
from server.protocol import gc as messages
from server.protocol import limits
from server.protocol.artifacts import prefix_of_uri
from server.services.identity import resolve_experiment_id
from server.spool.spool import Spool
from server.store import artifacts, experiments, removable, removals, runs
from server.store.removable import DeletedExperiment, DeletedRun, Obstacle, Selection
from server.store.removals import Budget, RunRemoval
from server.telemetry.audit import audit

T = TypeVar("T")

_RUNS_A_PAGE = 200
_RUNS_ANNOUNCED_AT_ONCE = 10
_ROWS_AT_ONCE = 500
_SLICE_SECONDS = 0.004
_PATHS_AN_ENTRY = 100
_MOST_KEPT_TOLD = 100
_LONGEST_SECONDS = 10**10


@dataclass(slots=True)
class _Outcome:
    """What one call has done so far."""

    removed_runs: int = 0
    removed_experiments: int = 0
    discarded: int = 0
    kept: Counter[Obstacle] = field(default_factory=Counter)
    kept_ids: list[messages.KeptMessage] = field(default_factory=list)

    def keep(self, kind: str, id_: str, obstacle: Obstacle) -> None:
        self.kept[obstacle] += 1
        if len(self.kept_ids) < _MOST_KEPT_TOLD:
            self.kept_ids.append(messages.KeptMessage(kind, id_, obstacle.value))

    def add(self, other: "_Outcome") -> None:
        self.discarded += other.discarded
        self.kept += other.kept
        self.kept_ids += other.kept_ids[: _MOST_KEPT_TOLD - len(self.kept_ids)]


class GarbageCollection:
    """Removes deleted runs and experiments, one page of them a call."""

    def __init__(self, *, database: Database, writer: Writer, spool: Spool, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._spool = spool
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    async def collect(self, request: messages.CollectRequest, operator: str) -> messages.CollectAnswer:
        """Remove the next page of what the request selects; `next_after` says where to go on.

        A dry run changes nothing and counts what would go. Experiments come after the last page of runs.

        Raises:
            MlflowError: an id in the request names nothing.
        """
        async with self._one_at_a_time:
            return await self._collect(request, operator)

    async def _collect(self, request: messages.CollectRequest, operator: str) -> messages.CollectAnswer:
        selection = await self._database.read(lambda transaction: self._select(transaction, request))
        outcome = _Outcome()
        if not request.dry_run and request.after == 0:
            await self._finish(await self._database.read(removals.list_announced_runs), outcome)
        page = await self._database.read(
            lambda transaction: removable.list_runs(
                transaction, selection, after_run_pk=request.after, limit=_RUNS_A_PAGE
            )
        )
        if request.dry_run:
            await self._database.read(lambda transaction: _judge(transaction, request, page, outcome))
        else:
            await self._remove_runs(selection, request, page, outcome)
        next_after = page[-1].run_pk if len(page) == _RUNS_A_PAGE else None
        if next_after is None and request.run_ids is None:
            await self._remove_experiments(selection, request, outcome)
        if not request.dry_run and (outcome.removed_runs or outcome.removed_experiments):
            audit(
                "deleted_runs_removed",
                operator=operator,
                runs=outcome.removed_runs,
                experiments=outcome.removed_experiments,
                discarded_entries=outcome.discarded,
                deleted_before_ms=selection.deleted_before_ms,
            )
        return messages.CollectAnswer(
            outcome.removed_runs,
            outcome.removed_experiments,
            outcome.discarded,
            {obstacle.value: count for obstacle, count in outcome.kept.items()},
            outcome.kept_ids,
            next_after,
        )

    def _select(self, transaction: Transaction, request: messages.CollectRequest) -> Selection:
        if not 0 <= request.older_than_seconds <= _LONGEST_SECONDS:
            raise invalid_parameter(f"older_than_seconds must be from 0 to {_LONGEST_SECONDS}.")
        before_ms = self._clock.now_ms() - request.older_than_seconds * 1000
        for run_id in request.run_ids or ():
            limits.check_text("run_ids", run_id)
            info = runs.find_info(transaction, run_id)
            if info is not None and info.lifecycle_stage is LifecycleStage.ACTIVE:
                raise invalid_parameter(f"The run {run_id} is not deleted.")
        experiment_ids = None
        if request.experiment_ids is not None:
            experiment_ids = [resolve_experiment_id(transaction, id_) for id_ in request.experiment_ids]
        return Selection(before_ms, request.run_ids, experiment_ids)

    # --- runs ---

    async def _remove_runs(
        self,
        selection: Selection,
        request: messages.CollectRequest,
        page: Sequence[DeletedRun],
        outcome: _Outcome,
    ) -> None:
        if not page:
            return
        measured, named = await self._database.read(
            lambda transaction: (
                removable.list_measured(transaction, [run.run_pk for run in page]),
                removable.list_named_in_sources(transaction, page),
            )
        )
        for run_id in named:
            outcome.keep("run", run_id, Obstacle.REGISTERED)
        free = [run for run in page if run.run_id not in named]
        for start in range(0, len(free), _RUNS_ANNOUNCED_AT_ONCE):
            part = free[start : start + _RUNS_ANNOUNCED_AT_ONCE]

            def announce(
                transaction: Transaction, part: list[DeletedRun] = part
            ) -> tuple[list[RunRemoval], _Outcome]:
                return _announce(transaction, selection, request, part, measured)

            lanes = tuple(lane for run in part for lane in run.lane_ids)
            announced, found = await self._commit(announce, lanes=lanes)
            outcome.add(found)
            failpoints.reach("gc.announced")
            await self._finish(announced, outcome)

    async def _finish(self, announced: Sequence[RunRemoval], outcome: _Outcome) -> None:
        """Remove all rows of these runs."""
        left = list(announced)
        while left:
            done, spool_names = await self._commit(partial(_remove_slice, left=left))
            left = left[done:]
            outcome.removed_runs += done
            for name in spool_names:
                await self._spool.remove(name)

    # --- experiments ---

    async def _remove_experiments(
        self, selection: Selection, request: messages.CollectRequest, outcome: _Outcome
    ) -> None:
        for experiment_id in await self._database.read(removals.list_announced_experiments):
            if not request.dry_run:
                await self._finish_experiment(experiment_id, outcome)
        for experiment in await self._database.read(
            lambda transaction: removable.list_experiments(transaction, selection)
        ):
            judge = partial(
                removable.find_experiment_obstacle,
                experiment=experiment,
                discards_undelivered=request.discard_undelivered,
            )
            if request.dry_run:
                obstacle = await self._database.read(judge)
                # Its runs may be what would go first.
                if obstacle is None or (obstacle is Obstacle.RUNS and not outcome.kept):
                    outcome.removed_experiments += 1
                    continue
            else:
                announce = partial(_announce_experiment, experiment=experiment, judge=judge)
                obstacle, discarded = await self._commit(announce, lanes=(experiment.lane_id,))
                outcome.discarded += discarded
            if obstacle is not None:
                outcome.keep("experiment", str(experiment.experiment_id), obstacle)
                continue
            await self._finish_experiment(experiment.experiment_id, outcome)

    async def _finish_experiment(self, experiment_id: int, outcome: _Outcome) -> None:
        is_done = False
        while not is_done:
            is_done, spool_names = await self._commit(
                partial(_remove_experiment_slice, experiment_id=experiment_id)
            )
            for name in spool_names:
                await self._spool.remove(name)
        outcome.removed_experiments += 1

    async def _commit(self, apply: Callable[[Transaction], T], *, lanes: tuple[int, ...] = ()) -> T:
        """Commit behind what clients wait for."""
        return await self._writer.commit(Work(apply, rows=_ROWS_AT_ONCE, lanes=lanes), background=True)


# --- inside a transaction -------------------------------------------------------------------


def _judge(
    transaction: Transaction, request: messages.CollectRequest, page: Sequence[DeletedRun], outcome: _Outcome
) -> None:
    named = removable.list_named_in_sources(transaction, page)
    for run in page:
        obstacle = Obstacle.REGISTERED if run.run_id in named else _find_obstacle(transaction, request, run)
        if obstacle is None:
            outcome.removed_runs += 1
        else:
            outcome.keep("run", run.run_id, obstacle)


def _find_obstacle(
    transaction: Transaction, request: messages.CollectRequest, run: DeletedRun
) -> Obstacle | None:
    return removable.find_obstacle(
        transaction,
        run,
        discards_undelivered=request.discard_undelivered,
        takes_models=request.with_models,
    )


def _announce(
    transaction: Transaction,
    selection: Selection,
    request: messages.CollectRequest,
    part: Sequence[DeletedRun],
    measured: dict[int, list[str]],
) -> tuple[list[RunRemoval], _Outcome]:
    """Announce those of the runs that may go as they are now."""
    outcome = _Outcome()
    announced: list[RunRemoval] = []
    for run in part:
        now = removable.reread_run(transaction, selection, run.run_pk)
        if now is None:
            continue  # restored since
        obstacle = _find_obstacle(transaction, request, now)
        if obstacle is not None:
            outcome.keep("run", now.run_id, obstacle)
            continue
        discarded = discard_rest(transaction, now.lane_ids) if request.discard_undelivered else 0
        outcome.discarded += discarded
        removal = RunRemoval(
            now.run_pk,
            now.run_id,
            now.experiment_id,
            now.upstream_id,
            list(now.lane_ids),
            deletes_upstream=not now.is_deleted_itself or discarded > 0,
            overflow_paths=removable.list_overflow_paths(transaction, now.run_pk),
            model_ids=removable.list_model_ids(transaction, now.run_id),
            measured_ids=measured.get(now.run_pk, []),
        )
        if not now.is_deleted_itself:
            # Its experiment may be restored meanwhile: this run stays deleted.
            runs.set_lifecycle_stage(
                transaction, [now.run_pk], LifecycleStage.DELETED, selection.deleted_before_ms
            )
        removals.announce_run(transaction, removal)
        announced.append(removal)
    return announced, outcome


def _remove_slice(transaction: Transaction, left: Sequence[RunRemoval]) -> tuple[int, list[str]]:
    """Remove as many rows as one transaction may; how many runs are gone, and the spooled bytes of files."""
    budget = Budget(_ROWS_AT_ONCE)
    until = time.monotonic() + _SLICE_SECONDS
    spool_names: list[str] = []
    for done, removal in enumerate(left):
        if budget.rows <= 0 or time.monotonic() > until:
            return done, spool_names
        files = removals.remove_run_files(transaction, removal, budget)
        spool_names += [file.spool_name for file in files if file.spool_name is not None]
        is_gone = budget.rows > 0 and removals.remove_run_rows(transaction, removal, budget)
        paths = [file.upstream_path for file in files]
        _purge_upstream(transaction, removal, paths, is_last=is_gone)
        if not is_gone:
            return done, spool_names
    return len(left), spool_names


def _purge_upstream(
    transaction: Transaction, removal: RunRemoval, paths: list[str], *, is_last: bool
) -> None:
    """Put on the experiment's lane what must go from the workspace."""
    if removal.upstream_id is None:
        return
    if is_last:
        paths = [*paths, *removal.overflow_paths]
    parts = [tuple(paths[start : start + _PATHS_AN_ENTRY]) for start in range(0, len(paths), _PATHS_AN_ENTRY)]
    deletes_run = is_last and removal.deletes_upstream
    if deletes_run and not parts:
        parts = [()]
    lane_id = experiments.lane_of(transaction, removal.experiment_id)
    for number, part in enumerate(parts, 1):
        operation = PurgeRun(
            removal.experiment_id, removal.upstream_id, part, deletes_run and number == len(parts)
        )
        append_entry(transaction, lane_id, operation, principal=None)


def _announce_experiment(
    transaction: Transaction,
    experiment: DeletedExperiment,
    judge: Callable[[Transaction], Obstacle | None],
) -> tuple[Obstacle | None, int]:
    """What stands against it; if nothing does, how many entries were given up."""
    found = experiments.find(transaction, experiment.experiment_id)
    if found is None or found.lifecycle_stage is LifecycleStage.ACTIVE:
        return Obstacle.RUNS, 0  # restored since
    obstacle = judge(transaction)
    if obstacle is not None:
        return obstacle, 0
    removals.announce_experiment(transaction, experiment.experiment_id)
    return None, discard_rest(transaction, [experiment.lane_id])


def _remove_experiment_slice(transaction: Transaction, experiment_id: int) -> tuple[bool, list[str]]:
    """Remove a slice; whether it was the last, and the spooled bytes of files."""
    found = experiments.find(transaction, experiment_id)
    names: list[str] = []
    folder = None if found is None else prefix_of_uri(found.artifact_location)
    root_id = artifacts.find_root(transaction, "")
    # A folder of its own, which no other experiment can have been given.
    if folder == str(experiment_id) and root_id is not None:
        removed = artifacts.delete_some(transaction, root_id, folder, limit=_ROWS_AT_ONCE)
        names = [name for _, name in removed if name is not None]
        if len(removed) == _ROWS_AT_ONCE:
            return False, names
    return removals.remove_experiment_rows(transaction, experiment_id, Budget(_ROWS_AT_ONCE)), names
