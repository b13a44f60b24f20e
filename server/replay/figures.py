"""What delivery reports of itself, for whoever counts."""

from typing import Protocol


class Figures(Protocol):
    """Counts what becomes of attempts to deliver."""

    def observe_attempt(self, outcome: str, failure_class: str | None = None) -> None:
        """One attempt ended: `delivered`, or a verdict on a failure of that class."""

    def observe_lease_lost(self) -> None:
        """A lane was given up in the middle of its delivery, since its lease had passed to somebody else."""
