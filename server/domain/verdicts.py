"""What a failed attempt to deliver asks of us."""

from enum import StrEnum


class Verdict(StrEnum):
    """The answer to "what now?" after an attempt that was not a plain success."""

    RETRY = "retry"
    """Definitely not applied (refused connection, throttled): send it again after a wait."""
    WAIT = "wait"
    """Nothing is wrong with the write; our own standing is (credential, permission): hold all."""
    ALREADY_APPLIED = "already_applied"
    """The workspace says it has this already."""
    UNCERTAIN = "uncertain"
    """Sent, and nobody knows whether it took effect: read back before it is sent again."""
    PARK = "park"
    """Refused for good: set aside with the workspace's own words."""
