"""A growing store: filled through the proxy's own interface, then settled as delivery would leave it."""

import time
from dataclasses import dataclass

from benchmarks.bench import Bench, MemoryWatch, load_figures
from benchmarks.load.plan import Plan, Workload
from benchmarks.load.run import LoadError, run_load
from benchmarks.stages.reads import fill
from benchmarks.systems.api import ApiError
from benchmarks.systems.kinds import Place, Proxy, Running

_SECONDS = 1.5
_SETTLE = (
    "DELETE FROM journal_entries",
    "DELETE FROM journal_blocks",
    "DELETE FROM barriers",
    "UPDATE lanes SET settled_position = last_position, undelivered_bytes = 0",
    "UPDATE runs SET upstream_id = run_id, create_way = 'history' WHERE upstream_id IS NULL",
    "UPDATE experiments SET upstream_id = 'upstream-' || experiment_id WHERE upstream_id IS NULL",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is timed at each size."""

    name: str
    workload: Workload


class GrowingStore:
    """One proxy on one database that is filled size by size. Leave it with `close`."""

    def __init__(self, bench: Bench, kind: str, dimension: str) -> None:
        self._bench = bench
        self._dimension = dimension
        self._proxy = Proxy()
        self.running: Running = self._proxy.start(bench.place(f"growth-{dimension}", kind))

    def fill(self, workload: Workload, operations: int, *, connections: int = 4) -> None:
        """Carry out so many operations."""
        if operations > 0:
            began = time.monotonic()
            fill(self.running, workload, operations, connections=connections)
            rate = operations / (time.monotonic() - began)
            self._bench.say(f"{self._dimension}: {operations:,} operations stored, {rate:,.0f}/s")

    def restart(self, *, delivered: bool) -> None:
        """Stop, make all that is stored count as delivered if asked, and start again."""
        self.running.process.stop()
        if delivered:
            settle(self.running.place)
        self.running = self._proxy.start_again(self.running)
        self.running.process.settle()

    def measure(self, stored: int, steps: list[Step]) -> None:
        """Time every step at this size, each by one client."""
        self._note("start", stored, {"p50_ms": 1000 * self.running.start_seconds})
        with MemoryWatch(self.running.process) as watch:
            for step in steps:
                self._time(stored, step)
        self._note("memory", stored, {"pss_mib": watch.peak_mib})
        self._note("database", stored, {"mib_on_disk": stored_mib(self.running.place)})

    def close(self) -> None:
        """End the proxy and drop its database."""
        self.running.stop()

    def _time(self, stored: int, step: Step) -> None:
        plan = Plan(
            self.running.process.url,
            step.workload,
            connections=1,
            seconds=_SECONDS,
            warm_up_seconds=0.2,
            least_operations=3,
            headers=self.running.headers,
        )
        cpu = self.running.cpu_seconds()
        try:
            result = run_load(plan)
        except (LoadError, ApiError, OSError) as error:
            self._bench.record(self._scenario(step.name), self.running, 0, {"stored": stored}, str(error))
            return
        share = 0.2 / result.seconds
        self._note(step.name, stored, load_figures(result, self.running.cpu_seconds() - cpu, share))

    def _note(self, name: str, stored: int, figures: dict[str, object]) -> None:
        self._bench.record(self._scenario(name), self.running, 0, {"stored": stored, **figures})

    def _scenario(self, name: str) -> str:
        return f"{self._dimension}: {name}"


def settle(place: Place) -> None:
    """Leave a stopped proxy's database as delivery leaves it: everything sent, nothing pending."""
    from server.database.engine import Database

    database = Database(_url(place))
    try:
        with database.writing(0) as transaction:
            for statement in _SETTLE:
                transaction.run(statement)
    finally:
        database.close()
    place.tidy()


def stored_mib(place: Place) -> float:
    """What the database takes on disk."""
    if place.postgres is not None and place.database is not None:
        return place.postgres.size_mib(place.database)
    return sum(file.stat().st_size for file in place.folder.glob("mlproxy.db*")) / 2**20


def _url(place: Place) -> str:
    return place.postgres_url() if place.postgres is not None else f"sqlite:///{place.folder}/mlproxy.db"
