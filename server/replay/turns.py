"""A worker's turn at a lane: what it holds, and until when.

The turn is ambient: whatever the worker's task calls can ask for it (`current_turn`). So every commit of a
delivery is accepted only under the lane's lease, every call to the workspace is made only while the lease
lasts, and who has sent little in its turn goes before who has sent much.
"""

from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Transaction
from server.journal.leases import Lease, LeaseLostError, require_lease

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Turn:
    """One claim of one lane. `ends_at`: when its lease may have ended, in the clock's steady seconds."""

    lease: Lease
    ends_at: float
    sends: int = 0
    gate_generation: int = 0


_current: ContextVar[Turn | None] = ContextVar("turn", default=None)


def current_turn() -> Turn | None:
    """The turn that the running task is part of; None outside delivery."""
    return _current.get()


def begin_turn(turn: Turn) -> None:
    """From now on the running task, and what it starts, is part of this turn; log lines name its lane."""
    _current.set(turn)
    structlog.contextvars.bind_contextvars(lane_id=turn.lease.lane.lane_id)


def lanes_held() -> tuple[int, ...]:
    """The lane that the running task holds, if it does."""
    turn = _current.get()
    return () if turn is None else (turn.lease.lane.lane_id,)


class LaneWriter:
    """Commits that count only while the worker still holds its lane.

    A worker that was stopped past its lease cannot overwrite what its successor has learned.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def commit(self, work: Work[T], *, background: bool = True) -> T:
        """The result of `work`, once it is flushed.

        Raises:
            LeaseLostError: another worker holds the lane by now; nothing was changed.
        """
        turn = _current.get()
        if turn is None:
            return await self._writer.commit(work, background=background)
        lease = turn.lease

        def apply(transaction: Transaction) -> T:
            require_lease(transaction, lease)
            return work.apply(transaction)

        raises = (*work.raises, LeaseLostError)
        fenced = replace(work, apply=apply, raises=raises, lanes=lanes_held())
        return await self._writer.commit(fenced, background=background)
