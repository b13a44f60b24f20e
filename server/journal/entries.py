"""Appending entries to lanes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.database.engine import Transaction
from server.database.together import Change, Row, insert
from server.domain.entities import PointKey
from server.domain.operations import Operation
from server.journal.blocks import INSERT_BLOCK, Stretches, pack
from server.journal.codec import encode_operation
from server.journal.lanes import NewLane, advance, lock_lanes, open_lanes
from server.journal.weights import POINT_BYTES, entry_bytes

INSERT_ENTRY = insert(
    "journal_entries",
    {
        "lane_id": "BIGINT",
        "position": "BIGINT",
        "kind": "TEXT",
        "payload": "BYTEA",
        "accepted_at_ms": "BIGINT",
        "principal": "TEXT",
    },
)
INSERT_BARRIER = insert(
    "barriers",
    {
        "lane_id": "BIGINT",
        "position": "BIGINT",
        "awaited_lane_id": "BIGINT",
        "awaited_position": "BIGINT",
    },
)


@dataclass(frozen=True, slots=True)
class Awaited:
    """A barrier's condition: that lane has settled up to that position."""

    lane_id: int
    position: int


def append_entry(
    transaction: Transaction,
    lane_id: int,
    operation: Operation,
    *,
    principal: str | None,
    awaits: Sequence[Awaited] = (),
    awaits_end_of: Sequence[int] = (),
) -> int:
    """Append one operation to a lane; its position.

    `awaits_end_of` names lanes that must settle all they hold at this moment.
    """
    appends = Appends(transaction, [lane_id, *awaits_end_of])
    position = appends.append(
        lane_id, operation, principal=principal, awaits=awaits, awaits_end_of=awaits_end_of
    )
    appends.write()
    return position


class Appends:
    """Appends to several lanes, written together: positions follow the order of the calls.

    The lanes that are named at the start are locked in one order, those that come later as they come. Those
    `opened` are made with what was appended to them, under ids taken for them in this transaction
    (`database.ids`); those `held` are locked already, and end at the positions that are given.
    """

    def __init__(
        self,
        transaction: Transaction,
        lane_ids: Iterable[int] = (),
        *,
        opened: Mapping[int, NewLane] | None = None,
        held: Mapping[int, int] | None = None,
    ) -> None:
        self._transaction = transaction
        self._opened = opened or {}
        self._last = lock_lanes(transaction, lane_ids) | dict.fromkeys(self._opened, 0) | dict(held or {})
        self._advanced: dict[int, int] = {}
        self._added_bytes: dict[int, int] = {}
        self._entries: list[tuple[int, int, str, bytes, int, str | None]] = []
        self._points: Stretches[PointKey] = Stretches()
        self._barriers: list[tuple[int, int, int, int]] = []

    def append(
        self,
        lane_id: int,
        operation: Operation,
        *,
        principal: str | None,
        awaits: Sequence[Awaited] = (),
        awaits_end_of: Sequence[int] = (),
    ) -> int:
        """Append one operation; its position.

        `awaits_end_of` names lanes that must settle all they hold, what was appended here before included.
        """
        kind, payload = encode_operation(operation)
        position = self.last_position(lane_id) + 1
        self.advance(lane_id, position, entry_bytes(operation, payload))
        now_ms = self._transaction.now_ms
        self._entries.append((lane_id, position, kind, payload, now_ms, principal))
        if awaits or awaits_end_of:
            ends = [Awaited(awaited, self.last_position(awaited)) for awaited in awaits_end_of]
            self._barriers += [
                (lane_id, position, item.lane_id, item.position) for item in [*awaits, *ends] if item.position
            ]
        return position

    def append_point(self, lane_id: int, point: PointKey) -> int:
        """Append one metric point; its position."""
        position = self.last_position(lane_id) + 1
        self.advance(lane_id, position, POINT_BYTES)
        self._points.add(lane_id, position, [point])
        return position

    def write(self) -> None:
        """Write what was appended. To be called once, at the end."""
        self._transaction.run_all(self.changes())

    def changes(self) -> list[Change]:
        """What writes all that was appended, instead of `write`: for who makes other changes with it."""
        there = {lane: last for lane, last in self._advanced.items() if lane not in self._opened}
        return [
            (INSERT_ENTRY, self._entries),
            (INSERT_BLOCK, self._blocks()),
            (INSERT_BARRIER, self._barriers),
            advance(self._transaction, there, self._added_bytes),
            open_lanes(self._transaction, self._opened, self._advanced, self._added_bytes),
        ]

    def _blocks(self) -> list[Row]:
        now_ms = self._transaction.now_ms
        return [
            row
            for lane_id, stretch in self._points
            for row in pack(lane_id, stretch.first, stretch.points, accepted_at_ms=now_ms)
        ]

    def advance(self, lane_id: int, position: int, added_bytes: int) -> None:
        """Positions up to this one are given out, to rows of so many bytes that the caller writes."""
        self._last[lane_id] = self._advanced[lane_id] = position
        self._added_bytes[lane_id] = self._added_bytes.get(lane_id, 0) + added_bytes

    def last_position(self, lane_id: int) -> int:
        """The position of the lane that was given out last."""
        if lane_id not in self._last:
            self._last |= lock_lanes(self._transaction, [lane_id])
        return self._last[lane_id]
