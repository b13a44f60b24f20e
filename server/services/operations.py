"""What an operator asks: how far delivery is, what is set aside, and whether a run is the same there."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from server import __version__
from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.journal.backlog import Backlog, measure_backlog
from server.journal.barriers import list_unmet_barriers
from server.journal.leases import Lane, read_lane
from server.protocol import operations as messages
from server.services.identity import get_run
from server.services.sources import get_registered_model
from server.store import runs, upstream_ids

_BATCH_OVERHEAD_BYTES = 64
_DRAIN_LOOK_SECONDS = 0.2


class WorkspaceView(Protocol):
    """What is known of the workspace without asking it."""

    @property
    def address(self) -> str:
        """The workspace's canonical address."""
        ...

    def studio_url(self, upstream_run_id: str) -> str:
        """Where a run is shown in Azure ML studio."""
        ...

    @property
    def is_reachable(self) -> bool | None:
        """Whether the last exchange went well; None before the first."""
        ...

    @property
    def last_failure(self) -> str | None:
        """What went wrong last, while it is wrong."""
        ...

    def token(self) -> messages.TokenStatus:
        """The token held now."""
        ...


class Flushing(Protocol):
    """Delivery that can be told not to wait for company."""

    def begin_flush(self) -> None:
        """Stop waiting."""
        ...

    def end_flush(self) -> None:
        """Wait again."""
        ...


class Operations:
    """The operator's view."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        spool_bytes: Callable[[], int],
        workspace: WorkspaceView | None,
        replay: Flushing | None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._spool_bytes = spool_bytes
        self._workspace = workspace
        self._replay = replay

    async def status(self) -> messages.StatusAnswer:
        """The whole installation in figures."""
        backlog, pending_bytes = await self._database.read(_measure)
        lag = 0.0 if backlog.oldest_ms is None else max(self._clock.now_ms() - backlog.oldest_ms, 0) / 1000
        view = self._workspace
        return messages.StatusAnswer(
            pending=backlog.pending,
            uncertain=backlog.uncertain,
            parked=backlog.parked,
            overflow=backlog.overflow,
            lag_seconds=lag,
            pending_bytes=pending_bytes,
            spool_bytes=self._spool_bytes(),
            workspace=messages.WorkspaceStatus(
                configured=view is not None,
                reachable=None if view is None else view.is_reachable,
                address=None if view is None else view.address,
                last_failure=None if view is None else view.last_failure,
            ),
            token=None if view is None else view.token(),
            version=__version__,
        )

    async def run_status(self, run_id: str) -> messages.RunStatusAnswer:
        """How far one run is."""

        def look(transaction: Transaction) -> messages.RunStatusAnswer:
            info = get_run(transaction, run_id)
            lanes = runs.find_lanes(transaction, info.run_id)
            ids = upstream_ids.find_run(transaction, info.run_pk)
            assert lanes is not None
            backlog = measure_backlog(transaction, [lanes.data_lane, lanes.artifact_lane])
            upstream_id = None if ids is None else ids.upstream_id
            studio = None
            if upstream_id is not None and self._workspace is not None:
                studio = self._workspace.studio_url(upstream_id)
            return messages.RunStatusAnswer(
                run_id=info.run_id,
                upstream_run_id=upstream_id,
                pending=backlog.pending,
                uncertain=backlog.uncertain,
                parked=backlog.parked,
                overflow=backlog.overflow,
                blocked_by=_blocked_by(transaction, [lanes.data_lane, lanes.artifact_lane]),
                studio_url=studio,
            )

        return await self._database.read(look)

    async def model_status(self, name: str) -> messages.ModelStatusAnswer:
        """How far one registered model is, and the numbers that the workspace gave its versions."""

        def look(transaction: Transaction) -> messages.ModelStatusAnswer:
            model = get_registered_model(transaction, name)
            backlog = measure_backlog(transaction, [model.lane_id])
            versions = upstream_ids.list_upstream_versions(transaction, model.model_pk)
            return messages.ModelStatusAnswer(
                name=model.name,
                upstream_name=model.upstream_name,
                pending=backlog.pending,
                uncertain=backlog.uncertain,
                parked=backlog.parked,
                overflow=backlog.overflow,
                versions=[messages.VersionStatusMessage(str(here), there) for here, there in versions],
            )

        return await self._database.read(look)

    async def list_parked(self) -> messages.ParkedAnswer:
        """Everything that was set aside and not decided on."""

        def look(transaction: Transaction) -> messages.ParkedAnswer:
            rows = transaction.rows(
                "SELECT parked.parked_id, runs.run_id, parked.kind, parked.reason, parked.message,"
                " parked.parked_at_ms, parked.decision FROM parked LEFT JOIN runs ON runs.run_pk ="
                " parked.run_pk"
                " WHERE parked.decision IS NULL ORDER BY parked.parked_id LIMIT 1000"
            )
            return messages.ParkedAnswer([messages.ParkedMessage(*row) for row in rows])

        return await self._database.read(look)

    async def drain(self, timeout_seconds: float) -> messages.DrainAnswer:
        """Deliver without waiting for company until nothing is pending, or the time is up."""
        deadline = self._clock.monotonic() + timeout_seconds
        if self._replay is not None:
            self._replay.begin_flush()
        try:
            while True:
                backlog = await self._database.read(measure_backlog)
                done = backlog.pending == 0 and backlog.uncertain == 0
                if done or self._clock.monotonic() >= deadline:
                    return messages.DrainAnswer(backlog.pending, backlog.uncertain, backlog.parked)
                await asyncio.sleep(_DRAIN_LOOK_SECONDS)
        finally:
            if self._replay is not None:
                self._replay.end_flush()


def _measure(transaction: Transaction) -> tuple[Backlog, int]:
    entries = transaction.rows(
        f"SELECT coalesce(sum(length(payload) + {_BATCH_OVERHEAD_BYTES}), 0) FROM journal_entries"
    )[0][0]
    backlog = measure_backlog(transaction)
    return backlog, int(entries) + _BATCH_OVERHEAD_BYTES * backlog.pending


def _blocked_by(transaction: Transaction, lane_ids: list[int]) -> str | None:
    """What a run's next entry waits for, in words."""
    for lane_id in lane_ids:
        settled = transaction.rows("SELECT settled_position FROM lanes WHERE lane_id = ?", (lane_id,))[0][0]
        unmet = list_unmet_barriers(transaction, lane_id, settled + 1, settled + 1)
        for awaited in unmet.get(settled + 1, []):
            lane = read_lane(transaction, awaited)
            failure = transaction.rows("SELECT last_failure FROM lanes WHERE lane_id = ?", (awaited,))[0][0]
            words = f"{lane.kind.value} {_subject_name(transaction, lane)}"
            return f"{words} ({failure})" if failure else words
    return None


def _subject_name(transaction: Transaction, lane: Lane) -> str:
    if lane.kind.value.startswith("run"):
        ids = upstream_ids.find_run(transaction, lane.subject_id)
        return ids.run_id if ids else str(lane.subject_id)
    if lane.kind.value == "experiment":
        experiment = upstream_ids.find_experiment(transaction, lane.subject_id)
        return experiment.upstream_name if experiment else str(lane.subject_id)
    return upstream_ids.find_model_name(transaction, lane.subject_id) or str(lane.subject_id)
