"""Reads: pages of a search over many runs, a long history, a chart."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import MEASURING_ERRORS, Bench, MemoryWatch, load_figures, rotated
from benchmarks.load.plan import Plan, Workload
from benchmarks.load.run import LoadError, run_load
from benchmarks.load.workloads import API
from benchmarks.stages import mlflow_store
from benchmarks.systems.kinds import FASTTRACKML, MLFLOW, PROXY, Running

SEARCH_100 = "search runs, first 100"
SEARCH_1000 = "search runs, first 1,000"
SEARCH_100_SORTED = "search runs, first 100, filtered and ordered"
SEARCH_1000_SORTED = "search runs, first 1,000, filtered and ordered"
HISTORY = "history of 100,000 points"
CHART_DENSE = "chart of 1,000,000 points, steps dense"
CHART_SPARSE = "chart of 1,000,000 points, steps sparse"

METRICS, PARAMS, TAGS = 50, 20, 10
FILTER = "metrics.loss < 0.5 and params.lr = '0.1'"
ORDER = ("metrics.loss DESC",)
_KEY = "loss"
_BATCH = 1000
_SPARSE_STRIDE = 37
_LEAST_OPERATIONS = 3
_SECONDS_SHARE = 0.5
_SEED_PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class _Seeded:
    """A system that holds what is read: ids of what the cells name."""

    running: Running
    experiment_id: str
    history_run: str
    dense_run: str | None = None
    sparse_run: str | None = None


def measure_reads(bench: Bench, kind: str) -> None:
    """Every cell on every system in turn, on the same content."""
    with bench.all_running((PROXY, MLFLOW, FASTTRACKML), kind) as systems:
        seeded = []
        for running in systems:
            bench.say(f"filling {running.system} on {kind}")
            try:
                seeded.append(_seed(bench, running))
                running.place.tidy()
            except MEASURING_ERRORS as error:
                bench.record("filling for reads", running, 0, {}, failed=str(error))
        _compare_answers(bench, seeded)
        for repeat in range(bench.options.repeats):
            for scenario, workload_of in _CELLS.items():
                for running in rotated([each.running for each in seeded], repeat):
                    holder = next(each for each in seeded if each.running is running)
                    workload = workload_of(holder)
                    if workload is not None:
                        _measure(bench, scenario, workload, running, repeat)


def _compare_answers(bench: Bench, seeded: list[_Seeded]) -> None:
    """Note where a peer finds other runs than the proxy: its time would be for another question."""
    question = {"max_results": 1000, "filter": FILTER, "order_by": list(ORDER)}
    found: dict[str, list[str]] = {}
    for each in seeded:
        answer = each.running.api.ask(
            "POST", f"{API}/runs/search", {"experiment_ids": [each.experiment_id], **question}
        )
        found[each.running.system] = [run["info"]["run_name"] for run in answer.get("runs", [])]
    for system, names in found.items():
        if names != found.get(PROXY, names):
            bench.results.notes.append(f"{system} answers the filtered search with other runs than the proxy")
            bench.say(bench.results.notes[-1])


# --- cells ----------------------------------------------------------------------------------


def _search(max_results: int, *, is_sorted: bool) -> Callable[[_Seeded], Workload | None]:
    more = {"filter": FILTER, "order_by": list(ORDER)} if is_sorted else {}
    return lambda seeded: {
        "kind": "search-runs",
        "experiment_id": seeded.experiment_id,
        "max_results": max_results,
        **more,
    }


def _history(seeded: _Seeded) -> Workload | None:
    return {"kind": "metric-history", "run_id": seeded.history_run, "key": _KEY}


def _chart(run_of: Callable[[_Seeded], str | None]) -> Callable[[_Seeded], Workload | None]:
    def workload(seeded: _Seeded) -> Workload | None:
        run_id = run_of(seeded)
        return None if run_id is None else {"kind": "chart", "run_ids": [run_id], "key": _KEY}

    return workload


_CELLS: dict[str, Callable[[_Seeded], Workload | None]] = {
    SEARCH_100: _search(100, is_sorted=False),
    SEARCH_1000: _search(1000, is_sorted=False),
    SEARCH_100_SORTED: _search(100, is_sorted=True),
    SEARCH_1000_SORTED: _search(1000, is_sorted=True),
    HISTORY: _history,
    CHART_DENSE: _chart(lambda seeded: seeded.dense_run),
    CHART_SPARSE: _chart(lambda seeded: seeded.sparse_run),
}


def _measure(bench: Bench, scenario: str, workload: Workload, running: Running, repeat: int) -> None:
    plan = Plan(
        running.process.url,
        workload,
        connections=1,
        seconds=bench.options.seconds * _SECONDS_SHARE,
        warm_up_seconds=0.1,
        least_operations=_LEAST_OPERATIONS,
        headers=running.headers,
    )
    cpu = running.cpu_seconds()
    try:
        with MemoryWatch(running.process) as watch:
            result = run_load(plan)
    except MEASURING_ERRORS as error:
        bench.record(scenario, running, repeat, {}, failed=str(error))
        return
    # The one operation of the warm-up cost as well.
    figures = load_figures(result, running.cpu_seconds() - cpu, 1 / max(result.operations, 1))
    bench.record(scenario, running, repeat, figures | {"peak_pss_mib": watch.peak_mib})


# --- content --------------------------------------------------------------------------------


def _seed(bench: Bench, running: Running) -> _Seeded:
    options = bench.options
    experiment_id = running.api.experiment("bench-read")
    if running.system == MLFLOW:
        place = running.place
        mlflow_store.add_runs(
            place, experiment_id, options.searched_runs, metrics=METRICS, params=PARAMS, tags=TAGS
        )
        history_id = running.api.experiment("bench-history")
        return _Seeded(
            running,
            experiment_id,
            mlflow_store.add_history(place, history_id, _KEY, options.history_points),
        )
    content = {"metrics": METRICS, "params": PARAMS, "tags": TAGS}
    fill(
        running,
        {"kind": "seed-run", "experiment_id": experiment_id, **content},
        options.searched_runs,
        connections=8,
    )
    history_run = _long_run(running, options.history_points)
    if running.system != PROXY:
        return _Seeded(running, experiment_id, history_run)
    return _Seeded(
        running,
        experiment_id,
        history_run,
        dense_run=_long_run(running, options.chart_points),
        sparse_run=_long_run(running, options.chart_points, stride=_SPARSE_STRIDE),
    )


def _long_run(running: Running, points: int, stride: int = 1) -> str:
    run_id = running.api.create_runs("bench-history", 1)[0]
    workload = {"kind": "seed-history", "run_id": run_id, "key": _KEY, "batch": _BATCH, "stride": stride}
    fill(running, workload, points // _BATCH, connections=1)
    return run_id


def fill(running: Running, workload: Workload, operations: int, *, connections: int) -> None:
    """Carry out exactly so many operations.

    Raises:
        LoadError: one of them failed.
    """
    result = run_load(
        Plan(
            running.process.url,
            workload,
            connections=connections,
            operations=operations,
            headers=running.headers,
            timeout_seconds=_SEED_PATIENCE_SECONDS,
        )
    )
    if result.errors:
        raise LoadError(f"{result.errors} of {operations} failed: {result.first_error}")
