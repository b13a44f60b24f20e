"""MLflow's nouns as the store hands them out. Times are milliseconds since the Unix epoch."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class LifecycleStage(StrEnum):
    """Whether a thing is deleted (MLflow deletes softly)."""

    ACTIVE = "active"
    DELETED = "deleted"


class ViewType(StrEnum):
    """Which lifecycle stages a search shows."""

    ACTIVE_ONLY = "ACTIVE_ONLY"
    DELETED_ONLY = "DELETED_ONLY"
    ALL = "ALL"


class RunStatus(StrEnum):
    """MLflow's run states."""

    RUNNING = "RUNNING"
    SCHEDULED = "SCHEDULED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return self in _TERMINAL


_TERMINAL = frozenset({RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED})


class Birthplace(StrEnum):
    """Where a run, experiment or model was made first."""

    PROXY = "proxy"
    WORKSPACE = "workspace"


Point = tuple[int, int, float, int]
"""Step, timestamp in milliseconds, value, and 1 where that is NaN (the value is then 0.0)."""

PointKey = tuple[int, int, int, float, int]
"""A series' id and one of its points."""


class Metric(NamedTuple):
    """One metric point. `value` is finite, or 0.0 where `is_nan` is 1.

    A plain tuple, since thousands come with one request; all but the key is its `point`.
    """

    key: str
    step: int
    timestamp_ms: int
    value: float
    is_nan: int

    @property
    def point(self) -> Point:
        """What tells it from the other points of its metric: by MLflow's rule, equal ones are one."""
        return self[1:]


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A param or a tag."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment with its tags."""

    experiment_id: int
    name: str
    artifact_location: str
    lifecycle_stage: LifecycleStage
    creation_time_ms: int
    last_update_time_ms: int
    tags: list[KeyValue] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run is, without its data. `run_pk` is the store's own id."""

    run_pk: int
    run_id: str
    experiment_id: int
    name: str
    user_id: str
    status: RunStatus
    start_time_ms: int | None
    end_time_ms: int | None
    artifact_uri: str
    lifecycle_stage: LifecycleStage


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing. `next_offset` is `None` on the last one."""

    items: list[T]
    next_offset: int | None
