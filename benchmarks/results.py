"""The result file: everything that was measured, as it was measured. Tables are made from it."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

FOLDER = Path(__file__).resolve().parent / "results"

_TOLERATED_ERRORS = 0.1  # stock MLflow's store refuses one of two equal params that race

Figures = dict[str, Any]
T = TypeVar("T")


def now() -> str:
    """The moment, for a result file."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One scenario on one system in one repeat. `failed` says why there are no figures."""

    scenario: str
    system: str
    database: str
    repeat: int
    figures: Figures
    failed: str | None = None


@dataclass(slots=True)
class Results:
    """One run."""

    kind: str
    options: dict[str, Any]
    machine: dict[str, Any]
    started: str = field(default_factory=now)
    ended: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file that `write` made."""
        document = json.loads(path.read_text())
        measurements = [Measurement(**item) for item in document.pop("measurements")]
        return cls(**document, measurements=measurements)

    def write(self, path: Path) -> None:
        """Into a file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n")
        os.replace(unfinished, path)

    def values(self, scenario: str, system: str, database: str, figure: str) -> dict[int, float]:
        """One figure by repeat; repeats that failed, or had more than a few errors, are left out."""
        return {
            item.repeat: float(item.figures[figure])
            for item in self.measurements
            if (item.scenario, item.system, item.database) == (scenario, system, database)
            and item.failed is None
            and item.figures.get(figure) is not None
            and not _is_spoilt(item.figures)
        }

    def failures(self, scenario: str, system: str, database: str) -> list[str]:
        """Why it could not be measured, or what errors there were."""
        return [
            item.failed or str(item.figures.get("first_error"))
            for item in self.measurements
            if (item.scenario, item.system, item.database) == (scenario, system, database)
            and (item.failed or item.figures.get("errors"))
        ]

    def systems(self) -> list[tuple[str, str]]:
        """(system, database) in the order they were first measured."""
        return _unique((item.system, item.database) for item in self.measurements)

    def scenarios(self) -> list[str]:
        """Scenarios in the order they were first measured."""
        return _unique(item.scenario for item in self.measurements)


def _is_spoilt(figures: Figures) -> bool:
    errors = figures.get("errors") or 0
    return bool(errors > _TOLERATED_ERRORS * (figures.get("operations") or 0))


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))
