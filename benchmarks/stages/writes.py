"""Writes: one point, batches, a run's life; by one client, by eight and by sixty-four."""

from dataclasses import dataclass

from benchmarks.bench import MEASURING_ERRORS, Bench, MemoryWatch, load_figures, rotated
from benchmarks.load.plan import Plan, Workload
from benchmarks.load.run import run_load
from benchmarks.machine import flush_times
from benchmarks.results import Figures
from benchmarks.systems.kinds import FASTTRACKML, LIMIT, MLFLOW, PROXY, Running

LOG_METRIC_1 = "log-metric, 1 client"
LOG_METRIC_8 = "log-metric, 8 clients"
LOG_METRIC_64 = "log-metric, 64 clients"
LOG_BATCH_100 = "log-batch of 100, 8 clients"
LOG_BATCH_1000 = "log-batch of 1,000, 8 clients"
CREATE_AND_UPDATE = "create and update a run, 8 clients"

_RUNS = 16
_WARM_UP_SECONDS = 0.5
_PROBE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Cell:
    scenario: str
    workload: Workload
    connections: int

    @property
    def is_durable_at_the_limit(self) -> bool:
        """Whether the limit program stores it: it keeps points only."""
        return self.workload["kind"] in ("log-metric", "log-batch")


CELLS = (
    _Cell(LOG_METRIC_1, {"kind": "log-metric"}, 1),
    _Cell(LOG_METRIC_8, {"kind": "log-metric"}, 8),
    _Cell(LOG_METRIC_64, {"kind": "log-metric"}, 64),
    _Cell(LOG_BATCH_100, {"kind": "log-batch", "metrics": 100, "params": 3, "tags": 2}, 8),
    _Cell(LOG_BATCH_1000, {"kind": "log-batch", "metrics": 1000}, 8),
    _Cell(CREATE_AND_UPDATE, {"kind": "create-and-update-run"}, 8),
)


def measure_writes(bench: Bench, kind: str) -> None:
    """Every cell on every system, one system after the other, on databases that are fresh each repeat."""
    for repeat in range(bench.options.repeats):
        with bench.all_running((PROXY, MLFLOW, FASTTRACKML, LIMIT), kind) as systems:
            for cell in CELLS:
                for running in rotated(systems, repeat):
                    if running.system != LIMIT or cell.is_durable_at_the_limit:
                        _measure(bench, cell, running, repeat)


def _measure(bench: Bench, cell: _Cell, running: Running, repeat: int) -> None:
    try:
        figures = _figures(bench, cell, running)
    except MEASURING_ERRORS as error:
        bench.record(cell.scenario, running, repeat, {}, failed=str(error))
    else:
        bench.record(cell.scenario, running, repeat, figures)


def _figures(bench: Bench, cell: _Cell, running: Running) -> Figures:
    workload = dict(cell.workload)
    if workload["kind"] == "create-and-update-run":
        workload["experiment_id"] = running.api.experiment("bench-create")
    else:
        workload["run_ids"] = running.api.create_runs("bench-write", _RUNS)
    plan = Plan(
        running.process.url,
        workload,
        connections=cell.connections,
        seconds=bench.options.seconds,
        warm_up_seconds=_WARM_UP_SECONDS,
        headers=running.headers,
    )
    flush = flush_times(running.place.folder, seconds=_PROBE_SECONDS)
    cpu = running.cpu_seconds()
    if running.system != PROXY:
        result = run_load(plan)
        figures = load_figures(result, running.cpu_seconds() - cpu, _WARM_UP_SECONDS / result.seconds)
    else:
        with MemoryWatch(running.process) as watch:
            result = run_load(plan)
        figures = load_figures(result, running.cpu_seconds() - cpu, _WARM_UP_SECONDS / result.seconds)
        figures["peak_pss_mib"] = watch.peak_mib
    after = flush_times(running.place.folder, seconds=_PROBE_SECONDS)
    return figures | {"flush_p50_ms": (flush["p50_ms"] + after["p50_ms"]) / 2}
