"""What all stages of a run share: its options, its systems, where they run, where results go."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self

from benchmarks.environments import NoEnvironmentError
from benchmarks.load.plan import LoadResult
from benchmarks.load.run import LoadError
from benchmarks.machine import describe
from benchmarks.results import Figures, Measurement, Results, now
from benchmarks.systems.api import ApiError
from benchmarks.systems.kinds import PEERS, POSTGRES, Place, Proxy, Running, System
from benchmarks.systems.postgres import Postgres
from benchmarks.systems.process import ServerProcess, StartError

_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured. The defaults are those of the target table."""

    repeats: int = 3
    seconds: float = 5.0
    databases: tuple[str, ...] = ("sqlite", "postgres")
    searched_runs: int = 10_000
    history_points: int = 100_000
    chart_points: int = 1_000_000
    client_calls: int = 2_000
    artifact_mib: int = 512
    small_artifacts: int = 500
    delivery_seconds: float = 20.0


class Bench:
    """One run. Use it as a context: leaving it ends Postgres and removes the scratch folder.

    `shown` are the options that the results carry; without it all of them.
    """

    def __init__(
        self, kind: str, options: Options, output: Path, *, shown: Mapping[str, Any] | None = None
    ) -> None:
        self.options = options
        self._output = output
        self._started = time.monotonic()
        self._scratch = Path(tempfile.mkdtemp(prefix="mlproxy-bench-"))
        self._numbers = count(1)
        self._postgres: Postgres | None = None
        self.results = Results(kind, dict(shown or asdict(options)), describe(self._scratch))
        self.systems: dict[str, System] = {}
        self._add(Proxy())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._postgres is not None:
            self._postgres.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def set_up_peers(self, names: Sequence[str] = tuple(PEERS)) -> None:
        """Set up the peers' environments; what cannot be is skipped, with its reason in the results."""
        for name in names:
            try:
                self._add(PEERS[name]())
            except NoEnvironmentError as error:
                self.results.skipped[name] = str(error)
                self.say(f"{name} is skipped: {error}")

    def _add(self, system: System) -> None:
        self.systems[system.name] = system
        self.results.versions[system.name] = system.version()

    # --- where systems run ---

    def folder(self, name: str) -> Path:
        """A new folder on the disk that is measured."""
        folder = self._scratch / f"{next(self._numbers):03d}-{name}"
        folder.mkdir()
        return folder

    def place(self, name: str, kind: str) -> Place:
        """A folder and a fresh database."""
        if kind != POSTGRES:
            return Place(kind, self.folder(name))
        if self._postgres is None:
            self._postgres = Postgres()
            self.results.versions["postgres"] = f"PostgreSQL {self._postgres.version()}"
        return Place(kind, self.folder(name), self._postgres, self._postgres.create_database())

    @contextmanager
    def running(self, system: System, kind: str) -> Iterator[Running]:
        """A system on a fresh database; it and its files are gone afterwards."""
        place = self.place(system.name, kind)
        running = system.start(place)
        try:
            running.process.settle()
            yield running
        finally:
            running.stop()
            shutil.rmtree(place.folder, ignore_errors=True)

    @contextmanager
    def all_running(self, names: Sequence[str], kind: str) -> Iterator[list[Running]]:
        """Those of the systems that could be set up and started, each on a fresh database."""
        with ExitStack() as stack:
            up = []
            for name in names:
                if name not in self.systems:
                    continue
                self.say(f"starting {name} on {kind}")
                try:
                    up.append(stack.enter_context(self.running(self.systems[name], kind)))
                except StartError as error:
                    self.results.skipped[f"{name} on {kind}"] = str(error)
                    self.say(f"{name} is skipped: {error}")
            yield up

    # --- measuring ---

    def record(
        self, scenario: str, running: Running, repeat: int, figures: Figures, failed: str | None = None
    ) -> None:
        """Keep a measurement, in the file at once, and show it."""
        measurement = Measurement(
            scenario, running.system, running.place.kind, repeat, _rounded(figures), failed
        )
        self.results.measurements.append(measurement)
        self.save()
        shown = failed or ", ".join(
            f"{name} {value}"
            for name, value in measurement.figures.items()
            if name in _SHOWN or (name in ("errors", "first_error") and value)
        )
        self.say(f"{repeat + 1}  {running.system:12} {running.place.kind:9} {scenario:44} {shown}")

    def save(self) -> None:
        """Write what there is so far."""
        self.results.write(self._output)

    def finish(self) -> None:
        """Everything was measured."""
        self.results.ended = now()
        self.save()

    def say(self, text: str) -> None:
        """Show progress, with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", flush=True)


_SHOWN = frozenset(
    {
        "per_second",
        "p50_ms",
        "p99_ms",
        "cpu_ms_per_operation",
        "flush_p50_ms",
        "most_lag_seconds",
        "upstream_calls_per_second",
        "seconds",
        "pss_mib",
        "peak_pss_mib",
        "mib_per_second",
        "start_seconds",
        "ms_per_call",
        "mib_on_disk",
    }
)
MEASURING_ERRORS = (LoadError, ApiError, OSError)
"""What may happen while a peer is measured; it is recorded as its failure, and the run goes on."""


def rotated(systems: Sequence[Running], repeat: int) -> list[Running]:
    """The systems in an order that differs by repeat, so that none is always first."""
    shift = repeat % len(systems) if systems else 0
    return [*systems[shift:], *systems[:shift]]


def load_figures(result: LoadResult, cpu_seconds: float, warm_up_share: float = 0.0) -> Figures:
    """A load's result as figures, with the server's processor time per operation.

    `warm_up_share` is the warm-up's length over the counted time: its operations cost too.
    """
    operations = max(result.operations * (1 + warm_up_share), 1)
    return {**asdict(result), "cpu_ms_per_operation": 1000 * cpu_seconds / operations}


class MemoryWatch:
    """Looks at a process's memory until it is left; `peak_mib` is the most seen."""

    def __init__(self, process: ServerProcess, every_seconds: float = _SAMPLE_SECONDS) -> None:
        self._process = process
        self._every = every_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.samples: list[tuple[float, float]] = []

    @property
    def peak_mib(self) -> float:
        """The most seen."""
        return max((mib for _, mib in self.samples), default=0.0)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.samples.append((time.monotonic() - self._began, self._process.memory().pss_mib))
            if self._ended.wait(self._every):
                return


def _rounded(figures: Figures) -> Figures:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
