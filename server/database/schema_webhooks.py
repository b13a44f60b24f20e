"""The tables of webhooks, and of what has still to be sent to them."""

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, text

from server.database.base import Id, clustered, metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_pk", Id, primary_key=True),
    Column("webhook_id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text),
    Column("status", Text, nullable=False),
    Column("secret", Text, comment="Signs what is sent; never shown, never logged."),
    Column("creation_timestamp_ms", BigInteger, nullable=False),
    Column("last_updated_timestamp_ms", BigInteger, nullable=False),
    Column("principal", Text),
    # What is still to be sent to a deleted webhook must never reach a later one.
    sqlite_autoincrement=True,
)

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("webhook_pk", BigInteger, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("event", Text, nullable=False, index=True),
    comment="What a webhook is told about, as entity.action; the first is what a test sends.",
    **clustered,
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("delivery_pk", Id, primary_key=True),
    Column("delivery_id", Text, nullable=False, unique=True),
    Column("webhook_pk", BigInteger, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("not_before_ms", BigInteger, nullable=False),
    comment="Committed with the write it tells of; a row leaves once it is delivered or given up.",
)
Index("ix_webhook_deliveries_due", webhook_deliveries.c.not_before_ms, webhook_deliveries.c.delivery_pk)
