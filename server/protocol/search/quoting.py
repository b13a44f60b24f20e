"""Taking quotes off keys, values and lists the way MLflow does."""

import re

from server.domain.errors import MlflowError, invalid_parameter

_LIST_PART = re.compile(
    r"""(?P<space>\s+)|(?P<comma>,)|'(?P<single>(?:[^'\\\n]|\\.)*)'|"(?P<double>(?:[^"\\\n]|\\.)*)"|(?P<word>\w+)"""
)
_ESCAPE = re.compile(r"\\([\\'\"nrt])")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}


def plain_key(key: str) -> str:
    """The key without the backticks or quotes around it."""
    for quote in ("'", '"'):
        if _is_quoted(key, quote):
            key = key[1:-1]
            break
    return key[1:-1] if _is_quoted(key, "`") else key


def quoted_text(text: str) -> str:
    """The text between a value's quotes. What stands between them is taken as it is: no escapes.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when there are no quotes.
    """
    if _is_quoted(text, "'") or _is_quoted(text, '"'):
        return text[1:-1]
    raise invalid_parameter(
        "Parameter value is either not quoted or unidentified quote types used for string value "
        f"{text}. Use either single or double quotes."
    )


def _is_quoted(text: str, quote: str) -> bool:
    return len(text) >= 2 and text.startswith(quote) and text.endswith(quote)


def text_list(text: str) -> tuple[str, ...]:
    """The strings of a list such as `('a', "b")`, written as Python would write them.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when it is empty or holds anything but strings.
    """
    items: list[str] = []
    # Pieces of the item being read; strings side by side are one, as they are in Python.
    pieces: list[str] = []
    position, end = 1, len(text) - 1
    while position < end:
        part = _LIST_PART.match(text, position, end)
        if part is None:
            raise _ill_formed()
        position = part.end()
        match part.lastgroup:
            case "comma":
                if not pieces:
                    raise _ill_formed()
                items.append("".join(pieces))
                pieces = []
            case "single" | "double":
                pieces.append(_unescaped(part.group(part.lastgroup)))
            case "word":
                raise invalid_parameter(
                    "While parsing a list in the query, expected string value, punctuation, or whitespace, "
                    f"but got different type in list: {text}"
                )
    if pieces:
        items.append("".join(pieces))
    if not items:
        raise invalid_parameter(
            "While parsing a list in the query, expected a non-empty list of string values, "
            "but got empty list"
        )
    return tuple(items)


def _ill_formed() -> MlflowError:
    return invalid_parameter(
        "While parsing a list in the query, expected a non-empty list of string values, "
        "but got ill-formed list."
    )


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match.group(1), match.group(1)), text)
