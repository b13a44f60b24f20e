"""The kinds of load: what clients of a tracking server do, as ready HTTP requests.

A workload is a callable that gives the steps of one operation. What is random is drawn with a
fixed seed, so that every server gets the same.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any
from urllib.parse import quote

from benchmarks.load.connection import Steps
from benchmarks.load.plan import Workload

API = "/api/2.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"
HISTORY_PAGE = 25_000  # what the MLflow client asks for
CHART_POINTS = 320  # what the MLflow UI asks for
LEARNING_RATES = ("0.1", "0.01", "0.001", "0.0001")
_EPOCH_MS = 1_700_000_000_000
_SEED = 5

NextOperation = Callable[[], Steps]


class Requests:
    """Makes requests with the headers that all of them carry."""

    def __init__(self, host: str, headers: Mapping[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = f"HTTP/1.1\r\nHost: {host}\r\n{lines}".encode()

    def get(self, path: str) -> bytes:
        """A GET."""
        return b"GET %b %b\r\n" % (path.encode(), self._head)

    def post(self, path: str, body: bytes) -> bytes:
        """A POST of JSON."""
        return b"POST %b %bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            path.encode(),
            self._head,
            len(body),
            body,
        )

    def post_json(self, path: str, document: Any) -> bytes:
        """A POST of a document."""
        return self.post(path, json.dumps(document).encode())


def log_metric(
    requests: Requests, *, run_ids: Sequence[str], keys: int = 10, first: int = 0
) -> NextOperation:
    """One point a request, spread over the runs; steps of a series only grow, from `first`."""
    numbers = count(first)
    draw = random.Random(_SEED).random

    def steps() -> Steps:
        number = next(numbers)
        run_id = run_ids[number % len(run_ids)].encode()
        yield requests.post(
            f"{API}/runs/log-metric",
            b'{"run_uuid": "%b", "run_id": "%b", "key": "m%d", "value": %.6f, "timestamp": %d, "step": %d}'
            % (run_id, run_id, number // len(run_ids) % keys, draw(), _now_ms(), number),
        )

    return steps


def log_batch(
    requests: Requests,
    *,
    run_ids: Sequence[str],
    metrics: int,
    params: int = 0,
    tags: int = 0,
    keys: int = 10,
    first: int = 0,
) -> NextOperation:
    """So many points a request, and the same few params and tags with each. `first` numbers the first."""
    numbers = count(first)
    draw = random.Random(_SEED).random
    others = {
        "params": [{"key": f"p{index}", "value": f"v{index}"} for index in range(params)],
        "tags": [{"key": f"t{index}", "value": f"v{index}"} for index in range(tags)],
    }
    tail = f"], {json.dumps(others)[1:]}"

    def steps() -> Steps:
        number = next(numbers)
        run_id = run_ids[number % len(run_ids)]
        first_step, time_ms, value = number * metrics, _now_ms(), draw()
        points = ", ".join(
            [
                f'{{"key": "m{index % keys}", "value": {value + index:.6f}, "timestamp": {time_ms},'
                f' "step": {first_step + index // keys}}}'
                for index in range(metrics)
            ]
        )
        yield requests.post(
            f"{API}/runs/log-batch", f'{{"run_id": "{run_id}", "metrics": [{points}{tail}'.encode()
        )

    return steps


def create_and_update_run(requests: Requests, *, experiment_id: str) -> NextOperation:
    """A run's life: created with the tags of the client, then finished. Two requests an operation."""
    numbers = count()
    tags = [
        {"key": "mlflow.user", "value": "someone"},
        {"key": "mlflow.source.name", "value": "train.py"},
        {"key": "mlflow.source.type", "value": "LOCAL"},
    ]

    def steps() -> Steps:
        name = f"run-{next(numbers)}"
        created = yield requests.post_json(f"{API}/runs/create", _new_run(experiment_id, name, tags))
        run_id = json.loads(created)["run"]["info"]["run_id"]
        ended = {"run_id": run_id, "run_uuid": run_id, "status": "FINISHED", "end_time": _now_ms()}
        yield requests.post_json(f"{API}/runs/update", ended)

    return steps


def get_run(requests: Requests, *, run_ids: Sequence[str]) -> NextOperation:
    """One run with all that is shown of it."""
    numbers = count()

    def steps() -> Steps:
        yield requests.get(f"{API}/runs/get?run_id={run_ids[next(numbers) % len(run_ids)]}")

    return steps


def search_runs(
    requests: Requests,
    *,
    experiment_id: str,
    max_results: int,
    filter: str = "",  # noqa: A002
    order_by: Sequence[str] = (),
    page_token: str | None = None,
) -> NextOperation:
    """One page of runs."""
    question: dict[str, Any] = {"experiment_ids": [experiment_id], "max_results": max_results}
    if filter:
        question["filter"] = filter
    if order_by:
        question["order_by"] = list(order_by)
    if page_token:
        question["page_token"] = page_token
    request = requests.post_json(f"{API}/runs/search", question)

    def steps() -> Steps:
        yield request

    return steps


