"""Metrics over traces, as the overview of an experiment shows them."""

from datetime import UTC, datetime, timedelta

from server.database.engine import Database, Transaction
from server.protocol import trace_metrics as messages
from server.services.identity import resolve_experiment_id
from server.store.search.trace_metrics import MetricGroup, query_metrics

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TraceMetrics:
    """Answers questions about many traces with a few numbers."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def query(self, request: messages.TraceMetricsRequest) -> list[messages.DataPointMessage]:
        """The data points that a request asks for."""
        query = messages.parse_metric_query(request)

        def find(transaction: Transaction) -> list[MetricGroup]:
            experiment_ids = [resolve_experiment_id(transaction, text) for text in query.experiment_ids]
            return query_metrics(transaction.connection, query, experiment_ids)

        groups = await self._database.read(find)
        return [_data_point(query.metric, group) for group in groups]


def _data_point(metric: str, group: MetricGroup) -> messages.DataPointMessage:
    dimensions = dict(group.dimensions)
    if group.bucket_ms is not None:
        dimensions[messages.TIME_BUCKET] = (_EPOCH + timedelta(milliseconds=group.bucket_ms)).isoformat()
    return messages.DataPointMessage(metric, dimensions, group.values)
