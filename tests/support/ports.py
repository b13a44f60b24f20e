"""Ports for the servers of tests, each given to one test only.

A port that the system has just called free may be taken again before the server that is to have it has
started, or while it is restarted: by another test's connection, or by another test that asks. So ports are
taken from below the range that the system gives away by itself, and each is held, for every process on this
machine that asks here, until the process that asked has ended.
"""

import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from functools import cache

_PORTS = range(12_000, 32_000)
_TRIES = 2_000
_given: set[int] = set()


class NoFreePortError(Exception):
    """None of the ports that were tried is free."""


def free_port() -> int:
    """A loopback port that nobody listens on and that is given to nobody else while this process lives.

    Raises:
        NoFreePortError: so many in a row were taken that something else must be wrong.
    """
    for port in random.sample(_PORTS, _TRIES):
        if port not in _given and _is_reserved(port) and _can_be_bound(port):
            _given.add(port)
            return port
    raise NoFreePortError(f"{_TRIES} ports from {_PORTS.start} to {_PORTS.stop} are taken")


@cache
def _register() -> int:
    """A file that all processes of this user share: its n-th byte is locked by who was given port n."""
    file = os.path.join(tempfile.gettempdir(), f"mlproxy-test-ports-{os.getuid()}")
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_reserved(port: int) -> bool:
    """Whether the port is now this process's; the lock ends with the process, however that ends."""
    with suppress(OSError):
        fcntl.lockf(_register(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        return True
    return False


def _can_be_bound(port: int) -> bool:
    with suppress(OSError), socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        return True
    return False
