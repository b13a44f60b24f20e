"""A series tells whether its points by step are its points by time, and no longer what nothing asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Series of before are not looked through: each of their pages is, as it was.
    op.add_column(
        "series",
        sa.Column(
            "in_time_order",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="1: the points by step are the points by timestamp. 0: not so, or not known.",
        ),
    )
    for column in ("lowest_step", "highest_step", "lowest_timestamp_ms"):
        op.drop_column("series", column)
