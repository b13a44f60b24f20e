"""What every noun's delivery offers to the worker."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.leases import Lane


@dataclass(frozen=True, slots=True)
class SettleTimes:
    """How long something must stay unseen before it counts as absent."""

    content: timedelta
    marker: timedelta


class Delivery(Protocol):
    """Sends one batch, and reads back what became of it."""

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
