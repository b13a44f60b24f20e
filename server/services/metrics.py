"""Metric histories: whole, for several runs, and sampled for charts."""

from collections.abc import Callable

from server.database.engine import Database, Transaction
from server.domain.errors import MlflowError, invalid_parameter
from server.protocol import limits, paging
from server.protocol import metrics as messages
from server.protocol.runs import MetricAnswer
from server.protocol.wire import encode, encode_page, require
from server.services.identity import get_run, resolve_experiment_id
from server.store import datasets, histories, runs
from server.store.charts import Charts
from server.store.histories import Point

_HISTORY_PAGE = 25_000
_BULK_RUNS = 100
_SAMPLED_POINTS = 2_500
_DATASET_EXPERIMENTS = 20


class Metrics:
    """What can be asked about metric points."""

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._charts = Charts()

    async def history_json(self, request: messages.MetricHistoryRequest) -> bytearray:
        """A page of one metric's points, by timestamp, step and value, as JSON.

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
        after = paging.decode_point(request.page_token)

        def find(transaction: Transaction) -> bytearray:
            run_pk = _find_run_pk(transaction, run_id)
            if run_pk is None:
                return encode_page("metrics", [], None)
            wanted = limits.INT64_MAX if limit is None else limit + 1
            points = histories.list_points(transaction, run_pk, key, offset=offset, limit=wanted, after=after)
            shown = points if limit is None else points[:limit]
            token = None
            if len(points) > len(shown):
                token = paging.encode_point(offset + len(shown), shown[-1])
            return encode_page("metrics", [_answer(key, point) for point in shown], token)

        return await self._database.read(find)

    async def history_bulk_json(self, request: messages.MetricHistoryBulkRequest) -> bytes:
        """The points of one metric in several runs, as JSON."""
        if not request.run_id:
            raise invalid_parameter("GetMetricHistoryBulk request must specify at least one run_id.")
        _check_run_count("GetMetricHistoryBulk", "run_ids", request.run_id, "cannot specify more than")
        if request.metric_key is None:
            raise invalid_parameter("GetMetricHistoryBulk request must specify a metric_key.")
        key = request.metric_key
        limit = _HISTORY_PAGE if request.max_results is None else min(request.max_results, _HISTORY_PAGE)

        def find(transaction: Transaction) -> bytes:
            pks = runs.find_pks(transaction, request.run_id)
            answers: list[MetricAnswer] = []
            for run_id in sorted(pks):
                room = max(limit - len(answers), 0)
                points = histories.list_points(transaction, pks[run_id], key, limit=room)
                answers.extend(_answer(key, point, run_id) for point in points)
            return encode(messages.BulkMetricsAnswer(answers))

        return await self._database.read(find)

    async def history_bulk_interval(
        self, request: messages.MetricHistoryBulkIntervalRequest
    ) -> messages.MetricsAnswer:
        """A sample of one metric in several runs, for a chart."""
        return messages.MetricsAnswer(await self._database.read(self._find_samples(request)))

    async def history_bulk_interval_json(
        self, request: messages.MetricHistoryBulkIntervalRequest
    ) -> bytearray:
        """The same as JSON."""
        find = self._find_samples(request)
        return await self._database.read(lambda transaction: encode_page("metrics", find(transaction), None))

    def _find_samples(
        self, request: messages.MetricHistoryBulkIntervalRequest
    ) -> Callable[[Transaction], list[MetricAnswer]]:
        if not request.run_ids:
            require("run_ids", None)
        _check_run_count("GetMetricHistoryBulkInterval", "run_ids", request.run_ids, "must specify at most")
        key = require("metric_key", request.metric_key)
        most = _SAMPLED_POINTS if request.max_results is None else request.max_results
        if not 1 <= most <= _SAMPLED_POINTS:
            raise invalid_parameter(f"max_results must be between 1 and {_SAMPLED_POINTS}.")
        steps = _interval(request.start_step, request.end_step)

        def find(transaction: Transaction) -> list[MetricAnswer]:
            answers: list[MetricAnswer] = []
            for run_id in request.run_ids:
                run_pk = _find_run_pk(transaction, run_id)
                if run_pk is None:
                    continue
                run = (run_pk, run_id)
                points = self._charts.sample_points(transaction, run, key, most=most, steps=steps)
                answers.extend(_answer(key, point, run_id) for point in points)
            return answers

        return find

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


def _answer(key: str, point: Point, run_id: str | None = None) -> MetricAnswer:
    step, timestamp_ms, value, is_nan = point
    return MetricAnswer(key, "NaN" if is_nan else value, timestamp_ms, step, run_id=run_id)


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
