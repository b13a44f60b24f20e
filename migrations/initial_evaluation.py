"""The evaluation and scorer tables of the first released schema."""

import sqlalchemy as sa
from alembic import op


def create_tables() -> None:
    """Create them."""
    op.create_table(
        "evaluation_dataset_experiments",
        sa.Column("dataset_pk", sa.BigInteger(), nullable=False),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "dataset_pk", "experiment_id", name=op.f("pk_evaluation_dataset_experiments")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_evaluation_dataset_experiments_experiment_id"),
        "evaluation_dataset_experiments",
        ["experiment_id"],
        unique=False,
    )
    op.create_table(
        "evaluation_dataset_tags",
        sa.Column("dataset_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_pk", "key", name=op.f("pk_evaluation_dataset_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evaluation_datasets",
        sa.Column("dataset_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=True),
        sa.Column("profile", sa.Text(), nullable=True),
        sa.Column("created_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_update_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("last_updated_by", sa.Text(), nullable=True),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("dataset_pk", name=op.f("pk_evaluation_datasets")),
        sa.UniqueConstraint("dataset_id", name=op.f("uq_evaluation_datasets_dataset_id")),
    )
    op.create_table(
        "evaluation_records",
        sa.Column("record_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("dataset_pk", sa.BigInteger(), nullable=False),
        sa.Column("input_hash", sa.Text(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("outputs", sa.Text(), nullable=True),
        sa.Column("expectations", sa.Text(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("created_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_update_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("last_updated_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("record_pk", name=op.f("pk_evaluation_records")),
        sa.UniqueConstraint(
            "dataset_pk", "input_hash", name=op.f("uq_evaluation_records_dataset_pk_input_hash")
        ),
        sa.UniqueConstraint("record_id", name=op.f("uq_evaluation_records_record_id")),
    )
    op.create_index(
        "ix_evaluation_records_listing",
        "evaluation_records",
        ["dataset_pk", "created_time_ms", "record_id"],
        unique=False,
    )
    op.create_table(
        "scorer_versions",
        sa.Column("scorer_pk", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("serialized_scorer", sa.Text(), nullable=False),
        sa.Column("creation_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("scorer_pk", "version", name=op.f("pk_scorer_versions")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "scorers",
        sa.Column("scorer_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("scorer_id", sa.Text(), nullable=False),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("scorer_pk", name=op.f("pk_scorers")),
        sa.UniqueConstraint("experiment_id", "name", name=op.f("uq_scorers_experiment_id_name")),
        sa.UniqueConstraint("scorer_id", name=op.f("uq_scorers_scorer_id")),
    )
