"""The tables of evaluation datasets and of scorers. The workspace has neither: they stay here.

What a record holds is JSON text as it came; only the hash of its inputs is looked up.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, UniqueConstraint

from server.database.base import Id, clustered, metadata

evaluation_datasets = Table(
    "evaluation_datasets",
    metadata,
    Column("dataset_pk", Id, primary_key=True),
    Column("dataset_id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
    Column("created_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("last_updated_by", Text),
    Column("principal", Text),
)

evaluation_dataset_tags = Table(
    "evaluation_dataset_tags",
    metadata,
    Column("dataset_pk", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **clustered,
)

evaluation_dataset_experiments = Table(
    "evaluation_dataset_experiments",
    metadata,
    Column("dataset_pk", BigInteger, primary_key=True),
    Column("experiment_id", BigInteger, primary_key=True, index=True),
    **clustered,
)

evaluation_records = Table(
    "evaluation_records",
    metadata,
    Column("record_pk", Id, primary_key=True),
    Column("record_id", Text, nullable=False, unique=True),
    Column("dataset_pk", BigInteger, nullable=False),
    Column("input_hash", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("outputs", Text),
    Column("expectations", Text),
    Column("tags", Text),
    Column("source", Text),
    Column("created_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("last_updated_by", Text),
    UniqueConstraint("dataset_pk", "input_hash"),
)
Index(
    "ix_evaluation_records_listing",
    evaluation_records.c.dataset_pk,
    evaluation_records.c.created_time_ms,
    evaluation_records.c.record_id,
)

scorers = Table(
    "scorers",
    metadata,
    Column("scorer_pk", Id, primary_key=True),
    Column("scorer_id", Text, nullable=False, unique=True),
    Column("experiment_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    UniqueConstraint("experiment_id", "name"),
)

scorer_versions = Table(
    "scorer_versions",
    metadata,
    Column("scorer_pk", BigInteger, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("serialized_scorer", Text, nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("principal", Text),
    **clustered,
)
