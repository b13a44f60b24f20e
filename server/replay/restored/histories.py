"""The histories of restored points, read once for a whole lane.

A lane may have been restored with a million points, which go out in thousands of batches. Reading each
metric's history again for every one of them would take days. So when all that another generation sent must
have come to be seen, the histories are read once, and what they show is kept: a bit for each position.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from server.database.engine import Database, Transaction
from server.journal.leases import Lane
from server.journal.points import PointRow, list_series, read_points_of_series
from server.replay.deliveries.histories import Histories, PointIdentity, identity_of, metric_of
from server.upstream.metrics import UpstreamMetrics

_KEPT_LANES = 64
_POINTS_AT_ONCE = 100_000


@dataclass(slots=True)
class _ShownPoints:
    """The positions from `first` to `through` whose points the workspace shows."""

    first: int
    through: int
    bits: bytearray

    def add(self, position: int) -> None:
        index = position - self.first
        self.bits[index >> 3] |= 1 << (index & 7)

    def holds(self, position: int) -> bool:
        index = position - self.first
        return bool(self.bits[index >> 3] & (1 << (index & 7)))


class RestoredHistories(Histories):
    """Histories that can be read ahead for the restored points of a lane."""

    def __init__(self, metrics: UpstreamMetrics, database: Database) -> None:
        super().__init__(metrics)
        self._database = database
        self._lanes: OrderedDict[int, _ShownPoints] = OrderedDict()
        self._unused: set[int] = set()

    def knows(self, lane: Lane) -> bool:
        """Whether the lane's histories were read ahead."""
        return self._find(lane) is not None

    async def read_ahead(self, lane: Lane, run_id: str) -> None:
        """Read what the workspace shows of all restored points of a lane.

        Raises:
            UpstreamFailure: a history could not be read.
        """
        first = lane.settled_position + 1
        count = max(lane.restored_through - lane.settled_position, 0)
        shown = _ShownPoints(first, lane.restored_through, bytearray(count // 8 + 1))
        series = await self._database.read(
            lambda transaction: list_series(
                transaction, lane.lane_id, after=lane.settled_position, through=lane.restored_through
            )
        )
        for series_id in series:
            await self._read_series(lane, run_id, series_id, shown)
        self._lanes[lane.lane_id] = shown
        while len(self._lanes) > _KEPT_LANES:
            self._unused.discard(self._lanes.popitem(last=False)[0])

    def use(self, lane: Lane, *, is_fresh: bool) -> None:
        """Use what is known of the lane, or (not `is_fresh`) look again: the batch at hand was sent since."""
        if is_fresh:
            self._unused.discard(lane.lane_id)
        else:
            self._unused.add(lane.lane_id)

    async def list_not_shown(
        self, lane: Lane, run_id: str, points: Sequence[PointRow], keys: Collection[str]
    ) -> list[PointRow]:
        """The points that no history of these metrics shows."""
        shown = None if lane.lane_id in self._unused else self._find(lane)
        if shown is None:
            return await super().list_not_shown(lane, run_id, points, keys)
        return [point for point in points if not shown.holds(point.position)]

    def _find(self, lane: Lane) -> _ShownPoints | None:
        shown = self._lanes.get(lane.lane_id)
        return shown if shown is not None and shown.through == lane.restored_through else None

    async def _read_series(self, lane: Lane, run_id: str, series_id: int, shown: _ShownPoints) -> None:
        after = lane.settled_position
        while after < lane.restored_through:
            points = await self._points_of(lane, series_id, after)
            if not points:
                return
            wanted: dict[PointIdentity, int] = {
                identity_of(metric_of(point)): point.position for point in points
            }
            async for metric in self._metrics.history(run_id, points[0].key):
                position = wanted.get(identity_of(metric))
                if position is not None:
                    shown.add(position)
            after = points[-1].position

    async def _points_of(self, lane: Lane, series_id: int, after: int) -> list[PointRow]:
        def read(transaction: Transaction) -> list[PointRow]:
            return read_points_of_series(
                transaction,
                lane.lane_id,
                series_id,
                after=after,
                through=lane.restored_through,
                limit=_POINTS_AT_ONCE,
            )

        return await self._database.read(read)
