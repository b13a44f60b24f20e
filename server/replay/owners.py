"""Whose lanes may be taken because their owner is gone.

A lease ends by time. But where the owners hold locks in the database (`database.session`), a killed one is
known at once: its lock is free. It must be seen free for a moment, for a database that was restarted frees
all of them, and the living take theirs back.
"""

import os
import secrets
import socket

from server.database.engine import Transaction
from server.database.session import ReplicaSession, list_living
from server.domain.clock import Clock
from server.journal.leases import list_owners

_GRACE_SECONDS = 5.0
_LOCK_MARK = "#"


class Owner:
    """This process, as it is written into the lanes that it holds. Another one in each of its lives."""

    def __init__(self, session: ReplicaSession | None = None) -> None:
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._session = session

    @property
    def names(self) -> list[str]:
        """Every name it may have taken lanes under."""
        number = None if self._session is None else self._session.lock_number
        return [self._name, f"{self._name}{_LOCK_MARK}{number}"]

    @property
    def name(self) -> str:
        """The name to claim under now. It tells of the lock only while the lock is held."""
        is_watched = self._session is not None and self._session.is_held
        return self.names[1 if is_watched else 0]


class OwnerWatch:
    """Remembers since when owners are missing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._missing_since: dict[str, float] = {}

    def find_gone(self, transaction: Transaction) -> list[str]:
        """Owners of lanes whose locks have been free for a while."""
        now = self._clock.monotonic()
        missing = _list_missing(transaction)
        self._missing_since = {owner: self._missing_since.get(owner, now) for owner in missing}
        return [owner for owner, since in self._missing_since.items() if now - since >= _GRACE_SECONDS]


def _list_missing(transaction: Transaction) -> list[str]:
    owners = list_owners(transaction)
    if not owners:
        return []
    living = list_living(transaction)
    return [
        owner for owner in owners if _LOCK_MARK in owner and int(owner.partition(_LOCK_MARK)[2]) not in living
    ]
