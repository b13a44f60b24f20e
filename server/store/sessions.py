"""Browser logins. The cookie's value is stored as its hash only."""

from dataclasses import dataclass

from server.database.engine import Transaction
from server.domain.access import Role


@dataclass(frozen=True, slots=True)
class Session:
    """A login. One that was made with a key ends with the key."""

    principal: str | None
    role: Role
    expires_at_ms: int


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
        "SELECT sessions.principal, sessions.role, sessions.expires_at_ms FROM sessions"
        " LEFT JOIN api_keys ON api_keys.key_id = sessions.key_id"
        " WHERE sessions.session_hash = ? AND sessions.expires_at_ms > ? AND api_keys.revoked_at_ms IS NULL"
        " AND (api_keys.expires_at_ms IS NULL OR api_keys.expires_at_ms > ?)",
        (session_hash, now_ms, now_ms),
    )
    return Session(rows[0][0], Role(rows[0][1]), rows[0][2]) if rows else None


def delete(transaction: Transaction, session_hash: bytes) -> None:
    """End a login."""
    transaction.run("DELETE FROM sessions WHERE session_hash = ?", (session_hash,))


def delete_expired(transaction: Transaction) -> None:
    """Forget logins that have ended by themselves."""
    transaction.run("DELETE FROM sessions WHERE expires_at_ms <= ?", (transaction.now_ms,))
