"""How full something bounded is, and what a client is told when it is too full.

Below 85 % everything is taken in. From there on clients are asked to come again later: 429, the one
status that every stock client repeats on every call. From 95 % on they are refused: 507, which none
repeats. What lies between is also the reserve for calls that end a run.
"""

from enum import StrEnum

from server.domain.errors import ErrorCode, MlflowError

_SOFT = 0.85
_HARD = 0.95
_INSUFFICIENT_STORAGE = 507


class Fullness(StrEnum):
    """What a bounded store takes in at this moment."""

    HAS_ROOM = "has_room"
    SOFT_FULL = "soft_full"
    HARD_FULL = "hard_full"


def fullness_of(used: int, limit: int) -> Fullness:
    """How full a store is that holds `used` of at most `limit`."""
    if used < soft_limit(limit):
        return Fullness.HAS_ROOM
    return Fullness.SOFT_FULL if used < limit * _HARD else Fullness.HARD_FULL


def soft_limit(limit: int) -> int:
    """From where on clients are asked to come again later."""
    return int(limit * _SOFT)


def come_again(message: str, *, seconds: float) -> MlflowError:
    """A refusal that may pass (429): the client is asked to send the same once more, after so long."""
    headers = {"Retry-After": str(max(round(seconds), 1))}
    return MlflowError(ErrorCode.RESOURCE_EXHAUSTED, message, headers=headers)


def no_room(message: str) -> MlflowError:
    """A refusal that will not pass soon (507)."""
    return MlflowError(ErrorCode.RESOURCE_EXHAUSTED, message, status=_INSUFFICIENT_STORAGE)
