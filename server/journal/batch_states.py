"""Where a batch stands."""

from enum import StrEnum

EMPTY_READS_NEEDED = 3
"""How often an uncertain batch must have been looked for in vain before it counts as not applied."""


class BatchState(StrEnum):
    """Where a batch stands."""

    FIXED = "fixed"
    """Written down, and definitely not applied: to be sent."""
    SENT = "sent"
    """On its way; after a restart it is uncertain."""
    UNCERTAIN = "uncertain"
    """Sent, outcome unknown: to be read back."""
