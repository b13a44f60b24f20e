"""API keys: a public prefix to find them by, and the hash of the secret."""

from dataclasses import dataclass
from typing import Any

from server.database.engine import Transaction
from server.domain.access import Role

_COLUMNS = (
    "key_id, name, prefix, secret_hash, role, created_at_ms, expires_at_ms, revoked_at_ms, last_used_ms"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its secret."""

    key_id: int
    name: str
    prefix: str
    secret_hash: bytes
    role: Role
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    last_used_ms: int | None

    def is_valid(self, now_ms: int) -> bool:
        """Whether it opens anything now."""
        return self.revoked_at_ms is None and (self.expires_at_ms is None or now_ms < self.expires_at_ms)


def _key(row: tuple[Any, ...]) -> ApiKey:
    key_id, name, prefix, secret_hash, role, *times = row
    return ApiKey(key_id, name, prefix, bytes(secret_hash), Role(role), *times)


def insert(
    transaction: Transaction,
    *,
    name: str,
    prefix: str,
    secret_hash: bytes,
    role: Role,
    expires_at_ms: int | None,
) -> None:
    """Store a new key."""
    transaction.run(
        "INSERT INTO api_keys (name, prefix, secret_hash, role, created_at_ms, expires_at_ms) VALUES"
        " (?, ?, ?, ?, ?, ?)",
        (name, prefix, secret_hash, role.value, transaction.now_ms, expires_at_ms),
    )


def find_by_prefix(transaction: Transaction, prefix: str) -> ApiKey | None:
    """The key that has this prefix, revoked or not."""
    rows = transaction.rows(f"SELECT {_COLUMNS} FROM api_keys WHERE prefix = ?", (prefix,))
    return _key(rows[0]) if rows else None


def list_all(transaction: Transaction) -> list[ApiKey]:
    """Every key, oldest first."""
    return [_key(row) for row in transaction.rows(f"SELECT {_COLUMNS} FROM api_keys ORDER BY key_id")]


def revoke(transaction: Transaction, name: str) -> bool:
    """Close a key for good; whether there was one to close."""
    return (
        transaction.run(
            "UPDATE api_keys SET revoked_at_ms = ? WHERE name = ? AND revoked_at_ms IS NULL",
            (transaction.now_ms, name),
        )
        > 0
    )


def touch(transaction: Transaction, key_id: int) -> None:
    """Note that a key was used now."""
    transaction.run("UPDATE api_keys SET last_used_ms = ? WHERE key_id = ?", (transaction.now_ms, key_id))
