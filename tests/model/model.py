"""What the proxy was told and has acknowledged, as a client would remember it: the model.

It knows MLflow's rules and nothing of journals, lanes or workspaces.
"""

import hashlib
from dataclasses import dataclass, field

from tests.durability.tracking import BASE_MS
from tests.support.workspace import Point, point

RUNNING = "RUNNING"


@dataclass(slots=True)
class ModelRun:
    """One run."""

    run_id: str
    artifact_root: str
    name: str
    parent: "ModelRun | None" = None
    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    status: str = RUNNING
    end_time: int | None = None

    def log(self, key: str, step: int, value: float) -> None:
        """A point that is there already changes nothing."""
        logged = point(key, step, BASE_MS + step, value)
        if logged not in self.points:
            self.points.append(logged)

    def accepts_param(self, key: str, value: str) -> bool:
        """A param keeps its value."""
        return self.params.get(key, value) == value

    def end(self, status: str) -> None:
        """The last status and end time stand."""
        self.status, self.end_time = status, BASE_MS + 1_000_000

    @property
    def latest(self) -> dict[str, Point]:
        """Each metric's latest point: the highest by step, time and value."""
        newest: dict[str, Point] = {}
        for logged in self.points:
            key, step, time_ms, value = logged
            known = newest.get(key)
            if known is None or (step, time_ms, float(value)) > (known[1], known[2], float(known[3])):
                newest[key] = logged
        return newest

    @property
    def digests(self) -> dict[str, str]:
        """Path → SHA-256."""
        return {path: hashlib.sha256(content).hexdigest() for path, content in self.files.items()}


@dataclass(slots=True)
class Model:
    """All of it. `lost_creates` counts creates whose answer no client saw: each may have made a run."""

    experiments: dict[str, str] = field(default_factory=dict)
    runs: list[ModelRun] = field(default_factory=list)
    lost_creates: int = 0
