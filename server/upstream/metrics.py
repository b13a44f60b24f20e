"""Metric histories of the workspace, for reading back and for runs that were born there."""

from collections.abc import AsyncIterator

import msgspec

from server.upstream.answers import read_answer
from server.upstream.connection import Connection
from server.upstream.runs import MetricAnswer, UpstreamMetric
from server.upstream.segments import checked_run_id

LARGEST_PAGE = 900
"""The workspace refuses a thousand and more."""


class _Page(msgspec.Struct):
    metrics: list[MetricAnswer] = []
    next_page_token: str | None = None


class UpstreamMetrics:
    """Calls about metrics."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def history(
        self, run_id: str, key: str, page_size: int = LARGEST_PAGE
    ) -> AsyncIterator[UpstreamMetric]:
        """Every point of one metric of a run, page by page."""
        params: dict[str, str | int] = {
            "run_uuid": checked_run_id(run_id),
            "run_id": run_id,
            "metric_key": key,
            "max_results": min(page_size, LARGEST_PAGE),
        }
        while True:
            answer = await self._connection.mlflow("GET", "metrics/get-history", params=params)
            page = read_answer(answer, _Page, is_repeatable=True)
            for metric in page.metrics:
                yield metric.to_domain()
            if not page.next_page_token:
                return
            params["page_token"] = page.next_page_token
