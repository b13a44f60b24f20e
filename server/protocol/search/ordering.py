"""Reading `order_by` clauses: `key`, `key ASC` or `key DESC`, nothing around them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.domain.errors import MlflowError, invalid_parameter
from server.protocol.search.lexing import Kind, operands_of, refuse_unsearchable
from server.protocol.search.terms import Order

# Every clause may become a join, and SQLite joins at most 64 tables.
MAX_CLAUSES = 30


@dataclass(frozen=True, slots=True)
class Sorting:
    """One clause as written."""

    identifier: str
    ascending: bool


def read_sortings(clauses: Sequence[str]) -> list[Sorting]:
    """Take the clauses apart.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when there are too many or one cannot be read.
    """
    refuse_many(clauses)
    return [_sorting(clause) for clause in clauses]


def refuse_many(clauses: Sequence[object]) -> None:
    """Turn away a list of clauses no database could sort by."""
    if len(clauses) > MAX_CLAUSES:
        raise invalid_parameter(f"`order_by` is limited to {MAX_CLAUSES} clauses. Got {len(clauses)}.")


def refuse_duplicates(orders: Iterable[Order], clauses: Sequence[str]) -> None:
    """Turn away two clauses that sort by the same key."""
    keys = [(order.entity, order.key) for order in orders]
    if len(set(keys)) < len(keys):
        raise invalid_parameter(f"`order_by` contains duplicate fields: {list(clauses)}")


def _sorting(clause: str) -> Sorting:
    refuse_unsearchable(clause)
    operands = operands_of(clause)
    # MLflow takes no white space around a clause.
    if not 1 <= len(operands) <= 2 or clause != clause.strip():
        raise _unreadable(clause)
    if any(operand.kind is not Kind.IDENTIFIER for operand in operands):
        raise _unreadable(clause)
    if len(operands) == 1:
        return Sorting(operands[0].text, ascending=True)
    identifier, direction = operands
    if identifier.end == direction.start:
        raise _unreadable(clause)
    if direction.text.lower() not in ("asc", "desc"):
        raise invalid_parameter(f"Invalid ordering key in order_by clause '{clause}'.")
    return Sorting(identifier.text, ascending=direction.text.lower() == "asc")


def _unreadable(clause: str) -> MlflowError:
    return invalid_parameter(f"Invalid order_by clause '{clause}'. Could not be parsed.")
