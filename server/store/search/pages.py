"""Reading one page of a search."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select


def read_page(
    connection: Connection, query: Select[Any], *, offset: int, limit: int
) -> tuple[Sequence[Row[Any]], bool]:
    """At most `limit` rows from `offset` on, and whether there are more behind them."""
    rows = connection.execute(query.offset(offset).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit
