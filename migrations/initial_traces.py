"""The trace tables of the first released schema."""

import sqlalchemy as sa
from alembic import op


def create_tables() -> None:
    """Create them."""
    op.create_table(
        "assessments",
        sa.Column("assessment_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("assessment_id", sa.Text(), nullable=False),
        sa.Column("trace_pk", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("span_id", sa.Text(), nullable=True),
        sa.Column("rationale", sa.Text(), nullable=True),
        sa.Column("overrides", sa.Text(), nullable=True),
        sa.Column("is_valid", sa.SmallInteger(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("is_number", sa.SmallInteger(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("assessment_pk", name=op.f("pk_assessments")),
        sa.UniqueConstraint("assessment_id", name=op.f("uq_assessments_assessment_id")),
        comment="Value, error and metadata are JSON. The number is what metrics sum up: yes and true are 1.",
    )
    op.create_index(op.f("ix_assessments_trace_pk"), "assessments", ["trace_pk"], unique=False)
    op.create_table(
        "spans",
        sa.Column("span_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("trace_pk", sa.BigInteger(), nullable=False),
        sa.Column("span_id", sa.Text(), nullable=False),
        sa.Column("parent_span_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("start_time_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_time_ns", sa.BigInteger(), nullable=True),
        sa.Column("model_name", sa.Text(), nullable=True),
        sa.Column("model_provider", sa.Text(), nullable=True),
        sa.Column("input_cost", sa.Double(), nullable=True),
        sa.Column("output_cost", sa.Double(), nullable=True),
        sa.Column("total_cost", sa.Double(), nullable=True),
        sa.Column("token_usage", sa.Text(), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("span_pk", name=op.f("pk_spans")),
        sa.UniqueConstraint("trace_pk", "span_id", name=op.f("uq_spans_trace_pk_span_id")),
    )
    op.create_table(
        "trace_links",
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", "kind", "target", name=op.f("pk_trace_links")),
        comment="The runs ('run') and prompt versions ('prompt', as name/version) that a trace belongs to.",
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trace_links_target", "trace_links", ["kind", "target"], unique=False)
    op.create_table(
        "trace_metadata",
        sa.Column("trace_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("trace_pk", "key", name=op.f("pk_trace_metadata")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "trace_tags",
        sa.Column("trace_pk", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("trace_pk", "key", name=op.f("pk_trace_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "traces",
        sa.Column("trace_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("experiment_id", sa.BigInteger(), nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("execution_time_ms", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("client_request_id", sa.Text(), nullable=True),
        sa.Column("request_preview", sa.Text(), nullable=True),
        sa.Column("response_preview", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("total_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cache_read_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cache_creation_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("trace_pk", name=op.f("pk_traces")),
        sa.UniqueConstraint("trace_id", name=op.f("uq_traces_trace_id")),
        comment="Session and tokens are also in the metadata; here they can be searched and summed up.",
    )
    op.create_index("ix_traces_listing", "traces", ["experiment_id", "timestamp_ms"], unique=False)
    op.create_index("ix_traces_session", "traces", ["experiment_id", "session_id"], unique=False)
