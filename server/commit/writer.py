"""The group-commit writer.

One thread per process owns the only writing connection. It drains what waits into one transaction,
commits once, and only then answers: a commit costs a flush to disk and a turn of this thread, so many share
it. Clients that were answered together ask again together: a group waits half a millisecond for as many as
there just were, since it would otherwise leave with the first of them. Who is alone waits for nobody.

A job that breaks a rule fails alone. An unexpected database error rolls the whole group back and
re-runs it job by job, so that it fails only the job that causes it. While Postgres is away a group waits
a moment for it, then its callers are told to ask again. Once handed over, work is done whether or not its
caller still waits.
"""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, Generic, TypeVar, cast

import structlog
from sqlalchemy.exc import DBAPIError

from server.commit.bounds import Admission, BacklogBound
from server.commit.group_work import Done, GroupWork
from server.commit.remembered_runs import RememberedRuns
from server.commit.run_requests import RunWrite
from server.commit.run_writes import apply_run_writes
from server.database.commit_marks import CommitMarks
from server.database.engine import Database, Transaction
from server.database.postgres import DatabaseAwayError, OutcomeUnknownError
from server.domain import failpoints
from server.domain.clock import Clock
from server.domain.disk_failures import DiskFailure, disk_failure
from server.domain.errors import ErrorCode, MlflowError
from server.domain.fullness import come_again
from server.journal.lanes import lock_lanes
from server.telemetry.tracing import Committed, CommitTrace

T = TypeVar("T")
log = structlog.get_logger(__name__)

