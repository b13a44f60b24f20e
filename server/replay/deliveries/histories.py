"""Metric histories: which points the workspace shows."""

import math
from collections.abc import Collection, Sequence

from server.journal.leases import Lane
from server.journal.points import PointRow
from server.upstream.metrics import UpstreamMetrics
from server.upstream.runs import UpstreamMetric

PointIdentity = tuple[str, int, int, float | None]


class Histories:
    """Reads the histories of runs' metrics."""

    def __init__(self, metrics: UpstreamMetrics) -> None:
        self._metrics = metrics

    async def list_not_shown(
        self, lane: Lane, run_id: str, points: Sequence[PointRow], keys: Collection[str]
    ) -> list[PointRow]:
        """The points that no history of these metrics shows. `run_id` is the workspace's.

        Raises:
            UpstreamFailure: a history could not be read.
        """
        shown: set[PointIdentity] = set()
        for key in dict.fromkeys(point.key for point in points if point.key in keys):
            async for metric in self._metrics.history(run_id, key):
                shown.add(identity_of(metric))
        return [point for point in points if identity_of(metric_of(point)) not in shown]


def metric_of(point: PointRow) -> UpstreamMetric:
    """A point as the workspace is to hold it."""
    return UpstreamMetric(
        point.key, math.nan if point.is_nan else point.value, point.timestamp_ms, point.step
    )


def identity_of(metric: UpstreamMetric) -> PointIdentity:
    """What makes a point this one. NaN does not equal itself, and a point must."""
    return metric.key, metric.step, metric.timestamp_ms, None if math.isnan(metric.value) else metric.value
