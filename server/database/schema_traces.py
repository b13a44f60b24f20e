"""The tables of traces, their spans and their assessments. The workspace has none of it: they stay here.

What a span holds is JSON text; beside it stand the columns that searches and metrics go by. Links
name both ends by their ids: a trace may be linked before it arrives.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from server.database.base import Id, clustered, metadata

traces = Table(
    "traces",
    metadata,
    Column("trace_pk", Id, primary_key=True),
    Column("trace_id", Text, nullable=False, unique=True),
    Column("experiment_id", BigInteger, nullable=False),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("execution_time_ms", BigInteger),
    Column("state", Text, nullable=False),
    Column("client_request_id", Text),
    Column("request_preview", Text),
    Column("response_preview", Text),
    Column("session_id", Text),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    Column("cache_read_input_tokens", BigInteger),
    Column("cache_creation_input_tokens", BigInteger),
    Column("principal", Text),
    Index("ix_traces_listing", "experiment_id", "timestamp_ms"),
    Index("ix_traces_session", "experiment_id", "session_id"),
    comment="Session and tokens are also in the metadata; here they can be searched and summed up.",
)

trace_tags = Table(
    "trace_tags",
    metadata,
    Column("trace_pk", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **clustered,
)

trace_metadata = Table(
    "trace_metadata",
    metadata,
    Column("trace_pk", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **clustered,
)

spans = Table(
    "spans",
    metadata,
    Column("span_pk", Id, primary_key=True),
    Column("trace_pk", BigInteger, nullable=False),
    Column("span_id", Text, nullable=False),
    Column("parent_span_id", Text),
    Column("name", Text, nullable=False),
    Column("type", Text),
    Column("status", Text, nullable=False),
    Column("start_time_ns", BigInteger, nullable=False),
    Column("end_time_ns", BigInteger),
    Column("model_name", Text),
    Column("model_provider", Text),
    Column("input_cost", Double),
    Column("output_cost", Double),
    Column("total_cost", Double),
    Column("token_usage", Text),
    # Last, so that what stands before it is read without it.
    Column("content", Text, nullable=False),
    UniqueConstraint("trace_pk", "span_id"),
)

assessments = Table(
    "assessments",
    metadata,
    Column("assessment_pk", Id, primary_key=True),
    Column("assessment_id", Text, nullable=False, unique=True),
    Column("trace_pk", BigInteger, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("error", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("last_updated_ms", BigInteger, nullable=False),
    Column("source_type", Text, nullable=False),
    Column("source_id", Text),
    Column("run_id", Text),
    Column("span_id", Text),
    Column("rationale", Text),
    Column("overrides", Text),
    Column("is_valid", SmallInteger, nullable=False),
    Column("metadata", Text),
    Column("number", Double),
    Column("is_number", SmallInteger, nullable=False),
    Column("principal", Text),
    comment="Value, error and metadata are JSON. The number is what metrics sum up: yes and true are 1.",
)

trace_links = Table(
    "trace_links",
    metadata,
    Column("trace_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Index("ix_trace_links_target", "kind", "target"),
    comment="The runs ('run') and prompt versions ('prompt', as name/version) that a trace belongs to.",
    **clustered,
)
