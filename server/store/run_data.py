"""What a page of runs holds: rows as the database gives them, grouped by run.

A page of a thousand runs is tens of thousands of rows. They are grouped without being taken apart: the first
column of each is its `run_pk`, the rest is what it says.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from server.database.engine import Transaction

Row = tuple[Any, ...]

_METRICS = (
    "SELECT run_pk, key, CASE WHEN latest_is_nan = 0 THEN latest_value END, latest_timestamp_ms, latest_step"
    " FROM series WHERE run_pk"
)
_by_run = itemgetter(0)


def list_metrics(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, list[Row]]:
    """The latest point of every metric: (run_pk, key, value or None for NaN, timestamp_ms, step)."""
    return _grouped(transaction.rows_in(_METRICS, run_pks))


def list_params(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, list[Row]]:
    """All params: (run_pk, key, value)."""
    return _grouped(transaction.rows_in("SELECT run_pk, key, value FROM params WHERE run_pk", run_pks))


def list_tags(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, list[Row]]:
    """All tags: (run_pk, key, value)."""
    return _grouped(transaction.rows_in("SELECT run_pk, key, value FROM tags WHERE run_pk", run_pks))


def _grouped(rows: list[Row]) -> dict[int, list[Row]]:
    # By an index they come in this order already, and sorting what is sorted costs next to nothing.
    rows.sort(key=_by_run)
    return {run_pk: list(group) for run_pk, group in groupby(rows, _by_run)}
