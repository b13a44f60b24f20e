"""The writes a client can ask for, as the journal keeps them.

An operation holds all that its delivery needs except identities that only the workspace can give
out (experiment ids, version numbers) and bytes. Metric points are kept apart, many to a row
(`journal_blocks`): they are nearly all of what is logged.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CreateExperiment:
    """Make the experiment, under its fixed upstream name."""

    experiment_id: int


@dataclass(frozen=True, slots=True)
class DeleteExperiment:
    """Archive the experiment."""

    experiment_id: int


@dataclass(frozen=True, slots=True)
class RestoreExperiment:
    """Bring an archived experiment back."""

    experiment_id: int


@dataclass(frozen=True, slots=True)
class SetExperimentTag:
    """Set one tag of an experiment."""

    experiment_id: int
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class PurgeRun:
    """Remove what is left in the workspace of a run that is gone here, named by its id there.

    The files at `upstream_paths` go with their bytes. `deletes_run` also deletes the run, softly: the
    workspace has no other way.
    """

    experiment_id: int
    upstream_run_id: str
    upstream_paths: tuple[str, ...]
    deletes_run: bool


@dataclass(frozen=True, slots=True)
class CreateRun:
    """Make the run; `tags` are those it was created with."""

    name: str
    user_id: str
    start_time_ms: int | None
    parent_run_id: str | None
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UpdateRun:
    """Change what is not None."""

    status: str | None = None
    end_time_ms: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Delete the run (softly, as MLflow does)."""


@dataclass(frozen=True, slots=True)
class RestoreRun:
    """Bring a deleted run back."""


@dataclass(frozen=True, slots=True)
class LogParam:
    """Log one param."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class SetTag:
    """Set one tag of a run."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class DeleteTag:
    """Delete one tag of a run."""

    key: str


@dataclass(frozen=True, slots=True)
class LogPoint:
    """One metric point, as a parked entry keeps it. `value` is None for NaN."""

    key: str
    value: float | None
    timestamp_ms: int
    step: int


@dataclass(frozen=True, slots=True)
class UploadArtifact:
    """Bring one file to the run's folder in the workspace, under `upstream_path`."""

    root_id: int
    path: str
    upstream_path: str
    size_bytes: int
    md5: bytes
    spool_name: str | None


@dataclass(frozen=True, slots=True)
class DeleteArtifact:
    """Remove one file from the run's folder in the workspace."""

    root_id: int
    upstream_path: str


@dataclass(frozen=True, slots=True)
class DeliverOverflow:
    """Bring a file of what the workspace's limits cannot hold to the run's folder."""

    file_number: int


@dataclass(frozen=True, slots=True)
class CreateRegisteredModel:
    """Make the registered model."""

    name: str
    description: str | None
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UpdateRegisteredModel:
    """Change the description of a registered model."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class SetRegisteredModelTag:
    """Set one tag of a registered model."""

    name: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class DeleteRegisteredModelTag:
    """Delete one tag of a registered model."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class CreateModelVersion:
    """Make version `version` (our number) from files of a run, or from a source taken as it is.

    `uid` names the version for good: after a restore its number may be given out once more. Entries of schema
    0001 have none.
    """

    version: int
    run_id: str | None
    upstream_path: str | None
    source: str
    description: str | None
    tags: dict[str, str] = field(default_factory=dict)
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class UpdateModelVersion:
    """Change the description of a version."""

    version: int
    description: str


@dataclass(frozen=True, slots=True)
class TransitionModelVersion:
    """Move a version to a stage."""

    version: int
    stage: str
    archive_existing: bool


@dataclass(frozen=True, slots=True)
class SetModelVersionTag:
    """Set one tag of a version."""

    version: int
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class DeleteModelVersionTag:
    """Delete one tag of a version."""

    version: int
    key: str


@dataclass(frozen=True, slots=True)
class DeleteModelVersion:
    """Delete a version."""

    version: int


Operation = (
    CreateExperiment
    | DeleteExperiment
    | RestoreExperiment
    | SetExperimentTag
    | PurgeRun
    | CreateRun
    | UpdateRun
    | DeleteRun
    | RestoreRun
    | LogParam
    | SetTag
    | DeleteTag
    | LogPoint
    | UploadArtifact
    | DeleteArtifact
    | DeliverOverflow
    | CreateRegisteredModel
    | UpdateRegisteredModel
    | SetRegisteredModelTag
    | DeleteRegisteredModelTag
    | CreateModelVersion
    | UpdateModelVersion
    | TransitionModelVersion
    | SetModelVersionTag
    | DeleteModelVersionTag
    | DeleteModelVersion
)
