"""Browser logins. The cookie's value is stored as its hash only."""

from dataclasses import dataclass

from server.database.engine import Transaction
from server.domain.access import Role
from server.domain.name_patterns import NamePatterns
from server.store.api_keys import parse_experiments


@dataclass(frozen=True, slots=True)
class Session:
    """A login. One that was made with a key ends with the key, and is limited as the key is."""

    principal: str | None
    role: Role
    expires_at_ms: int
    experiments: NamePatterns | None = None


def insert(transaction: Transaction, session_hash: bytes, session: Session, *, key_id: int | None) -> None:
    """Store a login."""
    transaction.run(
        "INSERT INTO sessions (session_hash, principal, role, key_id, created_at_ms, expires_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            session_hash,
            session.principal,
            session.role.value,
            key_id,
            transaction.now_ms,
            session.expires_at_ms,
        ),
    )


def find_valid(transaction: Transaction, session_hash: bytes, now_ms: int) -> Session | None:
    """The login, if it and the key it was made with still hold."""
    rows = transaction.rows(
        "SELECT sessions.principal, sessions.role, sessions.expires_at_ms, api_keys.experiments FROM sessions"
        " LEFT JOIN api_keys ON api_keys.key_id = sessions.key_id"
        " WHERE sessions.session_hash = ? AND sessions.expires_at_ms > ? AND api_keys.revoked_at_ms IS NULL"
        " AND (api_keys.expires_at_ms IS NULL OR api_keys.expires_at_ms > ?)",
        (session_hash, now_ms, now_ms),
    )
    if not rows:
        return None
    principal, role, expires_at_ms, limits = rows[0]
    return Session(principal, Role(role), expires_at_ms, parse_experiments(limits))


def delete(transaction: Transaction, session_hash: bytes) -> None:
    """End a login."""
    transaction.run("DELETE FROM sessions WHERE session_hash = ?", (session_hash,))


def delete_of_key(transaction: Transaction, key_id: int) -> None:
    """End every login that was made with a key."""
    transaction.run("DELETE FROM sessions WHERE key_id = ?", (key_id,))


def delete_expired(transaction: Transaction) -> None:
    """Forget logins that have ended by themselves."""
    transaction.run("DELETE FROM sessions WHERE expires_at_ms <= ?", (transaction.now_ms,))
