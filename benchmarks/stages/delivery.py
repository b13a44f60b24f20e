"""Delivery: what it keeps up with, and what it takes from those who wait for answers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from benchmarks.bench import MEASURING_ERRORS, Bench, load_figures
from benchmarks.load.plan import LoadResult, Plan, Workload
from benchmarks.load.run import run_load
from benchmarks.results import Figures
from benchmarks.systems.api import ApiError, TrackingApi
from benchmarks.systems.kinds import PROXY, Proxy, Running
from benchmarks.systems.workspace import Workspace

ONE_RUN = "one run at 1,000 points/s into a workspace 80 ms away"
WITHOUT = "log-metric, 8 clients, without delivery"
DURING = "log-metric, 8 clients, while delivery runs"
BATCH_WITHOUT = "log-batch of 100, 8 clients, without delivery"
BATCH_DURING = "log-batch of 100, 8 clients, while delivery runs"

_METRIC: Workload = {"kind": "log-metric"}
_BATCH: Workload = {"kind": "log-batch", "metrics": 100}
_POINTS_PER_SECOND = 1000
_WORKSPACE_SECONDS = 0.080
_LOOK_SECONDS = 0.5
_RUNS = 16
_WARM_UP_SECONDS = 2.0
_DRAIN_SECONDS = 120.0


def measure_delivery(bench: Bench, kind: str) -> None:
    """One run into a workspace far away, then eight clients with and without delivery."""
    for repeat in range(bench.options.repeats):
        with _workspace(bench) as workspace:
            workspace.delay_answers(_WORKSPACE_SECONDS)
            _measure_one_run(bench, kind, repeat, workspace)
    for repeat in range(bench.options.repeats):
        with bench.running(bench.systems[PROXY], kind) as running:
            _measure_share(bench, WITHOUT, _METRIC, running, repeat)
            _measure_share(bench, BATCH_WITHOUT, _BATCH, running, repeat)
        with _workspace(bench) as workspace, bench.running(Proxy(workspace.settings()), kind) as running:
            _measure_share(bench, DURING, _METRIC, running, repeat, workspace)
            # Last: it logs more than can be delivered, and what is left is not waited for.
            _measure_share(bench, BATCH_DURING, _BATCH, running, repeat, workspace)


def _measure_one_run(bench: Bench, kind: str, repeat: int, workspace: Workspace) -> None:
    with bench.running(Proxy(workspace.settings()), kind) as running:
        run_ids = running.api.create_runs("bench-delivery", 1)
        workload: Workload = {"kind": "log-metric", "run_ids": run_ids}
        try:
            figures = _load(bench, running, workload, workspace, per_second=_POINTS_PER_SECOND)
        except MEASURING_ERRORS as error:
            bench.record(ONE_RUN, running, repeat, {}, failed=str(error))
        else:
            bench.record(ONE_RUN, running, repeat, figures)


def _measure_share(
    bench: Bench,
    scenario: str,
    workload: Workload,
    running: Running,
    repeat: int,
    workspace: Workspace | None = None,
) -> None:
    run_ids = running.api.create_runs("bench-delivery", _RUNS)
    try:
        figures = _load(bench, running, {**workload, "run_ids": run_ids}, workspace)
    except MEASURING_ERRORS as error:
        bench.record(scenario, running, repeat, {}, failed=str(error))
    else:
        bench.record(scenario, running, repeat, figures)


def _load(
    bench: Bench,
    running: Running,
    workload: Workload,
    workspace: Workspace | None,
    per_second: float = 0.0,
) -> Figures:
    plan = Plan(
        running.process.url,
        workload,
        connections=8,
        seconds=bench.options.delivery_seconds,
        warm_up_seconds=_WARM_UP_SECONDS,
        per_second=per_second,
        headers=running.headers,
    )
    cpu = running.cpu_seconds()
    if workspace is None:
        return _figures(run_load(plan), running.cpu_seconds() - cpu)
    workspace.forget_calls()
    their_cpu, began = workspace.process.cpu_seconds(), time.monotonic()
    with LagWatch(running.api) as watch:
        result = run_load(plan)
    cpu, seconds = running.cpu_seconds() - cpu, time.monotonic() - began
    figures = _figures(result, cpu) | {
        "most_lag_seconds": watch.most_seconds,
        "upstream_calls_per_second": workspace.calls() / seconds,
        "workspace_cpu_share": (workspace.process.cpu_seconds() - their_cpu) / seconds,
    }
    return figures if workload["kind"] == "log-batch" else figures | _drain(running.api)


def _figures(result: LoadResult, cpu_seconds: float) -> Figures:
    return load_figures(result, cpu_seconds, _WARM_UP_SECONDS / result.seconds)


def _drain(api: TrackingApi) -> Figures:
    """Wait until all is delivered: how long that took, and what was set aside."""
    began = time.monotonic()
    while True:
        status = status_of(api)
        seconds = time.monotonic() - began
        if status["pending"] == 0 or seconds > _DRAIN_SECONDS:
            return {
                "drain_seconds": seconds,
                "left_pending": status["pending"],
                "parked": status["parked"],
                "overflow": status["overflow"],
            }
        time.sleep(_LOOK_SECONDS)


class LagWatch:
    """Asks the proxy for its lag until it is left; `most_seconds` is the most seen."""

    def __init__(self, api: TrackingApi) -> None:
        self._api = api
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most_seconds = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            try:
                self.most_seconds = max(self.most_seconds, float(status_of(self._api)["lag_seconds"]))
            except (ApiError, OSError):
                continue


def status_of(api: TrackingApi) -> dict[str, Any]:
    """The proxy's own figures."""
    return api.ask("GET", "/api/2.0/mlproxy/status")


@contextmanager
def _workspace(bench: Bench) -> Iterator[Workspace]:
    workspace = Workspace(bench.folder("emulator"))
    try:
        workspace.lift_limits()
        yield workspace
    finally:
        workspace.stop()
