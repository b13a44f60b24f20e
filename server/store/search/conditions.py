"""Comparisons as SQL conditions that mean the same on SQLite and on Postgres.

In a `LIKE` pattern `%` and `_` are the only special characters on either; there is no escape.
"""

import operator
from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Double, and_, literal, or_

from server.protocol.search.terms import Comparison, Operator

_PYTHON_OPERATORS: dict[Operator, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}


class Conditions:
    """Writes conditions for one SQL dialect."""

    def __init__(self, *, dialect: str) -> None:
        self._is_sqlite = dialect == "sqlite"

    def compare(self, column: ColumnElement[Any], comparison: Comparison) -> ColumnElement[bool]:
        """The column against the comparison's value; a null column never matches."""
        value: Any = comparison.value
        if isinstance(value, int | float):
            value = _number(value)
        if comparison.operator in _PYTHON_OPERATORS:
            return _PYTHON_OPERATORS[comparison.operator](column, value)
        match comparison.operator:
            case Operator.LIKE:
                return self._like(column, value)
            case Operator.ILIKE:
                return column.ilike(value, escape=None if self._is_sqlite else "")
            case Operator.IN:
                return column.in_(value)
            case Operator.NOT_IN:
                return column.not_in(value)
            case _:
                raise ValueError(f"{comparison.operator} does not compare a column with a value")

    def compare_metric(
        self, value: ColumnElement[Any], is_nan: ColumnElement[Any], comparison: Comparison
    ) -> ColumnElement[bool]:
        """A metric's value against a number: NaN differs from every number and is nothing else.

        The value stored next to `is_nan` is a placeholder and must not count.
        """
        condition = self.compare(value, comparison)
        if comparison.operator is Operator.NOT_EQUAL:
            return or_(condition, is_nan == 1)
        return and_(condition, is_nan == 0)

    def _like(self, column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
        # SQLite's LIKE ignores case unless a pragma says otherwise; its GLOB never does.
        if self._is_sqlite:
            return column.bool_op("GLOB")(_glob(pattern))
        return column.like(pattern, escape="")


_GLOB = str.maketrans({"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"})


def _glob(pattern: str) -> str:
    """The GLOB pattern that matches what this LIKE pattern matches."""
    return pattern.translate(_GLOB)


def _number(value: int | float) -> ColumnElement[Any]:
    # The column's own type would round a fraction or refuse a number too large for it.
    return literal(value, BigInteger()) if isinstance(value, int) else literal(value, Double())
