"""What an operator asks: how far delivery is, what is set aside, and whether a run is the same there."""

import asyncio
from typing import Protocol

from server import __version__
from server.commit.bounds import BacklogBound
from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.domain.fullness import fullness_of
from server.journal.backlog import count_pending_by_kind, measure_backlog
from server.journal.parked import count_by_reason
from server.protocol import operations as messages
from server.services import generations
from server.services.blocking import blocked_by
from server.services.disk_outlook import DiskOutlook, DiskWatch
from server.services.identity import get_run
from server.services.sources import get_registered_model
from server.spool.spool import Spool
from server.store import runs, upstream_ids

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

    @property
    def last_success_ms(self) -> int | None:
        """When an exchange last went well, since this process started."""
        ...

    def token(self) -> messages.TokenStatus:
        """The token held now."""
        ...

    def pace(self) -> messages.PaceStatus:
        """How often it may be called."""
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
        spool: Spool,
        backlog: BacklogBound,
        workspace: WorkspaceView | None,
        disk: DiskWatch,
        replay: Flushing | None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._spool = spool
        self._backlog = backlog
        self._workspace = workspace
        self._disk = disk
        self._replay = replay

    async def status(self) -> messages.StatusAnswer:
        """The whole installation in figures."""
        backlog, pending_by_kind, parked_by_reason, generation = await self._database.read(
            lambda transaction: (
                measure_backlog(transaction),
                count_pending_by_kind(transaction),
                count_by_reason(transaction),
                generations.read_state(transaction),
            )
        )
        lag = 0.0 if backlog.oldest_ms is None else max(self._clock.now_ms() - backlog.oldest_ms, 0) / 1000
        view = self._workspace
        return messages.StatusAnswer(
            pending=backlog.pending,
            uncertain=backlog.uncertain,
            parked=backlog.parked,
            overflow=backlog.overflow,
            dropped=backlog.dropped,
            lag_seconds=lag,
            pending_bytes=backlog.undelivered_bytes,
            pending_limit_bytes=self._backlog.limit_bytes,
            pending_fullness=fullness_of(backlog.undelivered_bytes, self._backlog.limit_bytes).value,
            spool_bytes=self._spool.used_bytes,
            spool_limit_bytes=self._spool.max_bytes,
            spool_fullness=self._spool.fullness.value,
            pending_by_kind=pending_by_kind,
            parked_by_reason=parked_by_reason,
            workspace=messages.WorkspaceStatus(
                configured=view is not None,
                reachable=None if view is None else view.is_reachable,
                address=None if view is None else view.address,
                last_failure=None if view is None else view.last_failure,
                last_success=None if view is None else view.last_success_ms,
            ),
            token=None if view is None else view.token(),
            pace=None if view is None else view.pace(),
            disk=_disk_message(await self._disk.outlook()),
            version=__version__,
            generation=generation.generation,
            being_read_back=generation.being_read_back,
        )

    async def run_status(self, run_id: str) -> messages.RunStatusAnswer:
        """How far one run is."""

        def look(transaction: Transaction) -> messages.RunStatusAnswer:
            info = get_run(transaction, run_id)
            lanes = runs.find_lanes(transaction, info.run_id)
            ids = upstream_ids.find_run(transaction, info.run_pk)
            assert lanes is not None
            backlog = measure_backlog(transaction, lanes.all_lanes)
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
                dropped=backlog.dropped,
                blocked_by=blocked_by(transaction, lanes.all_lanes),
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
                dropped=backlog.dropped,
                versions=[messages.VersionStatusMessage(str(here), there) for here, there in versions],
            )

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


def _disk_message(outlook: DiskOutlook) -> messages.DiskStatus:
    return messages.DiskStatus(
        free_bytes=outlook.free_bytes,
        total_bytes=outlook.total_bytes,
        least_free_bytes=outlook.least_free_bytes,
        has_headroom=outlook.has_headroom,
        store_bytes=outlook.database_bytes + outlook.spool_bytes,
        database_bytes=outlook.database_bytes,
        spool_bytes=outlook.spool_bytes,
        growth_bytes_per_day=outlook.growth_bytes,
        days_until_full=outlook.days_until_full,
    )
