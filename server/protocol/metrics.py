"""Wire messages about metric histories."""

import msgspec

from server.protocol.runs import MetricAnswer
from server.protocol.wire import Request, RunRequest


class MetricHistoryRequest(RunRequest):
    """metrics/get-history."""

    metric_key: str = ""
    max_results: int | None = None
    page_token: str | None = None


class MetricHistoryBulkRequest(Request):
    """metrics/get-history-bulk."""

    run_id: list[str] = []
    metric_key: str | None = None
    max_results: int | None = None


class MetricHistoryBulkIntervalRequest(Request):
    """metrics/get-history-bulk-interval."""

    run_ids: list[str] = []
    metric_key: str = ""
    start_step: int | None = None
    end_step: int | None = None
    max_results: int | None = None


class MetricsAnswer(msgspec.Struct, omit_defaults=True):
    """A list of metric points."""

    metrics: list[MetricAnswer] = []
    next_page_token: str | None = None


class BulkMetricsAnswer(msgspec.Struct):
    """metrics/get-history-bulk, which always has its list."""

    metrics: list[MetricAnswer]


class SearchDatasetsRequest(Request):
    """experiments/search-datasets."""

    experiment_ids: list[str] = []


class DatasetSummaryMessage(msgspec.Struct):
    """A dataset used somewhere in an experiment."""

    experiment_id: str
    name: str
    digest: str
    context: str


class DatasetSummariesAnswer(msgspec.Struct, omit_defaults=True):
    """experiments/search-datasets."""

    dataset_summaries: list[DatasetSummaryMessage] = []
