"""The webhook tables of the first released schema."""

import sqlalchemy as sa
from alembic import op


def create_tables() -> None:
    """Create them."""
    op.create_table(
        "webhook_deliveries",
        sa.Column("delivery_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("webhook_pk", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_pk", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("delivery_id", name=op.f("uq_webhook_deliveries_delivery_id")),
        comment="Committed with the write it tells of; a row leaves once it is delivered or given up.",
    )
    op.create_index(
        "ix_webhook_deliveries_due", "webhook_deliveries", ["not_before_ms", "delivery_pk"], unique=False
    )
    op.create_index(
        op.f("ix_webhook_deliveries_webhook_pk"), "webhook_deliveries", ["webhook_pk"], unique=False
    )
    op.create_table(
        "webhook_events",
        sa.Column("webhook_pk", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("webhook_pk", "position", name=op.f("pk_webhook_events")),
        comment="What a webhook is told about, as entity.action; the first is what a test sends.",
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_webhook_events_event"), "webhook_events", ["event"], unique=False)
    op.create_table(
        "webhooks",
        sa.Column("webhook_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column(
            "secret", sa.Text(), nullable=True, comment="Signs what is sent; never shown, never logged."
        ),
        sa.Column("creation_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_updated_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("webhook_pk", name=op.f("pk_webhooks")),
        sa.UniqueConstraint("webhook_id", name=op.f("uq_webhooks_webhook_id")),
        sqlite_autoincrement=True,
    )