_STOP_TIMEOUT_SECONDS = 30.0
_CONFLICT_TRIES = 5
_SERIALIZATION_FAILURE = "40001"
_DEADLOCK_DETECTED = "40P01"
_AWAY_SECONDS = 3.0
_AWAY_LOOK_SECONDS = 0.2
_BACKGROUND_WAITS_SECONDS = 0.25
_DISK_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one group, and all that waits, may hold; and how long a group waits for the others."""

    group_rows: int = 20_000
    group_bytes: int = 8 * 1024 * 1024
    group_seconds: float = 0.020
    company_seconds: float = 0.0005
    waiting_bytes: int = 64 * 1024 * 1024
    waiting_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """A job of a rare kind: `apply` runs inside the group's transaction, in a savepoint of its own.

    `alone` gives it a transaction to itself (operations that create or rename a named thing). `raises` are
    the errors of `apply` that its caller handles; any other is logged and told as an internal error. `lanes`
    names lanes that it changes: a group locks those of all its jobs in one order, so that two replicas do
    not wait for each other.
    """

    apply: Callable[[Transaction], T]
    size_bytes: int = 256
    rows: int = 1
    alone: bool = False
    raises: tuple[type[Exception], ...] = ()
    lanes: tuple[int, ...] = ()
    admission: Admission = Admission.ORDINARY


Job = RunWrite | GroupWork[Any, Any] | Work[Any]


@dataclass(slots=True)
class _Waiting:
    job: Job
    future: asyncio.Future[Any]
    since: float
    admission: Admission
    is_background: bool
    request: Any = None
    lanes: frozenset[int] = frozenset()


@dataclass(slots=True)
class _Outcome:
    waiting: _Waiting
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Commits jobs in groups. `start` before the first `commit`, `stop` after the last."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        bounds: Bounds | None = None,
        backlog: BacklogBound | None = None,
        on_commit: Callable[[set[int]], None] | None = None,
        observe_group: Callable[[int, float], None] | None = None,
        trace: CommitTrace | None = None,
    ) -> None:
        self._database = database
        self._marks = CommitMarks(database)
        self._remembered = RememberedRuns()
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._backlog = backlog or BacklogBound(limit_bytes=sys.maxsize)
        self._on_commit = on_commit or (lambda lanes: None)
        self._observe_group = observe_group or (lambda jobs, seconds: None)
        self._trace = trace
        self._interactive: deque[_Waiting] = deque()
        self._background: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._expected = 0
        self._waits_for_company = False
        self._away_since: float | None = None
        self._arrived = threading.Condition()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def on_commit(self, listener: Callable[[set[int]], None]) -> None:
        """Tell `listener`, in the event loop, which lanes got new entries, after each commit."""
        self._on_commit = listener

    @property
    def waiting_jobs(self) -> int:
        """How many jobs wait for the next groups."""
        with self._arrived:
            return len(self._interactive) + len(self._background)

    def start(self) -> None:
        """Start the writing thread; answers go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Commit what waits, then end the thread."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
        await asyncio.to_thread(self._thread.join, _STOP_TIMEOUT_SECONDS)

    async def commit(self, job: Work[T], *, background: bool = False) -> T:
        """The result of `job`, once its transaction is flushed to disk.

        Raises:
            MlflowError: the job broke a rule, too much is waiting already, or the database is away (429).
        """
        return cast(T, await self._submit(job, background=background))

    async def commit_run_write(self, job: RunWrite) -> Any:
        """Like `commit`, for the hot kinds, which a group works set-based."""
        return await self._submit(job, background=False)

    async def commit_together(self, job: GroupWork[Any, T]) -> T:
        """Like `commit`, for what a group works together with others of its kind."""
        return cast(T, await self._submit(job, background=False))

    def _submit(self, job: Job, *, background: bool) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        admission = Admission.ALWAYS if background else job.admission
        waiting = _Waiting(job, loop.create_future(), time.monotonic(), admission, background)
        if self._trace is not None:
            waiting.request = self._trace.here()
        with self._arrived:
            if self._stopping:
                raise MlflowError(ErrorCode.TEMPORARILY_UNAVAILABLE, "The server is stopping.")
            if not background:
                self._refuse_when_full(job)
            self._waiting_bytes += job.size_bytes
            (self._background if background else self._interactive).append(waiting)
            if not (self._waits_for_company and self._misses_company()):
                self._arrived.notify()
        # Whoever goes away cancels this, but not the work, which others share a transaction with.
        return waiting.future

    def require_room(self) -> None:
        """Refuse, before its bytes are read, what will add to the backlog.

        Raises:
            MlflowError: the backlog is too full for it (429, or 507).
        """
        refusal = self._backlog.refusal(Admission.ORDINARY, 0, waiting_bytes=self._waiting_bytes)
        if refusal is not None:
            raise refusal

    def _refuse_when_full(self, job: Job) -> None:
        oldest = self._interactive[0].since if self._interactive else None
        waits = 0.0 if oldest is None else time.monotonic() - oldest
        too_much = self._waiting_bytes + job.size_bytes > self._bounds.waiting_bytes and self._interactive
        if too_much or waits > self._bounds.waiting_seconds:
            raise MlflowError(
                ErrorCode.REQUEST_LIMIT_EXCEEDED,
                "The server has more writes waiting than it can commit in time. Try again.",
                headers={"Retry-After": "1"},
            )
        # Rare kinds may add nothing to the backlog: they are judged when it is known what they add.
        if not isinstance(job, Work):
            refusal = self._backlog.refusal(job.admission, job.size_bytes, waiting_bytes=self._waiting_bytes)
            if refusal is not None:
                raise refusal

    # --- the writing thread ---

    def _run(self) -> None:
        while True:
            group = self._next_group()
            if not group:
                return
            started = time.monotonic()
            outcomes, lanes = self._commit_group(group)
            self._expect(0 if group[0].is_background else len(group))
            failpoints.reach("commit.after")
            self._observe_group(len(group), time.monotonic() - started)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._answer, outcomes, lanes)
            self._database.restrain_wal()

    def _next_group(self) -> list[_Waiting]:
        with self._arrived:
            while not (self._interactive or self._background or self._stopping):
                self._arrived.wait()
            if self._misses_company() and not self._stopping:
                self._waits_for_company = True
                self._arrived.wait(self._bounds.company_seconds)
                self._waits_for_company = False
            queue = self._choose_queue()
            group: list[_Waiting] = []
            rows = size = 0
            while queue:
                job = queue[0].job
                alone = isinstance(job, Work) and job.alone
                full = (
                    rows + job.rows > self._bounds.group_rows
                    or size + job.size_bytes > self._bounds.group_bytes
                )
                if group and (alone or full):
                    break
                group.append(queue.popleft())
                rows += job.rows
                size += job.size_bytes
                if alone:
                    break
            self._waiting_bytes -= size
            return group

    def _misses_company(self) -> bool:
        """Whether some clients wait, but fewer than are expected."""
        return 0 < len(self._interactive) < self._expected

    def _expect(self, clients: int) -> None:
        """After a commit: the clients it answers will be back, and who came meanwhile is here.

        Who does not come back is soon waited for no more.
        """
        with self._arrived:
            self._expected = max(clients + len(self._interactive), self._expected // 2)

    def _choose_queue(self) -> "deque[_Waiting]":
        """Clients go first, but their stream may not hold up delivery for ever."""
        if self._background:
            waited = time.monotonic() - self._background[0].since
            if not self._interactive or waited > _BACKGROUND_WAITS_SECONDS:
                return self._background
        return self._interactive

    def _commit_group(self, group: list[_Waiting]) -> tuple[list[_Outcome], set[int]]:
        outcomes: list[_Outcome] = []
        lanes: set[int] = set()
        position = 0
        while position < len(group):
            done, touched = self._commit_some(group[position:])
            outcomes.extend(done)
            lanes |= touched
            position += len(done)
        return outcomes, lanes

    def _commit_some(self, group: list[_Waiting]) -> tuple[list[_Outcome], set[int]]:
        """Commit a prefix of the group, as long as the time bound allows."""
        if len(group) == 1:
            return self._commit_one(group[0])
        try:
            return self._in_one_transaction(group)
        except (DatabaseAwayError, OutcomeUnknownError) as error:
            return [_Outcome(waiting, error=error) for waiting in group], set()
        except Exception as error:
            log.warning("group_rolled_back", jobs=len(group), error=type(error).__name__)
        outcomes: list[_Outcome] = []
        lanes: set[int] = set()
        for waiting in group:
            done, touched = self._commit_one(waiting)
            outcomes.extend(done)
            lanes |= touched
        return outcomes, lanes

    def _commit_one(self, waiting: _Waiting) -> tuple[list[_Outcome], set[int]]:
        """Commit one job; once more if another replica's transaction was in its way."""
        tries = 1
        while True:
            try:
                return self._in_one_transaction([waiting])
            except Exception as error:
                if tries == _CONFLICT_TRIES or not _is_conflict(error):
                    return [_Outcome(waiting, error=_as_request_error(error))], set()
            tries += 1

    def _in_one_transaction(self, group: Sequence[_Waiting]) -> tuple[list[_Outcome], set[int]]:
        """Commit as many as the time bound allows. While the database is away, wait for it a moment."""
        while True:
            try:
                done = self._try_transaction(group)
            except DatabaseAwayError:
                if not self._may_wait_for_database():
                    raise
                time.sleep(_AWAY_LOOK_SECONDS)
            else:
                self._away_since = None
                return done

    def _may_wait_for_database(self) -> bool:
        """For the first moments of an outage: a restart takes no longer."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning("database_away")
        return now - self._away_since < _AWAY_SECONDS

    def _try_transaction(self, group: Sequence[_Waiting]) -> tuple[list[_Outcome], set[int]]:
        now_ms, started = self._clock.now_ms(), time.monotonic()
        mark: int | None = None
        self._marks.prepare(now_ms)
        self._remembered.begin()
        try:
            with self._database.writing(now_ms) as transaction:
                outcomes = self._apply(transaction, group)
                mark = self._marks.mark(transaction)
                failpoints.reach("commit.before")
        except OutcomeUnknownError as lost:
            if not self._marks.was_committed(mark):
                raise DatabaseAwayError from lost
        self._remembered.committed()
        self._backlog.note(transaction.backlog_bytes)
        if self._trace is not None:
            seconds = time.monotonic() - started
            self._trace.committed(_traced(outcomes), accepted_at_ms=now_ms, seconds=seconds)
        return outcomes, transaction.touched_lanes

    def _apply(self, transaction: Transaction, group: Sequence[_Waiting]) -> list[_Outcome]:
        """Work as many jobs of the group as the time bound allows."""
        outcomes: list[_Outcome] = []
        deadline = time.monotonic() + self._bounds.group_seconds
        if transaction.is_postgres:
            _lock_named_lanes(transaction, group)
        position = 0
        while position < len(group) and (not outcomes or time.monotonic() < deadline):
            together = _before_next_work(group, position)
            if together:
                outcomes.extend(_apply_together(transaction, together, self._remembered))
                position += len(together)
            else:
                outcomes.append(_apply_rare(transaction, group[position], self._backlog))
                position += 1
        return outcomes

    # --- back in the event loop ---

    def _answer(self, outcomes: list[_Outcome], lanes: set[int]) -> None:
        for outcome in outcomes:
            future = outcome.waiting.future
            if future.done():
                continue
            if outcome.error is None:
                future.set_result(outcome.result)
            else:
                future.set_exception(outcome.error)
                future.exception()  # a caller that went away shall not leave a warning
        if lanes:
            self._on_commit(lanes)


def _lock_named_lanes(transaction: Transaction, group: Sequence[_Waiting]) -> None:
    named = {lane_id for waiting in group for lane_id in getattr(waiting.job, "lanes", ())}
    if named:
        lock_lanes(transaction, named)


def _before_next_work(group: Sequence[_Waiting], start: int) -> list[_Waiting]:
    """What comes before the next job that is worked by itself."""
    return list(takewhile(lambda waiting: not isinstance(waiting.job, Work), islice(group, start, None)))


def _apply_together(
    transaction: Transaction, group: Sequence[_Waiting], remembered: RememberedRuns
) -> list[_Outcome]:
    """Work jobs kind by kind, the writes to runs first.

    They may pass each other: nobody has been answered yet, so none can have been sent because of another.
    Whoever writes to a run knows it: a create like the one that made it is another's. Hence the order.
    """
    writes = [waiting for waiting in group if isinstance(waiting.job, RunWrite)]
    outcomes = _apply_run_writes(transaction, writes, remembered) if writes else []
    kinds: dict[Callable[..., Any], list[tuple[_Waiting, Any]]] = {}
    for waiting in group:
        if isinstance(waiting.job, GroupWork):
            kinds.setdefault(waiting.job.apply, []).append((waiting, waiting.job.request))
    for apply, jobs in kinds.items():
        done = apply(transaction, [request for _, request in jobs])
        outcomes += [_outcome_of(waiting, one) for (waiting, _), one in zip(jobs, done, strict=True)]
    return outcomes


def _outcome_of(waiting: _Waiting, done: Done[Any] | MlflowError) -> _Outcome:
    if isinstance(done, MlflowError):
        return _Outcome(waiting, error=done)
    waiting.lanes = done.lanes
    return _Outcome(waiting, result=done.result)


def _apply_run_writes(
    transaction: Transaction, group: Sequence[_Waiting], remembered: RememberedRuns
) -> list[_Outcome]:
    results = apply_run_writes(transaction, [cast(RunWrite, waiting.job) for waiting in group], remembered)
    return [
        _Outcome(waiting, error=result)
        if isinstance(result, MlflowError)
        else _Outcome(waiting, result=result)
        for waiting, result in zip(group, results, strict=True)
    ]


def _apply_rare(transaction: Transaction, waiting: _Waiting, backlog: BacklogBound) -> _Outcome:
    touched, bytes_before = set(transaction.touched_lanes), transaction.backlog_bytes
    try:
        with transaction.savepoint():
            result = cast(Work[Any], waiting.job).apply(transaction)
            added = transaction.backlog_bytes - bytes_before
            refusal = backlog.refusal(waiting.admission, added, waiting_bytes=bytes_before)
            if added > 0 and refusal is not None:
                raise refusal
            waiting.lanes = frozenset(transaction.touched_lanes - touched)
            return _Outcome(waiting, result=result)
    except (DBAPIError, transaction.driver_error):
        raise
    except Exception as error:
        if isinstance(error, cast(Work[Any], waiting.job).raises):
            return _Outcome(waiting, error=error)
        return _Outcome(waiting, error=_as_request_error(error))


def _traced(outcomes: Sequence[_Outcome]) -> list[Committed]:
    """What was committed of a group, as spans tell it."""
    return [
        Committed(waiting.request, getattr(waiting.job, "run_id", None), waiting.lanes)
        for waiting in (outcome.waiting for outcome in outcomes if outcome.error is None)
    ]


def _as_request_error(error: Exception) -> Exception:
    """What a client may see of an error; the rest is for the log."""
    if isinstance(error, MlflowError):
        return error
    log.error("commit_failed", error=type(error).__name__, exc_info=error)
    failure = disk_failure(error)
    if failure is DiskFailure.FULL:
        return come_again(
            "The server's disk is full; nothing of this request was kept. Try again.",
            seconds=_DISK_WAIT_SECONDS,
        )
    if failure is DiskFailure.BROKEN:
        refusal = come_again(
            "The server's disk does not take what is written; nothing of this is promised. Try again.",
            seconds=_DISK_WAIT_SECONDS,
        )
        refusal.may_be_kept = True
        return refusal
    return MlflowError(
        ErrorCode.INTERNAL_ERROR,
        "The write could not be committed; nothing of it was kept.",
        may_be_kept=True,
    )


def _is_conflict(error: BaseException) -> bool:
    """Whether two transactions got in each other's way, so that trying again can help."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None) in (_SERIALIZATION_FAILURE, _DEADLOCK_DETECTED)
