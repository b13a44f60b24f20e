"""Carries out a plan and counts."""

import asyncio
import time
from urllib.parse import urlsplit

from benchmarks.figures import percentile
from benchmarks.load.connection import Connection, Steps
from benchmarks.load.plan import LoadResult, Plan
from benchmarks.load.workloads import Requests, build


class _Clocked:
    """The load in progress: gives out operations, takes in what became of them."""

    def __init__(self, plan: Plan) -> None:
        parts = urlsplit(plan.base_url)
        self._plan = plan
        self._next = build(plan.workload, Requests(parts.netloc, plan.headers))
        self._open = plan.connections
        self._all_ended = asyncio.Event()
        self._started = time.perf_counter()
        warm_up = 0.0 if plan.operations else plan.warm_up_seconds
        self._counted_from = self._started + warm_up
        self._until = self._counted_from + plan.seconds
        self._begun = 0
        self._slots = 0
        self._last = self._counted_from
        self.durations: list[float] = []
        self.requests = 0
        self.received = 0
        self.errors = 0
        self.first_error: str | None = None

    @property
    def seconds(self) -> float:
        """From the end of the warm-up to the last answer."""
        return max(self._last - self._counted_from, 1e-9)

    @property
    def _has_enough(self) -> bool:
        """Whether the least is done; nobody waits for more from a server that fails."""
        return len(self.durations) >= self._plan.least_operations or self.errors > 0

    async def ends(self) -> None:
        """Return when every connection has ended."""
        await self._all_ended.wait()

    # --- what a connection asks and tells ---

    def next_operation(self) -> Steps | None:
        if self._plan.operations:
            if self._begun >= self._plan.operations:
                return None
        elif time.perf_counter() >= self._until and self._has_enough:
            return None
        self._begun += 1
        return self._next()

    def delay(self) -> float:
        if not self._plan.per_second:
            return 0.0
        slot = self._started + self._slots / self._plan.per_second
        self._slots += 1
        return slot - time.perf_counter()

    def succeeded(self, begun: float, requests: int, received: int) -> None:
        if begun < self._counted_from:
            return
        self._last = time.perf_counter()
        self.durations.append(self._last - begun)
        self.requests += requests
        self.received += received

    def failed(self, reason: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or reason

    def ended(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._all_ended.set()


async def carry_out(plan: Plan) -> LoadResult:
    """The load's result.

    Raises:
        OSError: the server cannot be reached at the start.
        TimeoutError: it did not answer in time.
    """
    parts = urlsplit(plan.base_url)
    load = _Clocked(plan)
    cpu = time.process_time()
    connections = [
        Connection(load, parts.hostname or "127.0.0.1", parts.port or 80) for _ in range(plan.connections)
    ]
    for connection in connections:
        await connection.open()
    async with asyncio.timeout(plan.seconds + plan.warm_up_seconds + plan.timeout_seconds):
        await load.ends()
    durations = sorted(load.durations)
    return LoadResult(
        operations=len(durations),
        requests=load.requests,
        errors=load.errors,
        first_error=load.first_error,
        seconds=load.seconds,
        per_second=len(durations) / load.seconds,
        p50_ms=1000 * percentile(durations, 0.50),
        p95_ms=1000 * percentile(durations, 0.95),
        p99_ms=1000 * percentile(durations, 0.99),
        mean_ms=1000 * sum(durations) / max(len(durations), 1),
        bytes_received=load.received,
        client_cpu_seconds=time.process_time() - cpu,
    )
