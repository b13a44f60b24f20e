"""Finding lanes with work and giving each a worker.

New entries are noticed in memory, at their commit; the database is asked as well, now and then,
for what other replicas or an earlier life of this process left behind.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.journal.barriers import list_waiting_lanes
from server.journal.lanes import LaneKind
from server.journal.leases import Lease, claim, hurry, list_claimable, read_lane, release
from server.replay.deliveries.delivery import Delivery
from server.replay.gate import Gate
from server.replay.worker import LaneWorker, ReplaySettings
from server.store import facts

log = structlog.get_logger(__name__)

_MOST_WORKERS = 128
_LEAST_REST = 0.05
_POLL_SECONDS = 2.0
_STOP_SECONDS = 15.0


class Supervisor:
    """Runs the delivery of all lanes of this process."""

    def __init__(
        self,
        *,
        database: Database,
        writer: Writer,
        clock: Clock,
        gate: Gate,
        deliveries: Mapping[LaneKind, Delivery],
        settings: ReplaySettings,
        owner: str,
        observe: Callable[[str, float], None] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._gate = gate
        self._settings = settings
        self._owner = owner
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._young: dict[int, float] = {}
        self._flushing = 0
        self._loop: asyncio.Task[None] | None = None
        self._worker = LaneWorker(
            database=database,
            writer=writer,
            clock=clock,
            gate=gate,
            deliveries=deliveries,
            settings=settings,
            sends=asyncio.Semaphore(settings.concurrent_sends),
            jitter=jitter,
            is_flushing=lambda: self._flushing > 0,
            stop=self._stop,
            observe=observe or (lambda verdict, seconds: None),
        )

    def start(self) -> None:
        """Begin delivering."""
        self._loop = asyncio.create_task(self._run(), name="replay")

    async def stop(self) -> None:
        """Finish what is in flight, give the lanes back, within a deadline."""
        self._stop.set()
        self._wake.set()
        if self._loop is not None:
            await self._loop
        if self._workers:
            _, late = await asyncio.wait(self._workers.values(), timeout=_STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def notice(self, lane_ids: set[int]) -> None:
        """These lanes got new entries. Each waits a moment for company."""
        due = self._clock.monotonic() + self._settings.company.total_seconds()
        for lane_id in lane_ids:
            if lane_id not in self._workers:
                self._young.setdefault(lane_id, due)
        self._wake.set()

    def begin_flush(self) -> None:
        """Until `end_flush`, nothing waits for company."""
        self._flushing += 1
        self._wake.set()

    def end_flush(self) -> None:
        """Undo one `begin_flush`."""
        self._flushing -= 1

    # --- the loop ---

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                started = await self._start_workers()
            except Exception as error:
                log.error("replay_scan_failed", exc_info=error)
                started = 0
            await self._rest(started)

    async def _start_workers(self) -> int:
        """Claim lanes for as many workers as there is room; how many were started."""
        room = _MOST_WORKERS - len(self._workers)
        if not self._gate.is_healthy:
            room = min(room, 1 - min(len(self._workers), 1))
        if room <= 0 or self._gate.wait_seconds > 0:
            return 0
        now_ms = self._clock.now_ms()
        candidates = await self._database.read(
            lambda transaction: list_claimable(
                transaction, now_ms=now_ms, limit=room + len(self._workers) + len(self._young)
            )
        )
        chosen = [lane_id for lane_id in candidates if self._is_due(lane_id)][:room]
        if not chosen:
            return 0
        claimed = await self._writer.commit(
            Work(lambda transaction: self._claim(transaction, chosen)), background=True
        )
        for lease in claimed:
            lane_id = lease.lane.lane_id
            self._young.pop(lane_id, None)
            self._workers[lane_id] = asyncio.create_task(self._work(lease), name=f"lane-{lane_id}")
        return len(claimed)

    def _is_due(self, lane_id: int) -> bool:
        if lane_id in self._workers:
            return False
        due = self._young.get(lane_id)
        return due is None or self._flushing > 0 or self._clock.monotonic() >= due

    def _claim(self, transaction: Transaction, lane_ids: list[int]) -> list[Lease]:
        lease_ms = int(self._settings.lease.total_seconds() * 1000)
        facts.note_first_delivery(transaction)
        claims = (claim(transaction, id_, owner=self._owner, lease_ms=lease_ms) for id_ in lane_ids)
        return [lease for lease in claims if lease is not None]

    async def _work(self, lease: Lease) -> None:
        """Deliver one lane and give it back. Whatever goes wrong with it stays with it."""
        not_before_ms = self._clock.now_ms()
        try:
            not_before_ms = await self._worker.deliver(lease)
        except Exception as error:
            log.error("lane_failed", lane_id=lease.lane.lane_id, exc_info=error)
            not_before_ms = self._clock.now_ms() + int(timedelta(seconds=10).total_seconds() * 1000)
        finally:
            with suppress(Exception):
                await self._give_back(lease, not_before_ms)
            self._workers.pop(lease.lane.lane_id, None)
            self._wake.set()

    async def _give_back(self, lease: Lease, not_before_ms: int) -> None:
        def give_back(transaction: Transaction) -> list[int]:
            release(transaction, lease, not_before_ms=not_before_ms)
            lane = read_lane(transaction, lease.lane.lane_id)
            if lane.settled_position == lease.lane.settled_position:
                return []  # nothing changed for those that wait
            waiting = list_waiting_lanes(transaction, [lease.lane.lane_id])
            hurry(transaction, waiting)
            return waiting

        await self._writer.commit(Work(give_back), background=True)

    async def _rest(self, started: int) -> None:
        """Until something happens, but never shorter than a moment."""
        await asyncio.sleep(_LEAST_REST)
        if started:
            return
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._next_look()):
                await self._wake.wait()

    def _next_look(self) -> float:
        now = self._clock.monotonic()
        waits = [_POLL_SECONDS]
        if self._gate.wait_seconds > 0:
            waits.append(self._gate.wait_seconds + 0.05)
        if self._young:
            waits.append(max(min(self._young.values()) - now, _LEAST_REST))
        return min(waits)
