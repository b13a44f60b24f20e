"""The first released schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import initial_evaluation, initial_traces, initial_webhooks

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_used_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("name", name=op.f("uq_api_keys_name")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
    op.create_table(
        "artifact_roots",
        sa.Column("root_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "prefix", sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("run_pk", sa.BigInteger(), nullable=True),
        sa.Column("model_pk", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("root_id", name=op.f("pk_artifact_roots")),
        sa.UniqueConstraint("prefix", name=op.f("uq_artifact_roots_prefix")),
        comment="The folder of one run, logged model or anything else; prefix without outer slashes.",
    )
    op.create_index(op.f("ix_artifact_roots_model_pk"), "artifact_roots", ["model_pk"], unique=False)
    op.create_index(op.f("ix_artifact_roots_run_pk"), "artifact_roots", ["run_pk"], unique=False)
    op.create_table(
        "artifacts",
        sa.Column("root_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "path", sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("md5", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("spool_name", sa.Text(), nullable=True),
        sa.Column("upstream_path", sa.Text(), nullable=True),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("root_id", "path", name=op.f("pk_artifacts")),
        comment="Bytes are in content, else in the spool, else upstream under upstream_path.",
        sqlite_with_rowid=False,
    )
    op.create_index("ix_artifacts_spool_name", "artifacts", ["spool_name"], unique=False)
    op.create_table(
        "barriers",
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("awaited_lane_id", sa.BigInteger(), nullable=False),
        sa.Column("awaited_position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lane_id", "position", "awaited_lane_id", name=op.f("pk_barriers")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_barriers_awaited", "barriers", ["awaited_lane_id"], unique=False)
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.Column("first_position", sa.BigInteger(), nullable=False),
        sa.Column("last_position", sa.BigInteger(), nullable=False),
        sa.Column("parent_batch_id", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("empty_reads", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_empty_read_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_batches")),
    )
    op.create_index(op.f("ix_batches_lane_id"), "batches", ["lane_id"], unique=False)
    op.create_table(
        "dataset_input_tags",
        sa.Column("input_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("input_pk", "key", name=op.f("pk_dataset_input_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "dataset_inputs",
        sa.Column("input_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_pk", sa.BigInteger(), nullable=False),
        sa.Column("dataset_pk", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("input_pk", name=op.f("pk_dataset_inputs")),
        sa.UniqueConstraint("run_pk", "dataset_pk", name=op.f("uq_dataset_inputs_run_pk_dataset_pk")),
    )
    op.create_index(op.f("ix_dataset_inputs_dataset_pk"), "dataset_inputs", ["dataset_pk"], unique=False)
    op.create_table(
        "datasets",
        sa.Column("dataset_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=True),
        sa.Column("profile", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("dataset_pk", name=op.f("pk_datasets")),
        sa.UniqueConstraint(
            "experiment_id", "name", "digest", name=op.f("uq_datasets_experiment_id_name_digest")
        ),
    )
    op.create_table(
        "experiment_tags",
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("experiment_id", "key", name=op.f("pk_experiment_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_facts")),
        comment="One-row facts about this installation: journal generation, workspace delivered to.",
    )
    op.create_table(
        "journal_entries",
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("accepted_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("lane_id", "position", name=op.f("pk_journal_entries")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "journal_points",
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("is_nan", sa.SmallInteger(), nullable=False),
        sa.Column("accepted_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lane_id", "position", name=op.f("pk_journal_points")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lanes",
        sa.Column("lane_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.BigInteger(), nullable=False),
        sa.Column("last_position", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("settled_position", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("not_before_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_failure", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("lane_id", name=op.f("pk_lanes")),
    )
    op.create_index(
        "ix_lanes_pending",
        "lanes",
        ["lane_id"],
        unique=False,
        sqlite_where=sa.text("settled_position < last_position"),
        postgresql_where=sa.text("settled_position < last_position"),
    )
    op.create_table(
        "logged_model_metrics",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("run_pk", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("is_nan", sa.SmallInteger(), nullable=False),
        sa.Column("dataset_name", sa.Text(), nullable=True),
        sa.Column("dataset_digest", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            "model_id", "key", "timestamp_ms", "step", "run_pk", name=op.f("pk_logged_model_metrics")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "logged_model_params",
        sa.Column("model_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model_pk", "key", name=op.f("pk_logged_model_params")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "logged_model_tags",
        sa.Column("model_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model_pk", "key", name=op.f("pk_logged_model_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "logged_models",
        sa.Column("model_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("artifact_uri", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=True),
        sa.Column("model_type", sa.Text(), nullable=True),
        sa.Column("source_run_id", sa.Text(), nullable=True),
        sa.Column("lifecycle_stage", sa.Text(), nullable=False),
        sa.Column("creation_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_updated_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("upstream_folder", sa.Text(), nullable=True),
        sa.Column("born", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("create_fingerprint", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("model_pk", name=op.f("pk_logged_models")),
        sa.UniqueConstraint("model_id", name=op.f("uq_logged_models_model_id")),
    )
    op.create_index(op.f("ix_logged_models_experiment_id"), "logged_models", ["experiment_id"], unique=False)
    op.create_index(op.f("ix_logged_models_source_run_id"), "logged_models", ["source_run_id"], unique=False)
    op.create_table(
        "model_version_tags",
        sa.Column("model_pk", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model_pk", "version", "key", name=op.f("pk_model_version_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "model_versions",
        sa.Column("model_pk", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("creation_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_updated_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("current_stage", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("storage_location", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("run_link", sa.Text(), nullable=True),
        sa.Column("model_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=True),
        sa.Column("upstream_version", sa.Text(), nullable=True),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("create_fingerprint", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("model_pk", "version", name=op.f("pk_model_versions")),
    )
    op.create_index(op.f("ix_model_versions_run_id"), "model_versions", ["run_id"], unique=False)
    op.create_table(
        "overflow",
        sa.Column("overflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_pk", sa.BigInteger(), nullable=False),
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("limit_name", sa.Text(), nullable=False),
        sa.Column("file_number", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("overflow_id", name=op.f("pk_overflow")),
    )
    op.create_index(op.f("ix_overflow_run_pk"), "overflow", ["run_pk"], unique=False)
    op.create_table(
        "params",
        sa.Column("run_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_pk", "key", name=op.f("pk_params")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "parked",
        sa.Column("parked_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("run_pk", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("accepted_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("parked_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("parked_id", name=op.f("pk_parked")),
        sa.UniqueConstraint("lane_id", "position", name=op.f("uq_parked_lane_id_position")),
    )
    op.create_index(op.f("ix_parked_run_pk"), "parked", ["run_pk"], unique=False)
    op.create_table(
        "points",
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("is_nan", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "series_id", "step", "timestamp_ms", "value", "is_nan", name=op.f("pk_points")
        ),
        comment="Metric points; the key is MLflow's own identity of a point.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "registered_model_aliases",
        sa.Column("model_pk", sa.BigInteger(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model_pk", "alias", name=op.f("pk_registered_model_aliases")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "registered_model_tags",
        sa.Column("model_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model_pk", "key", name=op.f("pk_registered_model_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_models",
        sa.Column("run_pk", sa.BigInteger(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_pk", "direction", "model_id", "step", name=op.f("pk_run_models")),
        comment="Logged models that went into a run ('input') or came out of it ('output').",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "series",
        sa.Column("series_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("lowest_step", sa.BigInteger(), nullable=False),
        sa.Column("highest_step", sa.BigInteger(), nullable=False),
        sa.Column("lowest_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("highest_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("latest_step", sa.BigInteger(), nullable=False),
        sa.Column("latest_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("latest_value", sa.Double(), nullable=False),
        sa.Column("latest_is_nan", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("series_id", name=op.f("pk_series")),
        sa.UniqueConstraint("run_pk", "key", name=op.f("uq_series_run_pk_key")),
        comment="One metric of one run. The latest point is the highest by (step, timestamp, value).",
    )
    op.create_table(
        "tags",
        sa.Column("run_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_pk", "key", name=op.f("pk_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workspaces",
        sa.Column("workspace_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("first_delivery_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("address", name=op.f("uq_workspaces_address")),
    )
    op.create_table(
        "experiments",
        sa.Column("experiment_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("artifact_location", sa.Text(), nullable=False),
        sa.Column("lifecycle_stage", sa.Text(), nullable=False),
        sa.Column("creation_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_update_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("born", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=True),
        sa.Column("upstream_id", sa.Text(), nullable=True),
        sa.Column("upstream_name", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_experiments_workspace_id")
        ),
        sa.PrimaryKeyConstraint("experiment_id", name=op.f("pk_experiments")),
        sa.UniqueConstraint("name", name=op.f("uq_experiments_name")),
        sa.UniqueConstraint("upstream_id", name=op.f("uq_experiments_upstream_id")),
        sa.UniqueConstraint("upstream_name", name=op.f("uq_experiments_upstream_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "registered_models",
        sa.Column("model_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("creation_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_updated_timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_version", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("born", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=True),
        sa.Column("upstream_name", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_registered_models_workspace_id")
        ),
        sa.PrimaryKeyConstraint("model_pk", name=op.f("pk_registered_models")),
        sa.UniqueConstraint("name", name=op.f("uq_registered_models_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "runs",
        sa.Column("run_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("start_time_ms", sa.BigInteger(), nullable=True),
        sa.Column("end_time_ms", sa.BigInteger(), nullable=True),
        sa.Column("artifact_uri", sa.Text(), nullable=False),
        sa.Column("lifecycle_stage", sa.Text(), nullable=False),
        sa.Column("deleted_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("parent_run_id", sa.Text(), nullable=True),
        sa.Column("born", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=True),
        sa.Column("upstream_id", sa.Text(), nullable=True),
        sa.Column("create_way", sa.Text(), nullable=True),
        sa.Column("create_fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("data_lane_id", sa.BigInteger(), nullable=False),
        sa.Column("artifact_lane_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_runs_workspace_id")
        ),
        sa.PrimaryKeyConstraint("run_pk", name=op.f("pk_runs")),
        sa.UniqueConstraint("run_id", name=op.f("uq_runs_run_id")),
        sa.UniqueConstraint("upstream_id", name=op.f("uq_runs_upstream_id")),
    )
    op.create_index(
        "ix_runs_listing",
        "runs",
        ["experiment_id", "lifecycle_stage", "start_time_ms", "run_id"],
        unique=False,
    )
    initial_evaluation.create_tables()
    initial_traces.create_tables()
    initial_webhooks.create_tables()


def downgrade() -> None:
    raise NotImplementedError("The first schema has nothing before it.")
