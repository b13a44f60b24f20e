"""Metric histories: whole, for several runs, and sampled for charts."""

from server.database.engine import Database, Transaction
from server.domain.errors import MlflowError, invalid_parameter
from server.protocol import limits, paging
from server.protocol import metrics as messages
from server.protocol.runs import MetricAnswer, metric_answer
from server.protocol.wire import require
from server.services.identity import get_run, resolve_experiment_id
from server.store import datasets, metrics, runs

_HISTORY_PAGE = 25_000
_BULK_RUNS = 100
_SAMPLED_POINTS = 2_500
_DATASET_EXPERIMENTS = 20


class Metrics:
    """What can be asked about metric points."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def history(self, request: messages.MetricHistoryRequest) -> messages.MetricsAnswer:
        """A page of one metric's points, by timestamp, step and value.

        An unknown run or metric has no points, as on a stock server. Without `max_results` all
        points come at once, as clients before 2.0 expect.
        """
        key = require("metric_key", request.metric_key)
        run_id = request.named_run
        limit = None
        if request.max_results is not None:
            limit = limits.check_page_size(
                request.max_results, default=_HISTORY_PAGE, largest=limits.INT64_MAX
            )
            limit = min(limit, _HISTORY_PAGE)
        offset = paging.decode_offset(request.page_token)

        def find(transaction: Transaction) -> messages.MetricsAnswer:
            run_pk = _find_run_pk(transaction, run_id)
            if run_pk is None:
                return messages.MetricsAnswer()
            wanted = limits.INT64_MAX if limit is None else limit + 1
            points = metrics.list_points(transaction, run_pk, key, offset=offset, limit=wanted)
            has_more = limit is not None and len(points) > limit
            shown = points[:limit] if limit is not None else points
            answers = [metric_answer(key, value, is_nan, time, step) for step, time, value, is_nan in shown]
            token = paging.encode_offset(offset + len(shown)) if has_more else None
            return messages.MetricsAnswer(answers, token)

        return await self._database.read(find)

    async def history_bulk(self, request: messages.MetricHistoryBulkRequest) -> messages.BulkMetricsAnswer:
        """The points of one metric in several runs."""
        if not request.run_id:
            raise invalid_parameter("GetMetricHistoryBulk request must specify at least one run_id.")
        _check_run_count("GetMetricHistoryBulk", "run_ids", request.run_id, "cannot specify more than")
        if request.metric_key is None:
            raise invalid_parameter("GetMetricHistoryBulk request must specify a metric_key.")
        key = request.metric_key
        limit = _HISTORY_PAGE if request.max_results is None else min(request.max_results, _HISTORY_PAGE)

        def find(transaction: Transaction) -> messages.BulkMetricsAnswer:
            pks = runs.find_pks(transaction, request.run_id)
            answers: list[MetricAnswer] = []
            for run_id in sorted(pks):
                room = max(limit - len(answers), 0)
                points = metrics.list_points(transaction, pks[run_id], key, offset=0, limit=room)
                answers.extend(_with_run(key, point, run_id) for point in points)
            return messages.BulkMetricsAnswer(answers)

        return await self._database.read(find)

    async def history_bulk_interval(
        self, request: messages.MetricHistoryBulkIntervalRequest
    ) -> messages.MetricsAnswer:
        """A sample of one metric in several runs, for a chart."""
        if not request.run_ids:
            require("run_ids", None)
        _check_run_count("GetMetricHistoryBulkInterval", "run_ids", request.run_ids, "must specify at most")
        key = require("metric_key", request.metric_key)
        most = _SAMPLED_POINTS if request.max_results is None else request.max_results
        if not 1 <= most <= _SAMPLED_POINTS:
            raise invalid_parameter(f"max_results must be between 1 and {_SAMPLED_POINTS}.")
        steps = _interval(request.start_step, request.end_step)

        def find(transaction: Transaction) -> messages.MetricsAnswer:
            answers: list[MetricAnswer] = []
            for run_id in request.run_ids:
                run_pk = _find_run_pk(transaction, run_id)
                if run_pk is None:
                    continue
                points = metrics.sample_points(transaction, run_pk, key, most=most, steps=steps)
                answers.extend(_with_run(key, point, run_id) for point in points)
            return messages.MetricsAnswer(answers)

        return await self._database.read(find)

    async def search_datasets(
        self, request: messages.SearchDatasetsRequest
    ) -> messages.DatasetSummariesAnswer:
        """The datasets used in some experiments."""
        if not request.experiment_ids:
            raise invalid_parameter("SearchDatasets request must specify at least one experiment_id.")
        if len(request.experiment_ids) > _DATASET_EXPERIMENTS:
            raise invalid_parameter(
                f"SearchDatasets request cannot specify more than {_DATASET_EXPERIMENTS} experiment_ids."
                f" Received {len(request.experiment_ids)} experiment_ids."
            )

        def find(transaction: Transaction) -> messages.DatasetSummariesAnswer:
            ids = [resolve_experiment_id(transaction, text) for text in request.experiment_ids]
            return messages.DatasetSummariesAnswer(
                [
                    messages.DatasetSummaryMessage(str(id_), name, digest, context)
                    for id_, name, digest, context in datasets.search_summaries(transaction, ids)
                ]
            )

        return await self._database.read(find)


def _find_run_pk(transaction: Transaction, run_id: str) -> int | None:
    try:
        return get_run(transaction, run_id).run_pk
    except MlflowError:
        return None


def _with_run(key: str, point: tuple[int, int, float, int], run_id: str) -> MetricAnswer:
    step, timestamp_ms, value, is_nan = point
    answer = metric_answer(key, value, is_nan, timestamp_ms, step)
    answer.run_id = run_id
    return answer


def _check_run_count(call: str, name: str, run_ids: list[str], verb: str) -> None:
    if len(run_ids) > _BULK_RUNS:
        raise invalid_parameter(f"{call} request {verb} {_BULK_RUNS} {name}. Received {len(run_ids)} {name}.")


def _interval(start: int | None, end: int | None) -> tuple[int, int] | None:
    if start is None and end is None:
        return None
    if start is None or end is None:
        raise invalid_parameter("If either start step or end step are specified, both must be specified.")
    if start > end:
        raise invalid_parameter(
            f"end_step must be greater than start_step. Found start_step={start} and end_step={end}."
        )
    limits.check_int64("start_step", start)
    limits.check_int64("end_step", end)
    return start, end
