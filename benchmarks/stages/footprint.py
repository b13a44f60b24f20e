"""What it takes to have the server at all: seconds to start, memory while nobody asks."""

import time
from contextlib import suppress

from benchmarks.bench import Bench
from benchmarks.results import Figures
from benchmarks.systems.kinds import FASTTRACKML, MLFLOW, PROXY, Proxy, Running
from benchmarks.systems.process import StartError
from benchmarks.systems.workspace import Workspace

START_FRESH = "start on an empty database"
START_AGAIN = "start on a database in use"
IDLE = "idle"

_IDLE_SECONDS = 5.0


def measure_footprint(bench: Bench, kind: str) -> None:
    """The proxy with a workspace configured, and its peers."""
    workspace = Workspace(bench.folder("emulator"))
    try:
        for repeat in range(bench.options.repeats):
            _measure_proxy(bench, kind, repeat, Proxy(workspace.settings()))
    finally:
        workspace.stop()
    for repeat in range(bench.options.repeats):
        for name in (MLFLOW, FASTTRACKML):
            with suppress(StartError):
                _measure_peer(bench, kind, repeat, name)


def _measure_proxy(bench: Bench, kind: str, repeat: int, proxy: Proxy) -> None:
    running = proxy.start(bench.place(PROXY, kind))
    try:
        bench.record(START_FRESH, running, repeat, _start(running))
        running.api.create_runs("bench-start", 1)
        running.process.settle()
        running.process.stop()
        running = proxy.start_again(running)
        bench.record(START_AGAIN, running, repeat, _start(running))
        running.process.settle()
        cpu = running.process.cpu_seconds()
        time.sleep(_IDLE_SECONDS)
        memory = running.process.memory()
        share = (running.process.cpu_seconds() - cpu) / _IDLE_SECONDS
        figures = {"pss_mib": memory.pss_mib, "rss_mib": memory.rss_mib, "processors_used": share}
        bench.record(IDLE, running, repeat, figures)
    finally:
        running.stop()


def _measure_peer(bench: Bench, kind: str, repeat: int, name: str) -> None:
    system = bench.systems.get(name)
    if system is None:
        return
    with bench.running(system, kind) as running:
        bench.record(START_FRESH, running, repeat, _start(running))
        memory = running.process.memory()
        bench.record(IDLE, running, repeat, {"pss_mib": memory.pss_mib, "rss_mib": memory.rss_mib})


def _start(running: Running) -> Figures:
    """How long it took, and the processor time so far, which other work on the machine does not lengthen."""
    return {"start_seconds": running.start_seconds, "cpu_seconds": running.process.cpu_seconds()}
