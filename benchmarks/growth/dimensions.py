"""The four things that grow: points of a run, runs of an experiment, experiments, the backlog."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.bench import Bench
from benchmarks.growth.store import GrowingStore, Step
from benchmarks.load.plan import Workload
from benchmarks.load.workloads import API

_METRICS_OF_THE_RUN = 1000
_BATCH = 1000
_RUN_CONTENT = {"metrics": 10, "params": 6, "tags": 4}
_BACKLOG_RUNS = 100
_DEEP = 0.9
_WALK_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large each dimension gets; every decade from the first is measured."""

    points: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    runs: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    experiments: tuple[int, ...] = (100, 1_000, 10_000)
    backlog: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)

    def up_to(self, share: float) -> "Sizes":
        """The same, without the sizes above a share of each dimension's largest."""
        return Sizes(
            *(_up_to(each, share) for each in (self.points, self.runs, self.experiments, self.backlog))
        )


def _up_to(sizes: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(size for size in sizes if size <= share * sizes[-1]) or sizes[:1]


def grow_points(bench: Bench, kind: str, sizes: Sizes) -> None:
    """Points in one run of up to 1,000 metrics."""
    store = GrowingStore(bench, kind, "points of a run")
    try:
        run_id = store.running.api.create_runs("growth", 1)[0]
        stored = 0
        for size in sizes.points:
            batch: Workload = {
                "kind": "log-batch",
                "run_ids": [run_id],
                "metrics": _BATCH,
                "keys": _METRICS_OF_THE_RUN,
                "first": stored // _BATCH,
            }
            store.fill(batch, (size - stored) // _BATCH)
            stored = size
            store.restart(delivered=True)
            # Far above what is stored, so that what is timed does not depend on what was timed before.
            later = {"run_ids": [run_id], "first": 10 * sizes.points[-1] + stored}
            store.measure(
                size,
                [
                    Step("log-metric", {"kind": "log-metric", **later}),
                    Step("log-batch of 1,000", {**batch, **later}),
                    Step("runs/get", {"kind": "get-run", "run_ids": [run_id]}),
                    Step("history of one metric", {"kind": "metric-history", "run_id": run_id, "key": "m7"}),
                    Step("chart of one metric", {"kind": "chart", "run_ids": [run_id], "key": "m7"}),
                ],
            )
    finally:
        store.close()


def grow_runs(bench: Bench, kind: str, sizes: Sizes) -> None:
    """Runs in one experiment."""
    store = GrowingStore(bench, kind, "runs of an experiment")
    try:
        experiment_id = store.running.api.experiment("growth")
        stored = 0
        for size in sizes.runs:
            seed: Workload = {"kind": "seed-run", "experiment_id": experiment_id, **_RUN_CONTENT}
            store.fill({**seed, "first": stored}, size - stored)
            stored = size
            store.restart(delivered=True)
            store.measure(size, _steps_over_runs(store, experiment_id, stored))
    finally:
        store.close()


def _steps_over_runs(store: GrowingStore, experiment_id: str, stored: int) -> list[Step]:
    def page(max_results: int, **more: Any) -> Workload:
        asked = {"kind": "search-runs", "experiment_id": experiment_id, "max_results": max_results}
        return {**asked, **more}

    steps = [
        Step("first 100", page(100)),
        Step("first 100, unselective filter", page(100, filter="metrics.loss < 0.9")),
        Step("first 100, ordered by a metric", page(100, order_by=["metrics.loss DESC"])),
        Step(
            "first 100, unselective filter, ordered by a metric",
            page(100, filter="metrics.loss < 0.9", order_by=["metrics.loss DESC"]),
        ),
        Step("filter that one run meets, by param", page(100, filter="params.serial = '77'")),
        Step("filter that one run meets, by name", page(100, filter="attributes.run_name = 'run-77'")),
    ]
    if stored > _WALK_PAGE:
        steps.append(Step("first 1,000", page(_WALK_PAGE)))
        token = _token_at(store, page(_WALK_PAGE), int(_DEEP * stored / _WALK_PAGE))
        steps.append(Step("1,000 after nine tenths of all", page(_WALK_PAGE, page_token=token)))
    # A run of its own: what is asked above is not changed by what is written here.
    run_id = store.running.api.create_runs("growth-writes", 1)[0]
    return [
        *steps,
        Step("log-metric", {"kind": "log-metric", "run_ids": [run_id]}),
        Step("create and update a run", {"kind": "create-and-update-run", "experiment_id": experiment_id}),
    ]


def _token_at(store: GrowingStore, workload: Workload, pages: int) -> str:
    """The token of the page behind so many."""
    question = {"experiment_ids": [workload["experiment_id"]], "max_results": workload["max_results"]}
    token = ""
    for _ in range(max(pages, 1)):
        asked = question | ({"page_token": token} if token else {})
        token = str(store.running.api.ask("POST", f"{API}/runs/search", asked)["next_page_token"])
    return token


def grow_experiments(bench: Bench, kind: str, sizes: Sizes) -> None:
    """Experiments."""
    store = GrowingStore(bench, kind, "experiments")
    try:
        stored = 0
        for size in sizes.experiments:
            create: Workload = {"kind": "create-experiment", "prefix": "growth"}
            store.fill({**create, "first": stored}, size - stored, connections=8)
            stored = size
            store.restart(delivered=True)
            search = f"{API}/experiments/search?max_results"
            found = store.running.api.experiment("growth-7")
            store.measure(
                size,
                [
                    Step("first 100", {"kind": "get", "path": f"{search}=100"}),
                    Step("first 1,000", {"kind": "get", "path": f"{search}=1000"}),
                    Step(
                        "by name",
                        {"kind": "get", "path": f"{API}/experiments/get-by-name?experiment_name=growth-7"},
                    ),
                    Step("first 100 runs of one", _first_runs(found)),
                    Step("create", {"kind": "create-experiment", "prefix": f"timed-{size}"}),
                ],
            )
    finally:
        store.close()


def _first_runs(experiment_id: str) -> Workload:
    return {"kind": "search-runs", "experiment_id": experiment_id, "max_results": 100}


def grow_backlog(bench: Bench, kind: str, sizes: Sizes) -> None:
    """Entries that wait for a workspace."""
    store = GrowingStore(bench, kind, "backlog")
    try:
        run_ids = store.running.api.create_runs("growth", _BACKLOG_RUNS)
        stored = 0
        for size in sizes.backlog:
            batch: Workload = {"kind": "log-batch", "run_ids": run_ids, "metrics": _BATCH}
            store.fill({**batch, "first": stored // _BATCH}, (size - stored) // _BATCH)
            stored = size
            store.restart(delivered=False)
            later = {"run_ids": run_ids, "first": 10 * sizes.backlog[-1] + stored}
            store.measure(
                size,
                [
                    Step("log-metric", {"kind": "log-metric", **later}),
                    Step("log-batch of 100", {"kind": "log-batch", "metrics": 100, **later}),
                    Step("status", {"kind": "get", "path": "/api/2.0/mlproxy/status"}),
                    Step("figures for Prometheus", {"kind": "get", "path": "/metrics"}),
                ],
            )
    finally:
        store.close()


Dimension = Callable[[Bench, str, Sizes], None]

DIMENSIONS: dict[str, Dimension] = {
    "points": grow_points,
    "runs": grow_runs,
    "experiments": grow_experiments,
    "backlog": grow_backlog,
}
