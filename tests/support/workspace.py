"""What the workspace holds, in a form that tests can compare with what clients logged.

A metric point is `(key, step, timestamp in ms, text of the value)`: text, because NaN does not equal
itself. Infinite values arrive as the largest double: MLflow stores them so.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.emulator import EmulatorProcess, JsonObject

Point = tuple[str, int, int, str]

LARGEST_DOUBLE = 1.7976931348623157e308
PARENT_TAG = "mlflow.parentRunId"
MODEL_HISTORY_TAG = "mlflow.log-model.history"
RUN_MARKER_TAG = "mlproxy.run_uid"


class WorkspaceRun:
    """One run as the workspace holds it."""

    def __init__(self, document: JsonObject) -> None:
        self.document = document
        self.run_id = str(document["run_id"])
        self.status = str(document["status"])
        self.params: dict[str, str] = dict(document["params"])
        self.tags: dict[str, str] = dict(document["tags"])

    @property
    def points_in_order(self) -> list[Point]:
        """Every stored point in the order of arrival; one that arrived twice is there twice."""
        return [point_of(row) for row in self.document["metrics"]]

    @property
    def points(self) -> Counter[Point]:
        return Counter(self.points_in_order)

    @property
    def files(self) -> dict[str, str | None]:
        """Path → SHA-256; None where the path is reserved and has no bytes."""
        return {artifact["path"]: artifact["sha256"] for artifact in self.document["artifacts"]}

    @property
    def last_content_seq(self) -> int:
        """When the last point, param, tag or file arrived."""
        held = self.document
        seqs = [row["seq"] for row in held["metrics"]]
        seqs += [artifact["content_seq"] or artifact["seq"] for artifact in held["artifacts"]]
        return max([*seqs, *held["param_seqs"].values(), *held["tag_seqs"].values()], default=0)

    @property
    def ended_last(self) -> bool:
        """Whether the terminal status arrived after everything else."""
        ended = self.document["seq_of_terminal"]
        return ended is not None and ended > self.last_content_seq


def run_of(emulator: EmulatorProcess, run_id: str) -> WorkspaceRun:
    """One run, by its id in the workspace."""
    return WorkspaceRun(emulator.run(run_id))


def runs_of(emulator: EmulatorProcess, experiment_name: str) -> list[WorkspaceRun]:
    """All runs of an experiment, by its name in the workspace."""
    return [WorkspaceRun(run) for run in emulator.runs() if run["experiment_name"] == experiment_name]


def point_of(row: JsonObject) -> Point:
    """A point from the workspace's row."""
    return point(row["key"], row["step"], row["timestamp"], row["value"])


def point(key: str, step: int, timestamp_ms: int, value: float | str) -> Point:
    """A point, its value as the workspace is to hold it."""
    number = float(value)
    clamped = max(-LARGEST_DOUBLE, min(LARGEST_DOUBLE, number)) if number == number else number
    return key, int(step), int(timestamp_ms), repr(clamped)


def steps_by_key(points: list[Point]) -> dict[str, list[int]]:
    """The steps of each metric in the order of arrival."""
    steps: dict[str, list[int]] = {}
    for key, step, _, _ in points:
        steps.setdefault(key, []).append(step)
    return steps


def wait_until(condition: Callable[[], Any], *, within: float, what: str) -> Any:
    """The first true value of `condition`; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within:g} s: {what}")
