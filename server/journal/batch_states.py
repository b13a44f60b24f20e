"""Where a batch stands."""

from enum import StrEnum


class BatchState(StrEnum):
    """Where a batch stands."""

    FIXED = "fixed"
    """Written down, and definitely not applied: to be sent."""
    SENT = "sent"
    """On its way; after a restart it is uncertain."""
    UNCERTAIN = "uncertain"
    """Sent, outcome unknown: to be read back."""
