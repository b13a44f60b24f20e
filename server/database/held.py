"""Connections that are kept.

A group is written, and a file found, in fewer microseconds than a pool takes to give out a connection and to
take it back: the writer keeps its own, and those who read keep theirs. Whoever else writes or reads meanwhile
(start-up, a restore, a backup) gets another, which is kept too.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError


class HeldConnections:
    """Connections with nothing under way, the last one used first. `connect` makes one more."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._free: deque[Connection] = deque()

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """A connection for one transaction. It is kept unless it was lost, or a transaction is left on it."""
        try:
            connection = self._free.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        finally:
            if connection.invalidated or connection.in_transaction():
                _close(connection)
            else:
                self._free.append(connection)

    def close(self) -> None:
        """Close those that are free: the database has gone away, or this process ends."""
        while self._free:
            _close(self._free.pop())


def _close(connection: Connection) -> None:
    """For good: its settings are its own, and no pool shall have it back."""
    with suppress(SQLAlchemyError):  # what it was connected to may be gone
        connection.invalidate()
    connection.close()
