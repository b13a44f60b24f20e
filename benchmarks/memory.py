"""Memory over time: a steady mixed load with delivery running, and what the process holds meanwhile."""

import time
from contextlib import ExitStack

from benchmarks.bench import Bench, MemoryWatch
from benchmarks.figures import slope_per_hour
from benchmarks.load.plan import Plan, Workload
from benchmarks.load.run import RunningLoad
from benchmarks.report import describe_run, table
from benchmarks.results import Results
from benchmarks.stages.delivery import status_of
from benchmarks.systems.kinds import Proxy, Running
from benchmarks.systems.workspace import Workspace
from benchmarks.targets import readable

SCENARIO = "memory under a steady load"

_SLICE_SECONDS = 60.0
_SAMPLE_SECONDS = 5.0
_RUNS = 8
# The first part fills caches and pools; growth is judged on what follows.
_WARM_SHARE = 0.25
# Operations per second: about a fifth of what a processor can do, so that delivery keeps up.
_LOGGED = 150.0
_BATCHES = 2.0
_RUNS_MADE = 1.0
_PAGES = 1.0
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 860, 260, 60, 40


def measure_memory(bench: Bench, kind: str, seconds: float, times: float = 1.0) -> None:
    """Load the proxy for so long, in slices, each on runs of its own, as a team makes them.

    `times` the load fills what is remembered of runs as much sooner.
    """
    with ExitStack() as stack:
        workspace = Workspace(bench.folder("emulator"))
        stack.callback(workspace.stop)
        workspace.lift_limits()
        running = stack.enter_context(bench.running(Proxy(workspace.settings()), kind))
        watch = stack.enter_context(MemoryWatch(running.process, _SAMPLE_SECONDS))
        end = time.monotonic() + seconds
        operations = 0
        while (left := end - time.monotonic()) > 0:
            operations += _slice(bench, running, min(_SLICE_SECONDS, left), times)
            bench.say(f"{operations:,} operations, {watch.samples[-1][1]:.1f} MiB, {_lag(running)}")
            workspace.forget_calls()
        bench.record(SCENARIO, running, 0, _figures(watch.samples, operations))


def _slice(bench: Bench, running: Running, seconds: float, times: float) -> int:
    """All kinds of load at once for a while; how many operations were answered."""
    run_ids = running.api.create_runs("bench-memory", _RUNS)
    experiment_id = running.api.experiment("bench-memory")
    loads: list[tuple[Workload, float]] = [
        ({"kind": "log-metric", "run_ids": run_ids}, _LOGGED),
        ({"kind": "log-batch", "run_ids": run_ids, "metrics": 100, "first": 10**6}, _BATCHES),
        ({"kind": "create-and-update-run", "experiment_id": experiment_id}, _RUNS_MADE),
        ({"kind": "search-runs", "experiment_id": experiment_id, "max_results": 100}, _PAGES),
        ({"kind": "metric-history", "run_id": run_ids[0], "key": "m1"}, _PAGES),
    ]
    running_loads = [
        RunningLoad(
            Plan(
                running.process.url,
                workload,
                connections=4,
                seconds=seconds,
                warm_up_seconds=0.0,
                per_second=rate * times,
                headers=running.headers,
            )
        )
        for workload, rate in loads
    ]
    results = [load.result() for load in running_loads]
    for result in results:
        if result.errors:
            bench.results.notes.append(f"{result.errors} errors: {result.first_error}")
    return sum(result.operations for result in results)


def _lag(running: Running) -> str:
    status = status_of(running.api)
    return f"lag {status['lag_seconds']:.1f} s, {status['pending']} pending"


def _figures(samples: list[tuple[float, float]], operations: int) -> dict[str, object]:
    warm = samples[int(len(samples) * _WARM_SHARE) :] or samples
    times, values = [time for time, _ in warm], [mib for _, mib in warm]
    return {
        "operations": operations,
        "seconds": samples[-1][0],
        "pss_mib": values[-1],
        "peak_pss_mib": max(mib for _, mib in samples),
        "pss_mib_after_warm_up": values[0],
        "mib_per_hour": slope_per_hour(times, values),
        "samples": [[round(moment, 1), round(mib, 2)] for moment, mib in samples],
    }


# --- showing --------------------------------------------------------------------------------


def render(results: Results) -> str:
    """The page."""
    rows = [
        (
            item.database,
            f"{item.figures['seconds'] / 60:.0f} min",
            f"{item.figures['operations']:,}",
            f"{readable(item.figures['pss_mib_after_warm_up'])} MiB",
            f"{readable(item.figures['pss_mib'])} MiB",
            f"{readable(item.figures['peak_pss_mib'])} MiB",
            f"{readable(item.figures['mib_per_hour'])} MiB/h",
        )
        for item in results.measurements
        if item.scenario == SCENARIO
    ]
    head = (
        "database",
        "load",
        "operations",
        "PSS after warm-up",
        "at the end",
        "most",
        "slope after warm-up",
    )
    return f"# Memory, {results.started[:10]}\n\n{describe_run(results)}\n{table(head, rows)}"


def draw(results: Results, database: str) -> str:
    """Memory over time as SVG; empty without samples."""
    samples: list[tuple[float, float]] = next(
        (
            item.figures["samples"]
            for item in results.measurements
            if item.scenario == SCENARIO and item.database == database
        ),
        [],
    )
    if len(samples) < 2:
        return ""
    most, last = max(mib for _, mib in samples) * 1.1, samples[-1][0]
    wide, high = _WIDTH - _LEFT - 20, _HEIGHT - _BOTTOM - 20
    points = " ".join(
        f"{_LEFT + wide * moment / last:.1f},{20 + high * (1 - mib / most):.1f}" for moment, mib in samples
    )
    style = "font-family: sans-serif; font-size: 11px; fill: #24292f"
    ticks = [
        f'<text x="{_LEFT - 6}" y="{24 + high * (1 - share):.1f}" text-anchor="end">{most * share:.0f}</text>'
        f'<line x1="{_LEFT}" x2="{_LEFT + wide}" y1="{20 + high * (1 - share):.1f}"'
        f' y2="{20 + high * (1 - share):.1f}" stroke="#d0d7de"/>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" style="{style}">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
            *ticks,
            f'<polyline points="{points}" fill="none" stroke="#1f6feb" stroke-width="1.5"/>',
            f'<text x="{_LEFT}" y="{_HEIGHT - 8}">MiB (PSS) over {last / 60:.0f} minutes of load</text>',
            "</svg>",
            "",
        ]
    )
