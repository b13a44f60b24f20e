"""Where a create came from, so that the same one sent again can be told from another one like it."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


class Connection(Protocol):
    """The client's own connection, as long as the transport below keeps it."""

    def is_closing(self) -> bool:
        """Whether either end has given it up."""
        ...


def _is_never_told(_: Callable[[], None]) -> None:
    """Nobody sends an answer to this origin."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sent a create, from where, and exactly what.

    `address` is the client's own, past the reverse proxies that are trusted. `connection` is absent where
    something else than the client may be at its other end. What is given to `when_told` is called once the
    answer has been handed to a connection that still stood.
    """

    principal: str | None = None
    address: str | None = None
    body_hash: bytes = b""
    idempotency_key: str | None = None
    connection: Connection | None = None
    when_told: Callable[[Callable[[], None]], None] = _is_never_told

    def fingerprint(self, kind: str) -> bytes | None:
        """What a client that lost the answer would send again; None where its address is not known."""
        if not self.address:
            return None
        return _digest(
            [b"create", kind.encode(), _told(self.principal), self.address.encode(), self.body_hash]
        )

    def key_fingerprint(self, kind: str) -> bytes | None:
        """The client's own key, which holds for one principal and one kind of create; None without one."""
        if self.idempotency_key is None:
            return None
        return _digest([b"key", kind.encode(), _told(self.principal), self.idempotency_key.encode()])


def _told(principal: str | None) -> bytes:
    return b"" if principal is None else b"=" + principal.encode()


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()
