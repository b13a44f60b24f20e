"""Lanes in pools, so that what takes long does not hold up what does not.

Files go through a pool of their own: eight uploads of gigabytes leave all the room there is to metrics.
Within a pool half of the room is given to the lanes that were served the longest time ago, half to those
with the least to deliver. So everyone has a turn, and a single point does not wait for a million others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.database.engine import Transaction
from server.journal.lanes import LaneKind
from server.journal.leases import Preference, list_claimable

_FILES = frozenset({LaneKind.RUN_ARTIFACTS, LaneKind.RUN_OVERFLOW})


@dataclass(frozen=True, slots=True)
class LanePool:
    """Kinds of lane that share workers and slots to send in."""

    name: str
    kinds: frozenset[LaneKind]
    workers: int
    sends: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """Lanes of one pool that can be claimed, by each preference."""

    least_recent: list[int] = field(default_factory=list)
    shortest: list[int] = field(default_factory=list)


def pools_for(sends: int) -> tuple[LanePool, ...]:
    """The pools of a process that sends so many batches of data at once."""
    data = frozenset(LaneKind) - _FILES
    return (
        LanePool("data", data, workers=3 * sends, sends=sends),
        LanePool("files", _FILES, workers=sends, sends=max(sends // 2, 1)),
    )


def list_candidates(
    transaction: Transaction, limits: Mapping[LanePool, int], *, now_ms: int, is_flushing: bool = False
) -> dict[LanePool, Candidates]:
    """For each pool that has room, up to so many lanes by each preference."""
    found = {}
    for pool, limit in limits.items():
        by_preference = [
            list_claimable(
                transaction,
                now_ms=now_ms,
                limit=limit,
                kinds=pool.kinds,
                preference=preference,
                is_flushing=is_flushing,
            )
            for preference in (Preference.LEAST_RECENT, Preference.SHORTEST)
        ]
        found[pool] = Candidates(*by_preference)
    return found


def choose(candidates: Candidates, room: int, excluded: frozenset[int]) -> list[int]:
    """Up to `room` lanes, taken from both lists in turn."""
    chosen: dict[int, None] = {}
    queues = [iter(candidates.least_recent), iter(candidates.shortest)]
    while queues and len(chosen) < room:
        for queue in list(queues):
            lane_id = next((id_ for id_ in queue if id_ not in excluded and id_ not in chosen), None)
            if lane_id is None:
                queues.remove(queue)
            elif len(chosen) < room:
                chosen[lane_id] = None
    return list(chosen)
