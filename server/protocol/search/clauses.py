"""From a filter's text to its clauses, before anyone asks what their keys mean.

MLflow joins clauses by `AND` and nothing else. A missing or doubled `AND` between two clauses is as
good as one: stock servers accept it, so we do.
"""

from dataclasses import dataclass

from server.domain.errors import invalid_parameter
from server.protocol.search.lexing import Kind, Operand, operands_of, refuse_unsearchable

MAX_COMPARISONS = 200

_COMPARABLE = frozenset({Kind.IDENTIFIER, Kind.STRING, Kind.INTEGER, Kind.FLOAT, Kind.LIST, Kind.OPERATION})


@dataclass(frozen=True, slots=True)
class Clause:
    """`left operator right`; the null tests have no right side. The operator is in upper case."""

    left: Operand
    operator: str
    right: Operand | None


@dataclass(frozen=True, slots=True)
class Clauses:
    """The clauses of a filter, and the pieces that belong to none."""

    valid: list[Clause]
    strays: list[str]


def read_clauses(text: str) -> Clauses:
    """Take a filter apart.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the text is too long, is only white space, holds
            several statements or too many comparisons.
    """
    refuse_unsearchable(text)
    operands = operands_of(text)
    if not operands:
        raise invalid_parameter(f"Invalid filter '{text}'. Could not be parsed.")
    if any(operand.text == ";" for operand in operands[:-1]):
        raise invalid_parameter(
            f"Search filter contained multiple expression {text!r}. Provide AND-ed expression list."
        )
    clauses = _collect(operands)
    if len(clauses.valid) > MAX_COMPARISONS:
        raise invalid_parameter(
            f"A filter is limited to {MAX_COMPARISONS} comparisons. Got {len(clauses.valid)}."
        )
    return clauses


def _collect(operands: list[Operand]) -> Clauses:
    found = Clauses([], [])
    index = 0
    while index < len(operands):
        clause, length = _clause_at(operands[index : index + 4])
        if clause is not None:
            found.valid.append(clause)
        elif not operands[index].is_keyword("AND"):
            found.strays.append(operands[index].text)
        index += length
    return found


def _clause_at(window: list[Operand]) -> tuple[Clause | None, int]:
    """The clause the window begins with and how many operands it takes, or none and one."""
    left, rest = window[0], window[1:]
    if len(rest) >= 2 and rest[0].kind is Kind.COMPARATOR and left.kind in _COMPARABLE:
        if rest[1].kind in _COMPARABLE or rest[1].is_keyword("NULL"):
            operator = " ".join(rest[0].text.upper().split())
            return Clause(left, operator, rest[1]), 3
    elif left.kind is Kind.IDENTIFIER:
        for words, takes_list in _WORD_OPERATORS:
            length = 1 + len(words) + takes_list
            if len(window) < length or not _spell(rest, words):
                continue
            if not takes_list:
                return Clause(left, " ".join(words), None), length
            if window[length - 1].kind is Kind.LIST:
                return Clause(left, " ".join(words), window[length - 1]), length
    return None, 1


_WORD_OPERATORS: tuple[tuple[tuple[str, ...], bool], ...] = (
    (("IN",), True),
    (("NOT", "IN"), True),
    (("IS", "NULL"), False),
    (("IS", "NOT", "NULL"), False),
)


def _spell(operands: list[Operand], words: tuple[str, ...]) -> bool:
    return all(operand.is_keyword(word) for operand, word in zip(operands, words, strict=False))
