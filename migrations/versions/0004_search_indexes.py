"""Searches find the few runs that have a param, a tag or a name without looking at all runs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    beginning = sa.text("substr(value, 1, 64)")
    op.create_index("ix_params_value", "params", ["key", beginning, "run_pk"])
    op.create_index("ix_tags_value", "tags", ["key", beginning, "run_pk"])
    op.create_index("ix_runs_name", "runs", ["experiment_id", sa.text("substr(name, 1, 64)")])
