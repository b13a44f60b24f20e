"""`NamePatterns.matches`, said in SQL. SQLite's LIKE would not tell upper from lower case; its GLOB does."""

import re

from server.domain.name_patterns import WILDCARD, NamePatterns

ESCAPE = "\\"
"""What makes a wildcard of LIKE mean itself."""


def like_operands(names: NamePatterns) -> list[str]:
    """The patterns as Postgres' LIKE reads them, with `ESCAPE`."""
    return [_for_like(pattern) for pattern in names.patterns]


def glob_operands(names: NamePatterns) -> list[str]:
    """The patterns as SQLite's GLOB reads them."""
    return [re.sub(r"[\[?]", r"[\g<0>]", pattern) for pattern in names.patterns]


def condition_on(column: str, names: NamePatterns, *, is_postgres: bool) -> tuple[str, list[str]]:
    """A condition for a statement that is written with `?`, and its parameters."""
    test = f"{column} LIKE ? ESCAPE '{ESCAPE}'" if is_postgres else f"{column} GLOB ?"
    operands = like_operands(names) if is_postgres else glob_operands(names)
    return f" ({' OR '.join([test] * len(operands))})", operands


def _for_like(pattern: str) -> str:
    for character in (ESCAPE, "%", "_"):
        pattern = pattern.replace(character, ESCAPE + character)
    return pattern.replace(WILDCARD, "%")
