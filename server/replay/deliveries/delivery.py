"""What every noun's delivery offers to the worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from server.domain.workspace_limits import LimitRefusal
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.leases import Lane
from server.journal.overflow import Overflowed


@dataclass(frozen=True, slots=True)
class SettleTimes:
    """How long something must stay unseen before it counts as absent."""

    content: timedelta
    marker: timedelta


@dataclass(frozen=True, slots=True)
class Division:
    """A batch, parted: what is to be sent, and what the workspace's limits cannot hold."""

    to_send: Contents
    overflow: Sequence[Overflowed] = ()

    def beside(self, overflow: Sequence[Overflowed]) -> "Division":
        """The same, with rows that were set aside before."""
        return Division(self.to_send, [*overflow, *self.overflow])


class Delivery(Protocol):
    """Sends one batch, and reads back what became of it."""

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        """What of the lane's next rows is to be sent, and what overflows.

        `refusal` is how the workspace has just refused exactly these rows.

        Raises:
            UpstreamFailure: the workspace could not be asked what it holds; nothing was sent.
        """
        ...

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Send it once.

        Raises:
            UpstreamFailure: with the verdict on what to do now.
        """
        ...

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        """Of an uncertain batch, what the workspace does not show.

        Raises:
            UpstreamFailure: the workspace could not be read.
        """
        ...

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        """How long absence must last before it is believed; zero where sending twice is harmless."""
        ...