def metric_history(requests: Requests, *, run_id: str, key: str) -> NextOperation:
    """A whole history, page by page, as the client reads it."""
    path = (
        f"{API}/metrics/get-history?run_id={run_id}&run_uuid={run_id}&metric_key={key}"
        f"&max_results={HISTORY_PAGE}"
    )

    def steps() -> Steps:
        page = yield requests.get(path)
        while token := json.loads(page).get("next_page_token"):
            page = yield requests.get(f"{path}&page_token={quote(token)}")

    return steps


def chart(
    requests: Requests, *, run_ids: Sequence[str], key: str, max_results: int = CHART_POINTS
) -> NextOperation:
    """A sample of a metric in some runs, as the UI's charts ask for it."""
    named = "&".join(f"run_ids={run_id}" for run_id in run_ids)
    path = f"{AJAX}/metrics/get-history-bulk-interval?{named}&metric_key={key}&max_results={max_results}"
    request = requests.get(path)

    def steps() -> Steps:
        yield request

    return steps


def get(requests: Requests, *, path: str) -> NextOperation:
    """Any page."""
    request = requests.get(path)

    def steps() -> Steps:
        yield request

    return steps


def create_experiment(requests: Requests, *, prefix: str, first: int = 0) -> NextOperation:
    """An experiment of a new name."""
    numbers = count(first)

    def steps() -> Steps:
        yield requests.post_json(f"{API}/experiments/create", {"name": f"{prefix}-{next(numbers)}"})

    return steps


def seed_run(
    requests: Requests, *, experiment_id: str, metrics: int, params: int, tags: int, first: int = 0
) -> NextOperation:
    """A run with content: created, then filled by one log-batch. What it holds follows from its number."""
    numbers = count(first)

    def steps() -> Steps:
        number = next(numbers)
        created = yield requests.post_json(
            f"{API}/runs/create", _new_run(experiment_id, f"run-{number}", [], _EPOCH_MS + number)
        )
        run_id = json.loads(created)["run"]["info"]["run_id"]
        content = run_content(number, metrics=metrics, params=params, tags=tags)
        yield requests.post_json(f"{API}/runs/log-batch", {"run_id": run_id, **content})

    return steps


def seed_history(
    requests: Requests, *, run_id: str, key: str, batch: int = 1000, stride: int = 1
) -> NextOperation:
    """The next points of one long history; steps are `stride` apart."""
    numbers = count()
    draw = random.Random(_SEED).random

    def steps() -> Steps:
        first = next(numbers) * batch
        points = [
            {"key": key, "value": draw(), "timestamp": _EPOCH_MS + index, "step": index * stride}
            for index in range(first, first + batch)
        ]
        yield requests.post_json(f"{API}/runs/log-batch", {"run_id": run_id, "metrics": points})

    return steps


def run_content(number: int, *, metrics: int, params: int, tags: int) -> dict[str, list[dict[str, Any]]]:
    """Metrics, params (at least one) and tags of the run with this number: the same on every server.

    The param `serial` is the number: no two runs have the same.
    """
    draw = random.Random(f"{_SEED}:{number}")
    return {
        "metrics": [
            {
                "key": "loss" if index == 0 else f"metric{index}",
                "value": draw.random(),
                "timestamp": _EPOCH_MS + number,
                "step": 1,
            }
            for index in range(metrics)
        ],
        "params": [
            {"key": "lr", "value": draw.choice(LEARNING_RATES)}
            if index == 0
            else {"key": f"param{index}", "value": f"value{draw.randrange(100)}"}
            for index in range(params - 1)
        ]
        + [{"key": "serial", "value": str(number)}],
        "tags": [{"key": f"tag{index}", "value": f"tagvalue{draw.randrange(100)}"} for index in range(tags)],
    }


KINDS: dict[str, Callable[..., NextOperation]] = {
    "log-metric": log_metric,
    "log-batch": log_batch,
    "create-and-update-run": create_and_update_run,
    "get-run": get_run,
    "search-runs": search_runs,
    "metric-history": metric_history,
    "chart": chart,
    "get": get,
    "create-experiment": create_experiment,
    "seed-run": seed_run,
    "seed-history": seed_history,
}


def build(workload: Workload, requests: Requests) -> NextOperation:
    """The workload that a plan describes.

    Raises:
        KeyError: there is no such kind.
        TypeError: the kind has no such option.
    """
    options = dict(workload)
    return KINDS[options.pop("kind")](requests, **options)


def _new_run(
    experiment_id: str, name: str, tags: Sequence[Mapping[str, str]], start_ms: int | None = None
) -> dict[str, Any]:
    return {
        "experiment_id": experiment_id,
        "user_id": "someone",
        "run_name": name,
        "start_time": _now_ms() if start_ms is None else start_ms,
        "tags": list(tags),
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
