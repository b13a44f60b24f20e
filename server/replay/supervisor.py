"""Finding lanes with work and giving each a worker.

New entries are noticed in memory, at their commit; other replicas signal theirs; and the database is asked
now and then, for what an earlier life of this process or a replica that is gone left behind.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.database.postgres import DatabaseAwayError
from server.domain.clock import Clock
from server.journal.barriers import list_waiting_lanes
from server.journal.lanes import LaneKind
from server.journal.leases import (
    Lease,
    claim,
    hurry,
    list_owned,
    list_postponed,
    read_lane,
    release,
    release_owned,
)
from server.replay.agenda import LEAST_REST, Agenda
from server.replay.deliveries.delivery import Delivery
from server.replay.figures import Figures
from server.replay.gate import Gate
from server.replay.lane_pools import LanePool, choose, list_candidates, pools_for
from server.replay.lease_keeping import lease_ends_at
from server.replay.owners import Owner, OwnerWatch
from server.replay.send_slots import SendsClosedError, SendSlots
from server.replay.signals import ENTRIES, FLUSH
from server.replay.turns import Turn, begin_turn
from server.replay.worker import LaneWorker, ReplaySettings
from server.store import facts

log = structlog.get_logger(__name__)

_STOP_SECONDS = 15.0
_TEND_SECONDS = 2.0
_RESERVE = 200
_HEARD_FLUSH_SECONDS = 2.5
_LOOK_AFTER_FAILURE = timedelta(seconds=10)


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
        owner: Owner,
        watch: OwnerWatch | None = None,
        figures: Figures,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._gate = gate
        self._settings = settings
        self._owner = owner
        self._watch = watch
        self._stop = asyncio.Event()
        self._agenda = Agenda(clock)
        self._reserve: dict[LanePool, list[int]] = {}
        self._tend_at = clock.monotonic()
        self._workers: dict[int, tuple[LanePool, asyncio.Task[None]]] = {}
        self._young: dict[int, float] = {}
        self._flushing = 0
        self._flush_until = 0.0
        self._hurries = False
        self._is_database_away = False
        self._stop_by: float | None = None
        self._loop: asyncio.Task[None] | None = None
        self._slots = {pool: SendSlots(pool.sends) for pool in pools_for(settings.concurrent_sends)}
        self._lane_workers = {
            pool: LaneWorker(
                database=database,
                writer=writer,
                clock=clock,
                gate=gate,
                deliveries=deliveries,
                settings=settings,
                sends=slots,
                jitter=jitter,
                is_flushing=self._is_flushing,
                stop=self._stop,
                figures=figures,
            )
            for pool, slots in self._slots.items()
        }
        gate.on_reopening(self._hurry)
        gate.hurry_while(self._is_flushing)

    # --- from outside ---

    def start(self) -> None:
        """Begin delivering."""
        self._loop = asyncio.create_task(self._run(), name="replay")

    def begin_stop(self) -> None:
        """Begin nothing new; what is in flight goes on."""
        if self._stop_by is None:
            self._stop_by = self._clock.monotonic() + _STOP_SECONDS
        self._stop.set()
        self._agenda.wake()
        for slots in self._slots.values():
            slots.close()

    async def stop(self) -> None:
        """Finish what is in flight, give the lanes back, within a deadline from `begin_stop` on."""
        self.begin_stop()
        assert self._stop_by is not None
        if self._loop is not None:
            await self._loop
        tasks = [task for _, task in self._workers.values()]
        if tasks:
            left = max(self._stop_by - self._clock.monotonic(), 0)
            _, late = await asyncio.wait(tasks, timeout=left)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def notice(self, lane_ids: set[int]) -> None:
        """These lanes got new entries. Each waits a moment for company."""
        due = self._clock.monotonic() + self._settings.company.total_seconds()
        for lane_id in lane_ids:
            if lane_id not in self._workers:
                self._young.setdefault(lane_id, due)
        self._agenda.plan_look(due)

    def hear(self, text: str) -> None:
        """Another replica signals, or some of its signals may have been missed."""
        now = self._clock.monotonic()
        match text:
            case _ if text == FLUSH:
                if not self._is_flushing():
                    self._hurry()
                self._flush_until = now + _HEARD_FLUSH_SECONDS
            case _ if text == ENTRIES:
                self._agenda.plan_look(now + self._settings.company.total_seconds() + LEAST_REST)
            case _:
                self._agenda.plan_look(now)

    def begin_flush(self) -> None:
        """Until `end_flush`, nothing waits for company, nor long for the workspace to be well again."""
        self._flushing += 1
        self._hurry()

    def end_flush(self) -> None:
        """Undo one `begin_flush`."""
        self._flushing -= 1

    def _is_flushing(self) -> bool:
        return self._flushing > 0 or self._clock.monotonic() < self._flush_until

    def _hurry(self) -> None:
        """Look at once at what waits for a moment to come."""
        self._hurries = True
        self._agenda.plan_look(self._clock.monotonic())

    # --- the loop ---

    async def _run(self) -> None:
        while not self._stop.is_set():
            is_look = await self._agenda.wait()
            if self._stop.is_set():
                return
            try:
                if is_look:
                    await self._look()
                await self._start_workers()
                self._note_database(is_away=False)
            except DatabaseAwayError:
                self._note_database(is_away=True)
            except Exception as error:
                log.error("replay_scan_failed", exc_info=error)

    def _note_database(self, *, is_away: bool) -> None:
        if is_away != self._is_database_away:
            self._is_database_away = is_away
            log.warning("replay_waits_for_database" if is_away else "replay_found_database")

    async def _look(self) -> None:
        """Ask the database what there is to do."""
        with self._agenda.looking():
            now = self._clock.monotonic()
            if now >= self._tend_at:
                self._tend_at = now + _TEND_SECONDS
                await self._take_back()
            if self._hurries:
                self._hurries = False
                await self._hurry_postponed()
            await self._find_candidates()
        if self._gate.wait_seconds > 0:
            self._agenda.plan_look(self._clock.monotonic() + self._gate.wait_seconds + LEAST_REST)
        elif self._young:
            self._agenda.plan_look(min(self._young.values()))

    async def _find_candidates(self) -> None:
        """Fill the reserve of lanes to claim."""
        self._reserve = {}
        if self._gate.wait_seconds > 0:
            return
        now_ms = self._clock.now_ms()
        excluded = self._not_to_be_claimed()
        limits = {pool: _RESERVE + len(excluded) for pool in self._rooms()}
        found = await self._database.read(
            lambda transaction: list_candidates(transaction, limits, now_ms=now_ms)
        )
        self._reserve = {pool: choose(found[pool], _RESERVE, excluded) for pool in found}

    async def _take_back(self) -> None:
        """Free the lanes of owners that are gone, and those that are ours but have no worker any more."""
        watch, ours = self._watch, self._owner.names

        def look(transaction: Transaction) -> tuple[list[str], list[int]]:
            gone = [] if watch is None else watch.find_gone(transaction)
            return gone, list_owned(transaction, ours)

        gone, held = await self._database.read(look)
        strays = [lane_id for lane_id in held if lane_id not in self._workers]
        if not gone and not strays:
            return

        def take_back(transaction: Transaction) -> int:
            freed = release_owned(transaction, gone)
            return freed + release_owned(transaction, ours, only_lanes=strays)

        freed = await self._writer.commit(Work(take_back, lanes=tuple(strays)), background=True)
        log.info("leases_taken_back", lanes=freed, owners=gone)

    async def _hurry_postponed(self) -> None:
        now_ms = self._clock.now_ms()
        postponed = await self._database.read(lambda transaction: list_postponed(transaction, now_ms=now_ms))
        if postponed:
            await self._hurry_lanes(postponed)

    async def _hurry_lanes(self, lane_ids: list[int]) -> None:
        await self._writer.commit(
            Work(lambda transaction: hurry(transaction, lane_ids), lanes=tuple(lane_ids)), background=True
        )

    # --- workers ---

    def _rooms(self) -> dict[LanePool, int]:
        """How many more workers each pool may have."""
        busy = [pool for pool, _ in self._workers.values()]
        rooms = {pool: pool.workers - busy.count(pool) for pool in self._slots}
        if not self._gate.is_healthy:
            rooms = {pool: min(room, 1 - min(len(busy), 1)) for pool, room in rooms.items()}
        return {pool: room for pool, room in rooms.items() if room > 0}

    async def _start_workers(self) -> None:
        """Claim lanes of the reserve for as many workers as there is room."""
        if self._gate.wait_seconds > 0:
            return
        chosen: dict[int, LanePool] = {}
        for pool, room in self._rooms().items():
            reserve = self._reserve.get(pool, [])
            taken, self._reserve[pool] = reserve[:room], reserve[room:]
            chosen |= dict.fromkeys((lane_id for lane_id in taken if lane_id not in self._workers), pool)
        if not self._gate.is_healthy:
            chosen = dict(list(chosen.items())[:1])
        if not chosen:
            return
        asked_at = self._clock.monotonic()
        claimed = await self._writer.commit(
            Work(lambda transaction: self._claim(transaction, list(chosen))), background=True
        )
        if len(claimed) < len(chosen):
            self._agenda.plan_look(self._clock.monotonic())  # another replica was quicker
        for lease in claimed:
            turn = Turn(lease, lease_ends_at(asked_at, self._settings.lease))
            self._begin_work(chosen[lease.lane.lane_id], turn)

    def _not_to_be_claimed(self) -> frozenset[int]:
        """Lanes that have a worker, and young ones."""
        now = self._clock.monotonic()
        if self._is_flushing():
            self._young.clear()
        self._young = {lane_id: due for lane_id, due in self._young.items() if due > now}
        return frozenset(self._workers) | frozenset(self._young)

    def _claim(self, transaction: Transaction, lane_ids: list[int]) -> list[Lease]:
        lease_ms = int(self._settings.lease.total_seconds() * 1000)
        facts.note_first_delivery(transaction)
        name = self._owner.name
        claims = (claim(transaction, id_, owner=name, lease_ms=lease_ms) for id_ in lane_ids)
        return [lease for lease in claims if lease is not None]

    def _begin_work(self, pool: LanePool, turn: Turn) -> None:
        lane_id = turn.lease.lane.lane_id
        task = asyncio.create_task(self._work(pool, turn), name=f"lane-{lane_id}")
        self._workers[lane_id] = (pool, task)

    async def _work(self, pool: LanePool, turn: Turn) -> None:
        """Deliver one lane and give it back. Whatever goes wrong with it stays with it."""
        begin_turn(turn)
        lane_id = turn.lease.lane.lane_id
        not_before_ms = self._clock.now_ms()
        try:
            not_before_ms = await self._lane_workers[pool].deliver(turn.lease)
        except SendsClosedError:
            pass
        except DatabaseAwayError:
            log.warning("lane_waits_for_database", lane_id=lane_id)
        except Exception as error:
            log.error("lane_failed", lane_id=lane_id, exc_info=error)
            not_before_ms += int(_LOOK_AFTER_FAILURE.total_seconds() * 1000)
        finally:
            self._gate.abandoned()
            with suppress(Exception):  # what could not be given back is taken back later
                await self._give_back(turn.lease, not_before_ms)
            del self._workers[lane_id]
            self._make_room(pool)

    def _make_room(self, pool: LanePool) -> None:
        """A worker has ended: soon another may begin."""
        now = self._clock.monotonic()
        if self._reserve.get(pool):
            self._agenda.plan_refill(now + LEAST_REST)
        else:
            self._agenda.plan_look(now)

    async def _give_back(self, lease: Lease, not_before_ms: int) -> None:
        lane_id = lease.lane.lane_id

        def give_back(transaction: Transaction) -> list[int]:
            release(transaction, lease, not_before_ms=not_before_ms)
            lane = read_lane(transaction, lane_id)
            if lane.settled_position == lease.lane.settled_position:
                return []  # nothing changed for those that wait
            return list_waiting_lanes(transaction, [lane_id])

        waiting = await self._writer.commit(Work(give_back, lanes=(lane_id,)), background=True)
        if waiting:
            await self._hurry_lanes(waiting)
