"""The tables of who may do what: API keys, and browsers that are logged in."""

from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text

from server.database.base import Id, clustered, metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("prefix", Text, nullable=False, unique=True),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("last_used_ms", BigInteger),
    Column("experiments", Text, comment="Name patterns, a JSON list; none: every experiment."),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_hash", LargeBinary, primary_key=True),
    Column("principal", Text),
    Column("role", Text, nullable=False),
    Column("key_id", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False, index=True),
    comment="Browsers that are logged in, by the SHA-256 of their cookie.",
    **clustered,
)
