"""Where the time goes in the three hottest paths, as py-spy sees it from outside.

Time is the clock's, in all threads, without those that wait for something to do; so a commit that waits
for the disk counts. `self` is time in a function itself, `total` includes what it calls; both are shares
of all samples of work. What the event loop does in C cannot be told from its waiting, and is left out.
"""

import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.environments import NoEnvironmentError, set_up
from benchmarks.load.plan import Plan, Workload
from benchmarks.load.run import RunningLoad
from benchmarks.report import table
from benchmarks.stages import reads
from benchmarks.stages.reads import fill
from benchmarks.systems.kinds import PROXY, Running

_SAMPLES_PER_SECOND = 200
_LEAD_SECONDS = 1.0
_SHOWN = 30
_RUNS = 16
_SEARCHED_RUNS = 2_000
# Innermost functions of a thread with nothing to do: an executor's, the writer's, the event loop's own.
_WAITING = frozenset(
    {
        "_worker (concurrent/futures/thread.py)",
        "Condition.wait (threading.py)",
        "wait (threading.py)",
        "Runner.run (asyncio/runners.py)",
        "run (asyncio/runners.py)",
    }
)
_BOTTOM = (
    "(threading.py)",
    "(concurrent/futures/thread.py)",
    "(asyncio/runners.py)",
    "(<frozen runpy>)",
    "(typer/main.py)",
    "(typer/core.py)",
    "(typer/_click/core.py)",
    "(server/__main__.py)",
    "(server/cli/console.py)",
    "(server/cli/serving.py)",
)


@dataclass(slots=True)
class Profile:
    """Samples of work by function, and of work and waiting by thread."""

    own: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)
    working: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)

    @property
    def samples(self) -> int:
        """How many caught a thread at work."""
        return self.working.total()


def profile_hot_paths(bench: Bench, kind: str, seconds: float, folder: Path) -> None:
    """Record each path under load; a text table of each goes into `folder`.

    Raises:
        NoEnvironmentError: py-spy cannot be installed here.
    """
    spy = set_up("tools") / "py-spy"
    with bench.running(bench.systems[PROXY], kind) as running:
        for name, (workload, connections) in _paths(running).items():
            bench.say(f"recording {name}")
            profile, rate = _record(bench, spy, running, workload, connections, seconds)
            folder.mkdir(parents=True, exist_ok=True)
            page = render(f"{name} on {kind}", profile, rate)
            (folder / f"{bench.results.started[:10]}-{name}-{kind}.md").write_text(page)
            print(page, flush=True)


def _paths(running: Running) -> dict[str, tuple[Workload, int]]:
    run_ids = running.api.create_runs("profile", _RUNS)
    experiment_id = running.api.experiment("profile-search")
    content = {"metrics": reads.METRICS, "params": reads.PARAMS, "tags": reads.TAGS}
    seed: Workload = {"kind": "seed-run", "experiment_id": experiment_id, **content}
    fill(running, seed, _SEARCHED_RUNS, connections=8)
    search: Workload = {"kind": "search-runs", "experiment_id": experiment_id, "max_results": 1000}
    return {
        "log-metric": ({"kind": "log-metric", "run_ids": run_ids}, 8),
        "log-batch": ({"kind": "log-batch", "run_ids": run_ids, "metrics": 1000, "first": 10**6}, 8),
        "search-runs": ({**search, "filter": reads.FILTER, "order_by": list(reads.ORDER)}, 1),
    }


def _record(
    bench: Bench, spy: Path, running: Running, workload: Workload, connections: int, seconds: float
) -> tuple[Profile, float]:
    plan = Plan(
        running.process.url,
        workload,
        connections=connections,
        seconds=seconds + _LEAD_SECONDS,
        warm_up_seconds=_LEAD_SECONDS,
        headers=running.headers,
    )
    file = bench.folder("profile") / "samples.txt"
    load = RunningLoad(plan)
    command = [str(spy), "record", "--pid", str(running.process.pid), "--duration", str(int(seconds))]
    command += ["--rate", str(_SAMPLES_PER_SECOND), "--threads", "--format", "raw", "--output", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = load.result()
    if done.returncode != 0:
        raise NoEnvironmentError(f"py-spy could not look: {done.stderr.strip()[-300:]}")
    return read_samples(file.read_text()), result.per_second


def read_samples(text: str) -> Profile:
    """py-spy's raw form: one line a stack, frames from the outermost, then how often it was seen."""
    profile = Profile()
    for line in text.splitlines():
        stack, _, times = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if not frames:
            continue
        count = int(times)
        functions = [_without_line(frame) for frame in frames]
        if functions[-1] in _WAITING:
            profile.waiting[_thread_name(thread)] += count
            continue
        profile.working[_thread_name(thread)] += count
        profile.own[functions[-1]] += count
        for function in set(functions):
            profile.total[function] += count
    return profile


def render(title: str, profile: Profile, rate: float) -> str:
    """The profile as text tables."""
    whole = max(profile.samples, 1)

    def rows(counts: Counter[str]) -> list[tuple[str, str]]:
        return [(f"{100 * count / whole:.1f} %", name) for name, count in counts.most_common(_SHOWN)]

    threads = [
        (name, f"{100 * working / (working + profile.waiting[name]):.0f} %", f"{100 * working / whole:.1f} %")
        for name, working in profile.working.most_common(_SHOWN)
    ]
    return "\n".join(
        [
            f"# Where the time goes: {title}\n",
            f"{profile.samples:,} samples of work at {_SAMPLES_PER_SECOND}/s, {rate:,.0f} operations/s"
            " meanwhile.\n",
            table(("thread", "of its time at work", "share of all work"), threads),
            table(("self", "function"), rows(profile.own)),
            table(("total", "function"), rows(_worth_showing(profile.total))),
        ]
    )


def _worth_showing(total: Counter[str]) -> Counter[str]:
    """Without the frames at the bottom of every stack of a thread, which say nothing."""
    return Counter({name: count for name, count in total.items() if not name.endswith(_BOTTOM)})


def _thread_name(frame: str) -> str:
    """`thread (0x7f…): writer` as `writer`."""
    return frame.partition(": ")[2].strip() or frame


def _without_line(frame: str) -> str:
    """`name (path/file.py:12)` as `name (path/file.py)`."""
    head, colon, tail = frame.rpartition(":")
    return f"{head})" if colon and tail.rstrip(")").isdigit() else frame
