"""The group-commit writer.

One thread per process owns the only writing connection. It drains what waits into one transaction,
commits once, and only then answers: a commit costs a flush to disk, so many share it. It never
waits for company: a lone request is committed at once.

A job that breaks a rule fails alone. An unexpected database error rolls the whole group back and
re-runs it job by job, so that it fails only the job that causes it. Once handed over, work is done
whether or not its caller still waits.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import structlog
from sqlalchemy.exc import DBAPIError

from server.commit.run_writes import RunWrite, apply_run_writes
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.clock import Clock
from server.domain.errors import ErrorCode, MlflowError

T = TypeVar("T")
log = structlog.get_logger(__name__)

_STOP_TIMEOUT_SECONDS = 30.0
_CONFLICT_TRIES = 5
_SERIALIZATION_FAILURE = "40001"
_DEADLOCK_DETECTED = "40P01"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one group, and all that waits, may hold."""

    group_rows: int = 20_000
    group_bytes: int = 8 * 1024 * 1024
    group_seconds: float = 0.020
    waiting_bytes: int = 64 * 1024 * 1024
    waiting_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """A job of a rare kind: `apply` runs inside the group's transaction, in a savepoint of its own.

    `alone` gives it a transaction to itself (operations that create or rename a named thing). `raises` are
    the errors of `apply` that its caller handles; any other is logged and told as an internal error.
    """

    apply: Callable[[Transaction], T]
    size_bytes: int = 256
    rows: int = 1
    alone: bool = False
    raises: tuple[type[Exception], ...] = ()


Job = RunWrite | Work[Any]


@dataclass(slots=True)
class _Waiting:
    job: Job
    future: asyncio.Future[Any]
    since: float


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
        on_commit: Callable[[set[int]], None] | None = None,
        observe_group: Callable[[int, float], None] | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._on_commit = on_commit or (lambda lanes: None)
        self._observe_group = observe_group or (lambda jobs, seconds: None)
        self._interactive: deque[_Waiting] = deque()
        self._background: deque[_Waiting] = deque()
        self._waiting_bytes = 0
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
            MlflowError: the job broke a rule, or too much is waiting already (429).
        """
        return cast(T, await self._submit(job, background=background))

    async def commit_run_write(self, job: RunWrite) -> Any:
        """Like `commit`, for the hot kinds, which a group works set-based."""
        return await self._submit(job, background=False)

    def _submit(self, job: Job, *, background: bool) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        waiting = _Waiting(job, loop.create_future(), time.monotonic())
        with self._arrived:
            if self._stopping:
                raise MlflowError(ErrorCode.TEMPORARILY_UNAVAILABLE, "The server is stopping.")
            if not background:
                self._refuse_when_full(job)
            self._waiting_bytes += job.size_bytes
            (self._background if background else self._interactive).append(waiting)
            self._arrived.notify()
        # A caller that goes away must not cancel work that others share a transaction with.
        return asyncio.shield(waiting.future)

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

    # --- the writing thread ---

    def _run(self) -> None:
        while True:
            group = self._next_group()
            if not group:
                return
            started = time.monotonic()
            outcomes, lanes = self._commit_group(group)
            failpoints.reach("commit.after")
            self._observe_group(len(group), time.monotonic() - started)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._answer, outcomes, lanes)

    def _next_group(self) -> list[_Waiting]:
        with self._arrived:
            while not (self._interactive or self._background or self._stopping):
                self._arrived.wait()
            queue = self._interactive or self._background
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
        outcomes: list[_Outcome] = []
        deadline = time.monotonic() + self._bounds.group_seconds
        with self._database.writing(self._clock.now_ms()) as transaction:
            position = 0
            while position < len(group) and (not outcomes or time.monotonic() < deadline):
                hot = _hot_prefix(group, position)
                if hot:
                    outcomes.extend(_apply_hot(transaction, hot))
                    position += len(hot)
                else:
                    outcomes.append(_apply_rare(transaction, group[position]))
                    position += 1
            failpoints.reach("commit.before")
        return outcomes, transaction.touched_lanes

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


def _hot_prefix(group: Sequence[_Waiting], start: int) -> list[_Waiting]:
    end = start
    while end < len(group) and isinstance(group[end].job, RunWrite):
        end += 1
    return list(group[start:end])


def _apply_hot(transaction: Transaction, group: list[_Waiting]) -> list[_Outcome]:
    results = apply_run_writes(transaction, [cast(RunWrite, waiting.job) for waiting in group])
    return [
        _Outcome(waiting, error=result)
        if isinstance(result, MlflowError)
        else _Outcome(waiting, result=result)
        for waiting, result in zip(group, results, strict=True)
    ]


def _apply_rare(transaction: Transaction, waiting: _Waiting) -> _Outcome:
    touched = set(transaction.touched_lanes)
    try:
        with transaction.savepoint():
            return _Outcome(waiting, result=cast(Work[Any], waiting.job).apply(transaction))
    except (DBAPIError, transaction.driver_error):
        raise
    except Exception as error:
        transaction.touched_lanes = touched
        if isinstance(error, cast(Work[Any], waiting.job).raises):
            return _Outcome(waiting, error=error)
        return _Outcome(waiting, error=_as_request_error(error))


def _as_request_error(error: Exception) -> Exception:
    """What a client may see of an error; the rest is for the log."""
    if isinstance(error, MlflowError):
        return error
    log.error("commit_failed", error=type(error).__name__, exc_info=error)
    if _is_out_of_space(error):
        return MlflowError(
            ErrorCode.RESOURCE_EXHAUSTED,
            "The server's disk is full; nothing of this request was kept.",
            headers={"Retry-After": "10"},
        )
    return MlflowError(ErrorCode.INTERNAL_ERROR, "The write could not be committed; nothing of it was kept.")


def _is_conflict(error: BaseException) -> bool:
    """Whether two transactions got in each other's way, so that trying again can help."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None) in (_SERIALIZATION_FAILURE, _DEADLOCK_DETECTED)


def _is_out_of_space(error: Exception) -> bool:
    text = str(error).lower()
    return "disk is full" in text or "no space left" in text
