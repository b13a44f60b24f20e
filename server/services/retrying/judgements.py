"""What can be said of a parked operation that is to be retried, and what is needed to say it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.database.engine import Transaction
from server.domain.entities import PointKey
from server.domain.operations import CreateRun, Operation
from server.journal.entries import Awaited


@dataclass(frozen=True, slots=True)
class Resend:
    """Append this once more; `point` where it is a metric point, which goes into a block."""

    operation: Operation
    point: PointKey | None = None
    awaits: tuple[Awaited, ...] = ()
    awaits_end_of: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Superseded:
    """What came later has taken its place."""

    why: str


@dataclass(frozen=True, slots=True)
class Unsendable:
    """It cannot be sent, now or ever."""

    why: str


Judgement = Resend | Superseded | Unsendable


@dataclass(frozen=True, slots=True)
class Ground:
    """What a judgement stands on.

    `creates` has the creates that this transaction appends, by lane: they are not in the journal yet.
    `has_bytes` tells whether the spool has a file.
    """

    transaction: Transaction
    creates: Mapping[int, int]
    has_bytes: Callable[[str], bool]

    def value(self, sql: str, *parameters: Any) -> Any:
        """The first column of the first row; None without one."""
        rows = self.transaction.rows(sql, parameters)
        return rows[0][0] if rows else None

    def creates_of(self, data_lanes: Sequence[int]) -> tuple[Awaited, ...]:
        """The creates of runs that are still on their way, by the runs' data lanes."""
        found = ((lane_id, self._pending_create(lane_id)) for lane_id in data_lanes)
        return tuple(Awaited(lane_id, position) for lane_id, position in found if position is not None)

    def _pending_create(self, data_lane: int) -> int | None:
        if data_lane in self.creates:
            return self.creates[data_lane]
        found: int | None = self.value(
            "SELECT max(position) FROM journal_entries WHERE lane_id = ? AND kind = ?",
            data_lane,
            CreateRun.__name__,
        )
        return found


def kept_if(is_current: bool, operation: Operation, why: str) -> Judgement:
    """Send it again while the store still says so."""
    return Resend(operation) if is_current else Superseded(why)
