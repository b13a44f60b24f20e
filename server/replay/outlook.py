"""What a lane holds next, read in one snapshot."""

from dataclasses import dataclass

from server.database.engine import Transaction
from server.journal import barriers, batches, leases, overflow
from server.journal.batches import Batch
from server.journal.contents import Contents, read_range
from server.journal.entries import Awaited
from server.journal.gathering import is_wait_over
from server.journal.lanes import LaneKind
from server.journal.leases import Lane
from server.journal.limits import Limits, read_limits

_ROWS_READ = 1001


@dataclass(slots=True)
class Outlook:
    """What a lane holds next, and what it must wait for.

    `limits` are those that the workspace was seen to have. `awaited_overflow` is what must be delivered
    before the lane's next entry, which ends the run. `is_wait_over`: this lane's overflow file waits for
    company no longer.
    """

    lane: Lane
    open_batch: Batch | None
    contents: Contents
    unmet: dict[int, list[int]]
    limits: Limits
    awaited_overflow: list[Awaited]
    is_wait_over: bool


def look_at_lane(transaction: Transaction, lane_id: int, *, now_ms: int, is_flushing: bool) -> Outlook:
    """The lane's open batch or its next rows."""
    lane = leases.read_lane(transaction, lane_id)
    open_batch = batches.find_open_batch(transaction, lane_id)
    first = lane.settled_position + 1
    last = first + _ROWS_READ if open_batch is None else open_batch.last_position
    contents = read_range(transaction, lane_id, first, last, limit=_ROWS_READ)
    unmet = barriers.list_unmet_barriers(transaction, lane_id, first, last)
    outlook = Outlook(lane, open_batch, contents, unmet, {}, [], is_wait_over=False)
    if lane.kind is LaneKind.RUN_DATA:
        outlook.limits = read_limits(transaction, now_ms=now_ms)
        if open_batch is None:
            _await_overflow(transaction, outlook)
    elif lane.kind is LaneKind.RUN_OVERFLOW:
        outlook.is_wait_over = is_wait_over(transaction, lane_id, is_flushing=is_flushing)
    return outlook


def _await_overflow(transaction: Transaction, outlook: Outlook) -> None:
    """An entry that ends the run waits for what the entries before it have made overflow."""
    entries = outlook.contents.entries
    position = outlook.lane.settled_position + 1
    if not entries or entries[0].position != position:
        return
    awaited = overflow.list_undelivered(transaction, outlook.lane.subject_id, entries[0].operation)
    if awaited:
        outlook.awaited_overflow = awaited
        lanes = [item.lane_id for item in awaited]
        outlook.unmet[position] = [*dict.fromkeys([*outlook.unmet.get(position, []), *lanes])]
