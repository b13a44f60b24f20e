"""Deliveries as spans: around each noun's delivery, and only in a process that is traced."""

from collections import OrderedDict
from datetime import timedelta

from server.database.engine import Database
from server.domain.workspace_limits import LimitRefusal
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.lanes import OF_A_RUN
from server.journal.leases import Lane
from server.replay.deliveries.delivery import Delivery, Division
from server.store import upstream_ids
from server.telemetry.spans import Tracing

_RUNS_KEPT = 10_000


class TracedDelivery:
    """A noun's delivery, with a span for each batch sent and for each one read back."""

    def __init__(self, delivery: Delivery, tracing: Tracing, database: Database) -> None:
        self._delivery = delivery
        self._tracing = tracing
        self._database = database
        self._run_ids: OrderedDict[int, str | None] = OrderedDict()

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        """What of the lane's next rows is to be sent, and what overflows."""
        return await self._delivery.divide(lane, contents, refusal)

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Send it once, in a span linked to the requests that wrote it."""
        run_id = await self._run_id(lane)
        with self._tracing.delivery(
            f"deliver {lane.kind.value}",
            lane_id=lane.lane_id,
            run_id=run_id,
            accepted_at_ms=_moments(contents),
            attributes=_described(batch, contents),
        ):
            await self._delivery.send(lane, batch, contents)

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        """Of an uncertain batch, what the workspace does not show; in a span of its own."""
        run_id = await self._run_id(lane)
        with self._tracing.delivery(
            f"read back {lane.kind.value}",
            lane_id=lane.lane_id,
            run_id=run_id,
            accepted_at_ms=_moments(contents),
            attributes=_described(batch, contents),
        ) as span:
            missing = await self._delivery.find_missing(lane, batch, contents)
            span.set_attribute("mlproxy.missing", missing.count)
            return missing

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        """How long absence must last before it is believed."""
        return await self._delivery.settle_time(lane, contents)

    async def _run_id(self, lane: Lane) -> str | None:
        if lane.kind not in OF_A_RUN:
            return None
        if lane.subject_id not in self._run_ids:
            ids = await self._database.read(
                lambda transaction: upstream_ids.find_run(transaction, lane.subject_id)
            )
            self._run_ids[lane.subject_id] = None if ids is None else ids.run_id
            if len(self._run_ids) > _RUNS_KEPT:
                self._run_ids.popitem(last=False)
        return self._run_ids[lane.subject_id]


def _moments(contents: Contents) -> list[int]:
    of_entries = [entry.accepted_at_ms for entry in contents.entries]
    return of_entries + [point.accepted_at_ms for point in contents.points]


def _described(batch: Batch, contents: Contents) -> dict[str, str | int]:
    return {
        "mlproxy.first_position": batch.first_position,
        "mlproxy.last_position": batch.last_position,
        "mlproxy.attempt": batch.attempt,
        "mlproxy.entries": contents.count,
    }
