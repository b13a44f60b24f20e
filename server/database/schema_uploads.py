"""The table of uploads that go from a client straight to the workspace's storage."""

from sqlalchemy import BigInteger, Column, Integer, SmallInteger, Table, Text

from server.database.base import clustered, metadata

direct_uploads = Table(
    "direct_uploads",
    metadata,
    Column("upload_id", Text, primary_key=True),
    Column("path", Text, nullable=False, index=True),
    Column("run_id", Text, nullable=False),
    Column("upstream_path", Text, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("is_new", SmallInteger, nullable=False, comment="The workspace had no such path before."),
    Column("principal", Text),
    Column("created_at_ms", BigInteger, nullable=False, index=True),
    comment="Under way; a row leaves when its upload is completed, aborted, or a day old.",
    **clustered,
)
