"""Routes about metric histories and the datasets of experiments."""

from typing import Any

from server.api.endpoints import MLFLOW_AND_PREVIEW, Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.protocol import metrics as messages
from server.services.metrics import Metrics


class MetricRoutes:
    """metrics/* and experiments/search-datasets."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def routes(self) -> list[Endpoint]:
        """The route table."""
        table: list[tuple[str, str, Handler, type[Any]]] = [
            ("GET", "/metrics/get-history", self._history, messages.MetricHistoryRequest),
            ("GET", "/metrics/get-history-bulk", self._bulk, messages.MetricHistoryBulkRequest),
            (
                "GET",
                "/metrics/get-history-bulk-interval",
                self._interval,
                messages.MetricHistoryBulkIntervalRequest,
            ),
            ("POST", "/experiments/search-datasets", self._datasets, messages.SearchDatasetsRequest),
        ]
        return [
            route
            for method, path, handler, message in table
            for route in json_routes(
                method,
                path,
                handler,
                permission=Permission.READ,
                message=message,
                prefixes=MLFLOW_AND_PREVIEW,
            )
        ]

    async def _history(self, call: Call, request: messages.MetricHistoryRequest) -> bytearray:
        return await self._metrics.history_json(request)

    async def _bulk(self, call: Call, request: messages.MetricHistoryBulkRequest) -> bytes:
        return await self._metrics.history_bulk_json(request)

    async def _interval(self, call: Call, request: messages.MetricHistoryBulkIntervalRequest) -> bytearray:
        return await self._metrics.history_bulk_interval_json(request)

    async def _datasets(
        self, call: Call, request: messages.SearchDatasetsRequest
    ) -> messages.DatasetSummariesAnswer:
        return await self._metrics.search_datasets(request)
