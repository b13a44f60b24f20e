"""API keys: a public prefix to find them by, and the hash of the secret."""

import json
from dataclasses import dataclass
from typing import Any

from server.database.engine import Transaction
from server.domain.access import Role
from server.domain.name_patterns import NamePatterns

_COLUMNS = (
    "key_id, name, prefix, secret_hash, role, created_at_ms, expires_at_ms, revoked_at_ms, last_used_ms,"
    " experiments"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its secret. `experiments` is what it is limited to, if it is."""

    key_id: int
    name: str
    prefix: str
    secret_hash: bytes
    role: Role
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    last_used_ms: int | None
    experiments: NamePatterns | None

    def is_valid(self, now_ms: int) -> bool:
        """Whether it opens anything now."""
        return self.revoked_at_ms is None and (self.expires_at_ms is None or now_ms < self.expires_at_ms)


def _key(row: tuple[Any, ...]) -> ApiKey:
    key_id, name, prefix, secret_hash, role, created, expires, revoked, used, experiments = row
    return ApiKey(
        key_id=key_id,
        name=name,
        prefix=prefix,
        secret_hash=bytes(secret_hash),
        role=Role(role),
        created_at_ms=created,
        expires_at_ms=expires,
        revoked_at_ms=revoked,
        last_used_ms=used,
        experiments=parse_experiments(experiments),
    )


def parse_experiments(stored: str | None) -> NamePatterns | None:
    """What a key is limited to, from its column."""
    return None if stored is None else NamePatterns(tuple(json.loads(stored)))


def _stored(experiments: NamePatterns | None) -> str | None:
    return None if experiments is None else json.dumps(experiments.patterns)


def insert(
    transaction: Transaction,
    *,
    name: str,
    prefix: str,
    secret_hash: bytes,
    role: Role,
    expires_at_ms: int | None,
    experiments: NamePatterns | None = None,
) -> None:
    """Store a new key."""
    transaction.run(
        "INSERT INTO api_keys (name, prefix, secret_hash, role, created_at_ms, expires_at_ms, experiments)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (name, prefix, secret_hash, role.value, transaction.now_ms, expires_at_ms, _stored(experiments)),
    )


def find_by_prefix(transaction: Transaction, prefix: str) -> ApiKey | None:
    """The key that has this prefix, revoked or not."""
    rows = transaction.rows(f"SELECT {_COLUMNS} FROM api_keys WHERE prefix = ?", (prefix,))
    return _key(rows[0]) if rows else None


def find_by_name(transaction: Transaction, name: str) -> ApiKey | None:
    """The key of this name, revoked or not."""
    rows = transaction.rows(f"SELECT {_COLUMNS} FROM api_keys WHERE name = ?", (name,))
    return _key(rows[0]) if rows else None


def delete(transaction: Transaction, key_id: int) -> None:
    """Forget a key, as if it had never been."""
    transaction.run("DELETE FROM api_keys WHERE key_id = ?", (key_id,))


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
