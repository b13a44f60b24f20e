"""Recent creates, each under a fingerprint of the request that made it.

A row stands until it expires or until somebody names what was made: only the answer tells a client the
name, so whoever knows it has the answer. Rows under a client's own key (they have a body hash) stand until
they expire.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from server.database.engine import Transaction
from server.database.together import insert

_FIND = "SELECT kind, subject, body_hash, expires_at_ms FROM accepted_creates WHERE fingerprint = ?"
_CLAIM = (
    "INSERT INTO accepted_creates (fingerprint, kind, subject, expires_at_ms) VALUES (?, '', '', 0)"
    " ON CONFLICT (fingerprint) DO NOTHING"
)
_RECORD = (
    "UPDATE accepted_creates SET kind = ?, subject = ?, body_hash = ?, expires_at_ms = ?"
    " WHERE fingerprint = ?"
)
_NAMED = " FROM accepted_creates WHERE body_hash IS NULL AND subject"
_PURGE = (
    "DELETE FROM accepted_creates WHERE fingerprint IN (SELECT fingerprint FROM accepted_creates"
    " WHERE expires_at_ms < ? ORDER BY expires_at_ms LIMIT ?)"
)


_CLAIM_TOGETHER = insert(
    "accepted_creates",
    {
        "fingerprint": "BYTEA",
        "kind": "TEXT",
        "subject": "TEXT",
        "body_hash": "BYTEA",
        "expires_at_ms": "BIGINT",
    },
    "ON CONFLICT (fingerprint) DO NOTHING",
)


@dataclass(frozen=True, slots=True)
class AcceptedCreate:
    """A create that was answered, and what it made. `body_hash` is kept for a client's own key."""

    kind: str
    subject: str
    body_hash: bytes | None
    expires_at_ms: int


def claim(transaction: Transaction, fingerprint: bytes) -> AcceptedCreate | None:
    """The create that stands under this fingerprint; None makes the caller the first, who must `record`.

    Whoever asks at the same time, on any replica, waits until this transaction ends.
    """
    suffix = " FOR UPDATE" if transaction.is_postgres else ""
    while not transaction.run(_CLAIM, (fingerprint,)):
        rows = transaction.rows(_FIND + suffix, (fingerprint,))
        if not rows:
            continue  # taken away since the claim was refused
        kind, subject, body_hash, expires_at_ms = rows[0]
        if expires_at_ms < transaction.now_ms:
            return None
        return AcceptedCreate(kind, subject, None if body_hash is None else bytes(body_hash), expires_at_ms)
    return None


def claim_together(transaction: Transaction, creates: Mapping[bytes, AcceptedCreate]) -> set[bytes]:
    """Record creates that are about to be made; the fingerprints under which no other stood.

    Their subjects are new: nothing else stands for one of them. Whoever asks for the same at the same time,
    on any replica, waits until this transaction ends; always in one order, so that two never wait for each
    other.
    """
    rows = [
        (fingerprint, create.kind, create.subject, create.body_hash, create.expires_at_ms)
        for fingerprint, create in sorted(creates.items())
    ]
    if transaction.run_together(_CLAIM_TOGETHER, rows) == len(rows):
        return set(creates)
    subjects = [create.subject for create in creates.values()]
    claimed = transaction.rows_in("SELECT fingerprint FROM accepted_creates WHERE subject", subjects)
    return {bytes(row[0]) for row in claimed}


def record(transaction: Transaction, fingerprint: bytes, create: AcceptedCreate) -> None:
    """Say what the create under a claimed fingerprint has made."""
    transaction.run(
        _RECORD, (create.kind, create.subject, create.body_hash, create.expires_at_ms, fingerprint)
    )


def withdraw(transaction: Transaction, fingerprints: Iterable[bytes]) -> None:
    """Let nothing stand under these fingerprints."""
    transaction.run_in("DELETE FROM accepted_creates WHERE fingerprint", sorted(fingerprints))


def list_unnamed(transaction: Transaction, subjects: Iterable[str]) -> set[str]:
    """Which of these were made lately and not named by anybody, as far as the table knows."""
    return {row[0] for row in transaction.rows_in(f"SELECT subject{_NAMED}", subjects)}


def forget_named(transaction: Transaction, subjects: Iterable[str]) -> None:
    """Somebody has named these: a create like theirs is another one from now on."""
    transaction.run_in(f"DELETE{_NAMED}", subjects)


def purge(transaction: Transaction, *, limit: int) -> int:
    """Remove expired rows, at most `limit`; how many."""
    return transaction.run(_PURGE, (transaction.now_ms, limit))
