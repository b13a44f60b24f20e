"""What an examination found, one check at a time."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and where something is wrong, what to do about it."""

    check: str
    outcome: Outcome
    found: str
    advice: str = ""
