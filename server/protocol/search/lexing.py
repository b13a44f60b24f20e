"""From text to operands: names, quoted values, numbers, lists and comparators.

Works in time linear in the text. Decides only what a piece *is*; whether it may stand where it stands
is for `clauses` and `ordering`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from server.domain.errors import invalid_parameter

MAX_TEXT_CHARACTERS = 20_000

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<name>`(?:``|[^`])*`)
    | (?P<float>-?[0-9]+(?:\.[0-9]+)?E-?[0-9]+(?!\w) | -?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?!\w))
    | (?P<integer>-?[0-9]+(?!\w))
    | (?P<string>'(?:''|\\'|[^'])*')
    | (?P<symbol>"(?:""|\\"|[^"])*")
    | (?P<comparator>[<>=~!]+ | (?<!\.)(?:NOT\s+)?[IR]?LIKE\b(?!\s*\.))
    | (?P<word>\w[$#\w]*)
    | (?P<dot>\.)
    | (?P<mark>[();,'"`])
    | (?P<sign>.)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN"})
_NAMES = frozenset({"name", "word", "symbol"})


class Kind(Enum):
    """What an operand is."""

    IDENTIFIER = auto()
    STRING = auto()
    INTEGER = auto()
    FLOAT = auto()
    LIST = auto()
    KEYWORD = auto()
    COMPARATOR = auto()
    # Names and numbers run together by a sign, such as `metrics.a-b`.
    OPERATION = auto()
    MARK = auto()


@dataclass(frozen=True, slots=True)
class Operand:
    """A piece of the text, and where it stands in it."""

    kind: Kind
    text: str
    start: int

    @property
    def end(self) -> int:
        """The position behind it."""
        return self.start + len(self.text)

    def is_keyword(self, word: str) -> bool:
        """Whether it is this keyword, in any case."""
        return self.kind is Kind.KEYWORD and self.text.upper() == word


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def refuse_unsearchable(text: str) -> None:
    """Turn away text no database could be asked about, or that is too long to read.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE`.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        raise invalid_parameter(
            f"Search text is limited to {MAX_TEXT_CHARACTERS} characters. Got {len(text)}."
        )
    # Postgres has no NUL in text, and a lone surrogate has no encoding.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise invalid_parameter("Search text must not hold NUL characters or lone surrogates.")


def operands_of(text: str) -> list[Operand]:
    """The operands of `text` in order, without the white space between them."""
    tokens = [token for token in _tokens(text) if token.kind != "space"]
    closing = _closing_parentheses(tokens)
    operands: list[Operand] = []
    index = 0
    while index < len(tokens):
        last = closing.get(index)
        if last is None:
            last = _run_end(tokens, index)
            kind = _kind(tokens[index : last + 1])
        else:
            kind = Kind.LIST
        start = tokens[index].start
        operands.append(Operand(kind, text[start : tokens[last].end], start))
        index = last + 1
    return operands


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        yield _Token(match.lastgroup or "sign", match.group(), match.start())


def _closing_parentheses(tokens: list[_Token]) -> dict[int, int]:
    """For every opening parenthesis that is closed, the index of its partner."""
    partners: dict[int, int] = {}
    open_at: list[int] = []
    for index, token in enumerate(tokens):
        if token.text == "(":
            open_at.append(index)
        elif token.text == ")" and open_at:
            partners[open_at.pop()] = index
    return partners


def _run_end(tokens: list[_Token], index: int) -> int:
    """The last token of the run of touching tokens that form one name or operation."""
    while index + 1 < len(tokens) and _touch(tokens[index], tokens[index + 1]):
        index += 1
    return index


def _touch(left: _Token, right: _Token) -> bool:
    if left.end != right.start or "mark" in (left.kind, right.kind):
        return False
    if "comparator" in (left.kind, right.kind):
        return False
    if "sign" in (left.kind, right.kind):
        return True
    if left.kind == "dot":
        return right.kind in _NAMES or right.kind == "string"
    return left.kind in _NAMES and right.kind == "dot"


def _kind(run: list[_Token]) -> Kind:
    first = run[0]
    if len(run) == 1:
        return _kind_of_one(first)
    names, dots = run[::2], run[1::2]
    is_path = (
        len(run) % 2 == 1
        and first.kind in _NAMES
        and all(token.kind == "dot" for token in dots)
        and all(token.kind in _NAMES or token.kind == "string" for token in names)
    )
    return Kind.IDENTIFIER if is_path else Kind.OPERATION


def _kind_of_one(token: _Token) -> Kind:
    match token.kind:
        case "name" | "symbol":
            return Kind.IDENTIFIER
        case "word":
            return Kind.KEYWORD if token.text.upper() in _KEYWORDS else Kind.IDENTIFIER
        case "string":
            return Kind.STRING
        case "integer":
            return Kind.INTEGER
        case "float":
            return Kind.FLOAT
        case "comparator":
            return Kind.COMPARATOR
        case _:
            return Kind.MARK
