"""Overflow, learned limits, recognised resends, the size of the backlog, restored journals."""

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


class _Upload(msgspec.Struct):
    """What schema 0001 wrote of an upload, as far as it matters here."""

    size_bytes: int
    spool_name: str | None


def upgrade() -> None:
    for name in ("uncertain_through", "restored_through", "undelivered_bytes"):
        op.add_column("lanes", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_index(
        "ix_lanes_lease_owner",
        "lanes",
        ["lease_owner"],
        sqlite_where=sa.text("lease_owner IS NOT NULL"),
        postgresql_where=sa.text("lease_owner IS NOT NULL"),
    )
    op.add_column("runs", sa.Column("overflow_lane_id", sa.BigInteger(), nullable=True))
    op.add_column("runs", sa.Column("outlived_ms", sa.BigInteger(), nullable=True))
    _let_runs_follow_their_experiment()
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
    op.add_column("parked", sa.Column("decision_reason", sa.Text(), nullable=True))
    for name, column, condition in (
        ("ix_parked_reason", "reason", "decision IS NULL"),
        ("ix_parked_dropped", "lane_id", "decision = 'dropped'"),
    ):
        op.create_index(
            name, "parked", [column], sqlite_where=sa.text(condition), postgresql_where=sa.text(condition)
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
        sa.Column("body_hash", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_accepted_creates")),
        comment="Recent creates, by what a client that lost the answer would send again, or by its own key.",
        sqlite_with_rowid=False,
    )
    for column in ("subject", "expires_at_ms"):
        op.create_index(op.f(f"ix_accepted_creates_{column}"), "accepted_creates", [column], unique=False)
    op.create_table(
        "commit_marks",
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("marked_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name=op.f("pk_commit_marks")),
        comment="The last group each writer committed, for a connection lost during COMMIT. Postgres.",
        sqlite_with_rowid=False,
    )
    _make_upload_table()


def _make_upload_table() -> None:
    op.create_table(
        "direct_uploads",
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("upstream_path", sa.Text(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column(
            "is_new", sa.SmallInteger(), nullable=False, comment="The workspace had no such path before."
        ),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_direct_uploads")),
        comment="Under way; a row leaves when its upload is completed, aborted, or a day old.",
        sqlite_with_rowid=False,
    )
    for column in ("path", "created_at_ms"):
        op.create_index(op.f(f"ix_direct_uploads_{column}"), "direct_uploads", [column], unique=False)


def _let_runs_follow_their_experiment() -> None:
    """Runs that were deleted with their experiment are deleted as long as it is, and need no mark."""
    op.execute(
        "UPDATE runs SET lifecycle_stage = 'active', deleted_at_ms = NULL"
        " WHERE lifecycle_stage = 'deleted' AND EXISTS (SELECT 1 FROM experiments"
        " WHERE experiments.experiment_id = runs.experiment_id"
        " AND experiments.lifecycle_stage = 'deleted'"
        " AND experiments.last_update_time_ms = runs.deleted_at_ms)"
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
    _weigh_inline_artifacts()


def _weigh_inline_artifacts() -> None:
    """The bytes of a small artifact lie in the database until it is delivered."""
    connection = op.get_bind()
    uploads = connection.exec_driver_sql(
        "SELECT lane_id, payload FROM journal_entries WHERE kind = 'UploadArtifact'"
    )
    inline: dict[int, int] = {}
    for lane_id, payload in uploads:
        try:
            upload = msgspec.msgpack.decode(bytes(payload), type=_Upload)
        except msgspec.MsgspecError:
            continue  # the server parks what it cannot read
        if upload.spool_name is None:
            inline[lane_id] = inline.get(lane_id, 0) + upload.size_bytes
    for lane_id, size_bytes in inline.items():
        connection.execute(
            sa.text("UPDATE lanes SET undelivered_bytes = undelivered_bytes + :added WHERE lane_id = :lane"),
            {"added": size_bytes, "lane": lane_id},
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
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("opened_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("delivered_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("run_pk", "file_number", name=op.f("pk_overflow_files")),
        comment="mlproxy/overflow-N.jsonl of a run. Open files take more entries; closed ones are fixed.",
        sqlite_with_rowid=False,
    )
