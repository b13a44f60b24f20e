"""Patterns of experiment names, as a key is limited to."""

from dataclasses import dataclass

WILDCARD = "*"
"""Stands for any characters, none and slashes included. Every other character stands for itself."""


@dataclass(frozen=True, slots=True)
class NamePatterns:
    """Names that match at least one of these patterns; upper and lower case differ."""

    patterns: tuple[str, ...]

    def matches(self, name: str) -> bool:
        """Whether the whole name is one of those meant."""
        return any(_matches(name, pattern) for pattern in self.patterns)

    def __str__(self) -> str:
        return ", ".join(f"'{pattern}'" for pattern in self.patterns)


def _matches(name: str, pattern: str) -> bool:
    """What lies between two wildcards is taken where it comes first: no pattern makes this slow."""
    first, *rest = pattern.split(WILDCARD)
    if not rest:
        return name == first
    *middle, last = rest
    if not name.startswith(first):
        return False
    position = len(first)
    for part in middle:
        found = name.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return name.endswith(last) and len(name) - len(last) >= position
