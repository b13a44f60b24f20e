"""Telling a workspace that is unwell from one that is well but for one lane.

A run whose writes end in a server error for ever must not keep closing the gate for all others. The first
failure says nothing about whose it is. When others have delivered since and the lane fails again, the failure
is the lane's own: it alone waits, longer each time, until it delivers.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from server.domain.backoff import Backoff

_KEPT = 4096
_BACKOFF = Backoff(first=timedelta(seconds=4), ceiling=timedelta(minutes=5))


@dataclass(slots=True)
class _Trouble:
    deliveries: int
    failures: int = 0


class LaneTroubles:
    """One per workspace; forgotten when the process ends, and then found out again."""

    def __init__(self, *, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._deliveries = 0
        self._troubles: OrderedDict[int, _Trouble] = OrderedDict()

    def delivered(self, lane_id: int) -> None:
        """The workspace took something of this lane."""
        self._deliveries += 1
        self._troubles.pop(lane_id, None)

    def failed(self, lane_id: int) -> timedelta | None:
        """The workspace answered this lane with an error; how long it waits, None if it is not the lane's."""
        trouble = self._troubles.setdefault(lane_id, _Trouble(self._deliveries))
        self._troubles.move_to_end(lane_id)
        while len(self._troubles) > _KEPT:
            self._troubles.popitem(last=False)
        if trouble.deliveries == self._deliveries and not trouble.failures:
            return None
        trouble.failures += 1
        return _BACKOFF.delay(trouble.failures, self._jitter)
