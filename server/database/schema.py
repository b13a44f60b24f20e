"""The tables, as one SQLAlchemy metadata. `migrations/` brings a database to exactly this.

Keys that clients see as text (run ids, metric keys) appear once; everything that grows with what
is logged refers to them by integer. Times are milliseconds since the Unix epoch.

Tables that stand for themselves are declared in the `schema_*` modules beside this one, which takes
them in.

*Store* tables answer reads. *Journal* tables hold what has still to reach the workspace; a row
leaves them when its delivery is settled.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql

from server.database import schema_access as schema_access
from server.database import schema_evaluation as schema_evaluation
from server.database import schema_traces as schema_traces
from server.database import schema_uploads as schema_uploads
from server.database import schema_webhooks as schema_webhooks
from server.database.base import Id as _Id
from server.database.base import clustered as _clustered
from server.database.base import leave_room
from server.database.base import metadata as metadata

# Paths compare by their bytes in both databases, so that a folder is a range of keys.
_Path = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

# --- installation ---------------------------------------------------------------------------

facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    comment="One-row facts about this installation: journal generation, workspace delivered to.",
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("workspace_id", _Id, primary_key=True),
    Column("address", Text, nullable=False, unique=True),
    Column("first_delivery_ms", BigInteger),
)

# --- journal --------------------------------------------------------------------------------

lanes = Table(
    "lanes",
    metadata,
    Column("lane_id", _Id, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject_id", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False, server_default=text("0")),
    Column("settled_position", BigInteger, nullable=False, server_default=text("0")),
    Column("uncertain_through", BigInteger, nullable=False, server_default=text("0")),
    Column("restored_through", BigInteger, nullable=False, server_default=text("0")),
    Column("undelivered_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_owner", Text),
    Column("lease_token", Text),
    Column("lease_epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_until_ms", BigInteger),
    Column("not_before_ms", BigInteger, nullable=False, server_default=text("0")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("last_failure", Text),
)
Index(
    "ix_lanes_pending",
    lanes.c.lane_id,
    sqlite_where=text("settled_position < last_position"),
    postgresql_where=text("settled_position < last_position"),
)
Index(
    "ix_lanes_lease_owner",
    lanes.c.lease_owner,
    sqlite_where=text("lease_owner IS NOT NULL"),
    postgresql_where=text("lease_owner IS NOT NULL"),
)

journal_entries = Table(
    "journal_entries",
    metadata,
    Column("lane_id", BigInteger, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("accepted_at_ms", BigInteger, nullable=False),
    Column("principal", Text),
    **_clustered,
)

journal_blocks = Table(
    "journal_blocks",
    metadata,
    Column("lane_id", BigInteger, primary_key=True),
    Column("first_position", BigInteger, primary_key=True),
    Column("last_position", BigInteger, nullable=False),
    Column("points", LargeBinary, nullable=False, comment="Undelivered metric points, packed."),
    Column("accepted_at_ms", BigInteger, nullable=False),
    **_clustered,
)

barriers = Table(
    "barriers",
    metadata,
    Column("lane_id", BigInteger, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("awaited_lane_id", BigInteger, primary_key=True),
    Column("awaited_position", BigInteger, nullable=False),
    **_clustered,
)
Index("ix_barriers_awaited", barriers.c.awaited_lane_id)

batches = Table(
    "batches",
    metadata,
    Column("batch_id", _Id, primary_key=True),
    Column("lane_id", BigInteger, nullable=False, index=True),
    Column("first_position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("parent_batch_id", BigInteger),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("sent_at_ms", BigInteger, nullable=False),
    Column("empty_reads", Integer, nullable=False, server_default=text("0")),
    Column("first_empty_read_ms", BigInteger),
)

parked = Table(
    "parked",
    metadata,
    Column("parked_id", _Id, primary_key=True),
    Column("lane_id", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("run_pk", BigInteger, index=True),
    Column("kind", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("principal", Text),
    Column("accepted_at_ms", BigInteger, nullable=False),
    Column("parked_at_ms", BigInteger, nullable=False),
    Column("decision", Text),
    Column("decided_by", Text),
    Column("decided_at_ms", BigInteger),
    Column("decision_reason", Text),
    UniqueConstraint("lane_id", "position"),
)

Index(
    "ix_parked_undecided",
    parked.c.parked_id,
    sqlite_where=text("decision IS NULL"),
    postgresql_where=text("decision IS NULL"),
)
Index(
    "ix_parked_reason",
    parked.c.reason,
    sqlite_where=text("decision IS NULL"),
    postgresql_where=text("decision IS NULL"),
)
Index(
    "ix_parked_dropped",
    parked.c.lane_id,
    sqlite_where=text("decision = 'dropped'"),
    postgresql_where=text("decision = 'dropped'"),
)

overflow = Table(
    "overflow",
    metadata,
    Column("lane_id", BigInteger, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("run_pk", BigInteger, nullable=False),
    Column("file_number", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("limit_name", Text, nullable=False),
    Column("accepted_at_ms", BigInteger, nullable=False),
    comment="What the workspace's limits cannot hold, until the file it goes into is delivered.",
    **_clustered,
)
Index("ix_overflow_file", overflow.c.run_pk, overflow.c.file_number)

overflow_files = Table(
    "overflow_files",
    metadata,
    Column("run_pk", BigInteger, primary_key=True),
    Column("file_number", Integer, primary_key=True),
    Column("entries", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("opened_at_ms", BigInteger, nullable=False),
    Column("closed_at_ms", BigInteger),
    Column("delivered_at_ms", BigInteger),
    comment="mlproxy/overflow-N.jsonl of a run. Open files take more entries; closed ones are fixed.",
    **_clustered,
)

workspace_limits = Table(
    "workspace_limits",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("learned_at_ms", BigInteger, nullable=False),
    comment="Limits the workspace was seen to have, with its own words.",
)

accepted_creates = Table(
    "accepted_creates",
    metadata,
    Column("fingerprint", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False, index=True),
    Column("body_hash", LargeBinary),
    Column("expires_at_ms", BigInteger, nullable=False, index=True),
    comment="Recent creates, by what a client that lost the answer would send again, or by its own key.",
    **_clustered,
)

commit_marks = Table(
    "commit_marks",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("marked_at_ms", BigInteger, nullable=False),
    comment="The last group each writer committed, for a connection lost during COMMIT. Postgres.",
    **_clustered,
)

# --- experiments ----------------------------------------------------------------------------

experiments = Table(
    "experiments",
    metadata,
    Column("experiment_id", _Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("artifact_location", Text, nullable=False),
    Column("lifecycle_stage", Text, nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    Column("born", Text, nullable=False),
    Column("workspace_id", BigInteger, ForeignKey("workspaces.workspace_id")),
    Column("upstream_id", Text, unique=True),
    Column("upstream_name", Text, nullable=False, unique=True),
    Column("principal", Text),
    Column("lane_id", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

experiment_tags = Table(
    "experiment_tags",
    metadata,
    Column("experiment_id", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **_clustered,
)

# --- runs -----------------------------------------------------------------------------------

runs = Table(
    "runs",
    metadata,
    Column("run_pk", _Id, primary_key=True),
    Column("run_id", Text, nullable=False, unique=True),
    Column("experiment_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("start_time_ms", BigInteger),
    Column("end_time_ms", BigInteger),
    Column("artifact_uri", Text, nullable=False),
    Column("lifecycle_stage", Text, nullable=False),
    Column("deleted_at_ms", BigInteger),
    Column("outlived_ms", BigInteger),
    Column("parent_run_id", Text),
    Column("born", Text, nullable=False),
    Column("workspace_id", BigInteger, ForeignKey("workspaces.workspace_id")),
    Column("upstream_id", Text, unique=True),
    Column("create_way", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("principal", Text),
    Column("data_lane_id", BigInteger, nullable=False),
    Column("artifact_lane_id", BigInteger, nullable=False),
    Column("overflow_lane_id", BigInteger),
)
Index(
    "ix_runs_listing",
    runs.c.experiment_id,
    runs.c.lifecycle_stage,
    runs.c.start_time_ms,
    runs.c.run_id,
)
Index("ix_runs_name", runs.c.experiment_id, text("substr(name, 1, 64)"))

params = Table(
    "params",
    metadata,
    Column("run_pk", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **_clustered,
)
# Only the beginnings of names and values are indexed: an entry of an index has to fit a part of a page.
Index("ix_params_value", params.c.key, text("substr(value, 1, 64)"), params.c.run_pk)

tags = Table(
    "tags",
    metadata,
    Column("run_pk", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **_clustered,
)
Index("ix_tags_value", tags.c.key, text("substr(value, 1, 64)"), tags.c.run_pk)

series = Table(
    "series",
    metadata,
    Column("series_id", _Id, primary_key=True),
    Column("run_pk", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("highest_timestamp_ms", BigInteger, nullable=False),
    Column(
        "in_time_order",
        SmallInteger,
        server_default=text("0"),
        nullable=False,
        comment="1: the points by step are the points by timestamp. 0: not so, or not known.",
    ),
    Column("latest_step", BigInteger, nullable=False),
    Column("latest_timestamp_ms", BigInteger, nullable=False),
    Column("latest_value", Double, nullable=False),
    Column("latest_is_nan", SmallInteger, nullable=False),
    UniqueConstraint("run_pk", "key"),
    comment="One metric of one run. The latest point is the highest by (step, timestamp, value).",
)

leave_room(series, percent=50)  # all of a run's may change with each batch

points = Table(
    "points",
    metadata,
    Column("series_id", BigInteger, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("timestamp_ms", BigInteger, primary_key=True),
    Column("value", Double, primary_key=True),
    Column("is_nan", SmallInteger, primary_key=True),
    comment="Metric points; the key is MLflow's own identity of a point.",
    **_clustered,
)

datasets = Table(
    "datasets",
    metadata,
    Column("dataset_pk", _Id, primary_key=True),
    Column("experiment_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
    UniqueConstraint("experiment_id", "name", "digest"),
)

dataset_inputs = Table(
    "dataset_inputs",
    metadata,
    Column("input_pk", _Id, primary_key=True),
    Column("run_pk", BigInteger, nullable=False),
    Column("dataset_pk", BigInteger, nullable=False, index=True),
    UniqueConstraint("run_pk", "dataset_pk"),
)

dataset_input_tags = Table(
    "dataset_input_tags",
    metadata,
    Column("input_pk", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **_clustered,
)

run_models = Table(
    "run_models",
    metadata,
    Column("run_pk", BigInteger, primary_key=True),
    Column("direction", Text, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    comment="Logged models that went into a run ('input') or came out of it ('output').",
    **_clustered,
)

# --- artifacts ------------------------------------------------------------------------------

artifact_roots = Table(
    "artifact_roots",
    metadata,
    Column("root_id", _Id, primary_key=True),
    Column("prefix", _Path, nullable=False, unique=True),
    Column("run_pk", BigInteger, index=True),
    Column("model_pk", BigInteger, index=True),
    comment="The folder of one run, logged model or anything else; prefix without outer slashes.",
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("root_id", BigInteger, primary_key=True),
    Column("path", _Path, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("md5", LargeBinary, nullable=False),
    Column("content", LargeBinary),
    Column("spool_name", Text),
    Column("upstream_path", Text),
    Column("updated_at_ms", BigInteger, nullable=False),
    comment="Bytes are in content, else in the spool, else upstream under upstream_path.",
    **_clustered,
)
Index("ix_artifacts_spool_name", artifacts.c.spool_name)

# --- logged models --------------------------------------------------------------------------

logged_models = Table(
    "logged_models",
    metadata,
    Column("model_pk", _Id, primary_key=True),
    Column("model_id", Text, nullable=False, unique=True),
    Column("experiment_id", BigInteger, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("artifact_uri", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("status_message", Text),
    Column("model_type", Text),
    Column("source_run_id", Text, index=True),
    Column("lifecycle_stage", Text, nullable=False),
    Column("creation_timestamp_ms", BigInteger, nullable=False),
    Column("last_updated_timestamp_ms", BigInteger, nullable=False),
    Column("upstream_folder", Text),
    Column("born", Text, nullable=False),
    Column("principal", Text),
)

logged_model_tags = Table(
    "logged_model_tags",
    metadata,
    Column("model_pk", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **_clustered,
)

logged_model_params = Table(
    "logged_model_params",
    metadata,
    Column("model_pk", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **_clustered,
)

logged_model_metrics = Table(
    "logged_model_metrics",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("timestamp_ms", BigInteger, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("run_pk", BigInteger, primary_key=True),
    Column("value", Double, nullable=False),
    Column("is_nan", SmallInteger, nullable=False),
    Column("dataset_name", Text),
    Column("dataset_digest", Text),
    **_clustered,
)

# --- registry -------------------------------------------------------------------------------

registered_models = Table(
    "registered_models",
    metadata,
    Column("model_pk", _Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text),
    Column("creation_timestamp_ms", BigInteger, nullable=False),
    Column("last_updated_timestamp_ms", BigInteger, nullable=False),
    Column("last_version", Integer, nullable=False, server_default=text("0")),
    Column("born", Text, nullable=False),
    Column("workspace_id", BigInteger, ForeignKey("workspaces.workspace_id")),
    Column("upstream_name", Text, nullable=False),
    Column("principal", Text),
    Column("lane_id", BigInteger, nullable=False),
    # An id is never given out again: the workspace may still hold versions marked with it.
    sqlite_autoincrement=True,
)

registered_model_tags = Table(
    "registered_model_tags",
    metadata,
    Column("model_pk", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **_clustered,
)

registered_model_aliases = Table(
    "registered_model_aliases",
    metadata,
    Column("model_pk", BigInteger, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    **_clustered,
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("model_pk", BigInteger, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("creation_timestamp_ms", BigInteger, nullable=False),
    Column("last_updated_timestamp_ms", BigInteger, nullable=False),
    Column("description", Text),
    Column("user_id", Text),
    Column("current_stage", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("storage_location", Text),
    Column("run_id", Text, index=True),
    Column("run_link", Text),
    Column("model_id", Text),
    Column("status", Text, nullable=False),
    Column("status_message", Text),
    Column("upstream_version", Text),
    Column("principal", Text),
)

model_version_tags = Table(
    "model_version_tags",
    metadata,
    Column("model_pk", BigInteger, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **_clustered,
)
