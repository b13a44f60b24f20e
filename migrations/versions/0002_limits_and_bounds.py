"""Overflow, learned limits, recognised resends, the size of the backlog, restored journals."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("uncertain_through", "undelivered_bytes"):
        op.add_column("lanes", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("runs", sa.Column("overflow_lane_id", sa.BigInteger(), nullable=True))
    for table in ("runs", "logged_models", "model_versions"):
        op.drop_column(table, "create_fingerprint")
    _weigh_the_backlog()
    op.create_index(
        "ix_parked_undecided",
        "parked",
        ["parked_id"],
        sqlite_where=sa.text("decision IS NULL"),
        postgresql_where=sa.text("decision IS NULL"),
    )
    _make_overflow_tables()
    op.create_table(
        "workspace_limits",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("learned_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workspace_limits")),
        comment="Limits the workspace was seen to have, with its own words.",
    )
    op.create_table(
        "accepted_creates",
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_accepted_creates")),
        comment="Recent creates, by what a client that lost the answer would send again.",
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_accepted_creates_created_at_ms"), "accepted_creates", ["created_at_ms"], unique=False
    )


def _weigh_the_backlog() -> None:
    """What is undelivered at this moment counts as it would have from the start."""
    op.execute(
        "UPDATE lanes SET undelivered_bytes ="
        " (SELECT coalesce(sum(length(payload) + 64), 0) FROM journal_entries"
        " WHERE journal_entries.lane_id = lanes.lane_id)"
        " + 64 * (SELECT count(*) FROM journal_points WHERE journal_points.lane_id = lanes.lane_id)"
        " WHERE settled_position < last_position"
    )


def _make_overflow_tables() -> None:
    op.drop_table("overflow")  # nothing has ever written it
    op.create_table(
        "overflow",
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("run_pk", sa.BigInteger(), nullable=False),
        sa.Column("file_number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("limit_name", sa.Text(), nullable=False),
        sa.Column("accepted_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lane_id", "position", name=op.f("pk_overflow")),
        comment="What the workspace's limits cannot hold, until the file it goes into is delivered.",
        sqlite_with_rowid=False,
    )
    op.create_index("ix_overflow_file", "overflow", ["run_pk", "file_number"], unique=False)
    op.create_table(
        "overflow_files",
        sa.Column("run_pk", sa.BigInteger(), nullable=False),
        sa.Column("file_number", sa.Integer(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("opened_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("delivered_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("run_pk", "file_number", name=op.f("pk_overflow_files")),
        comment="mlproxy/overflow-N.jsonl of a run. Open files take more entries; closed ones are fixed.",
        sqlite_with_rowid=False,
    )
