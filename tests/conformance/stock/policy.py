"""Which fields may differ from a stock server's, how, and why. A field that is not here must match."""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class How(StrEnum):
    """How a field is compared. Without a rule it must match."""

    SAME_TYPE = "same type"
    IGNORE = "not compared"


@dataclass(frozen=True, slots=True)
class Rule:
    """A field of a route or an entity. `*` stands for anything within a step of the path."""

    where: str
    field: str
    how: How
    reason: str
    flow: str = "*"

    def covers(self, flow: str, where: str, path: tuple[str, ...]) -> bool:
        """Whether it is about this field."""
        if not fnmatchcase(flow, self.flow) or not fnmatchcase(where, self.where):
            return False
        steps = self.field.split("/")
        if steps[-1] == "**":
            steps.pop()
            path = path[: len(steps)]
        return len(steps) == len(path) and all(map(fnmatchcase, path, steps))


VARYING: tuple[Rule, ...] = ()
"""What differs between two runs against the same server."""

DIFFERENCES: tuple[Rule, ...] = ()
"""What this server does otherwise; each is a row of docs/mlflow-divergences.md."""

REPEATED_FREELY: tuple[tuple[str, str], ...] = ()


def find_rule(flow: str, where: str, path: tuple[str, ...]) -> Rule | None:
    """The rule of a field, or None when it must match."""
    for rule in (*VARYING, *DIFFERENCES):
        if rule.covers(flow, where, path):
            return rule
    return None


def is_repeated_freely(flow: str, where: str) -> bool:
    """Whether chance decides how often this flow makes this request."""
    return (flow, where) in REPEATED_FREELY
