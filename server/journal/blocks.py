"""Blocks: undelivered metric points that follow each other in a lane, packed into one row.

A block's first bytes are a CRC-32 over its lane, its first position and its points; then come the points,
33 bytes each: series, step, timestamp (64-bit integers), value (a double) and a byte that is 1 where that is
NaN. `first_position` and `last_position` say which of the lane's positions they have. A block stays until
its last position is settled, so its first points may be settled already.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Generic, TypeVar

from server.database.together import Row, insert
from server.domain.entities import PointKey

MOST_POINTS = 28
"""In one block. A row of up to a kilobyte lies within SQLite's page, and below what Postgres stores apart."""

INSERT_BLOCK = insert(
    "journal_blocks",
    {
        "lane_id": "BIGINT",
        "first_position": "BIGINT",
        "last_position": "BIGINT",
        "points": "BYTEA",
        "accepted_at_ms": "BIGINT",
    },
)

_ONE_POINT = struct.Struct("<qqqdB")
_PLACE = struct.Struct("<qq")
_CHECKSUM_BYTES = 4

T = TypeVar("T")


@dataclass(slots=True)
class Stretch(Generic[T]):
    """Points that follow each other in a lane, from `first` on."""

    first: int
    points: list[T]


@dataclass(slots=True)
class Stretches(Generic[T]):
    """The points that a group of writes appends, by lane."""

    by_lane: dict[int, list[Stretch[T]]] = field(default_factory=dict)

    def add(self, lane_id: int, first: int, points: list[T]) -> None:
        """Append points; those that directly follow the last ones join them."""
        stretches = self.by_lane.setdefault(lane_id, [])
        if stretches and stretches[-1].first + len(stretches[-1].points) == first:
            stretches[-1].points += points
        else:
            stretches.append(Stretch(first, points))

    def __iter__(self) -> Iterator[tuple[int, Stretch[T]]]:
        """Each stretch with its lane."""
        return ((lane_id, stretch) for lane_id, stretches in self.by_lane.items() for stretch in stretches)


def pack(lane_id: int, first: int, points: Sequence[PointKey], *, accepted_at_ms: int) -> Iterator[Row]:
    """The rows (`INSERT_BLOCK`) that hold these points, whose positions begin with `first`."""
    for start in range(0, len(points), MOST_POINTS):
        held = points[start : start + MOST_POINTS]
        position = first + start
        body = _points_struct(len(held)).pack(*chain.from_iterable(held))
        packed = _checksum(lane_id, position, body) + body
        yield lane_id, position, position + len(held) - 1, packed, accepted_at_ms


@lru_cache(maxsize=MOST_POINTS)
def _points_struct(count: int) -> struct.Struct:
    return struct.Struct("<" + "qqqdB" * count)


def _checksum(lane_id: int, first: int, body: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(_PLACE.pack(lane_id, first))).to_bytes(4, "big")


def is_whole(lane_id: int, first: int, packed: bytes) -> bool:
    """Whether a block is what was written."""
    body = packed[_CHECKSUM_BYTES:]
    return packed[:_CHECKSUM_BYTES] == _checksum(lane_id, first, body)


def unpack(packed: bytes, count: int) -> list[PointKey] | None:
    """The points of a block that is said to hold so many; None where its length says otherwise."""
    if len(packed) != _CHECKSUM_BYTES + count * _ONE_POINT.size:
        return None
    return list(_ONE_POINT.iter_unpack(memoryview(packed)[_CHECKSUM_BYTES:]))


def may_hold(packed: bytes, series_id: int) -> bool:
    """Whether a block may hold points of a series; a quick look, that can find what is none."""
    return series_id.to_bytes(8, "little", signed=True) in packed
