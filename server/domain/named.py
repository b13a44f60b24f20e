"""What a request can name that belongs to an experiment.

`may_be_absent` says that the request is served where there is no such thing: it makes it, or leaves the
reference as it is.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamedExperiment:
    """An experiment by its id, here or in the workspace."""

    experiment_id: str


@dataclass(frozen=True, slots=True)
class ExperimentName:
    """A name that an experiment has, or is to get."""

    name: str


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run."""

    run_id: str
    may_be_absent: bool = False


@dataclass(frozen=True, slots=True)
class NamedLoggedModel:
    """A logged model."""

    model_id: str
    may_be_absent: bool = False


@dataclass(frozen=True, slots=True)
class NamedTrace:
    """A trace."""

    trace_id: str
    may_be_absent: bool = False


@dataclass(frozen=True, slots=True)
class NamedTraceFiles:
    """The files of a trace, which may be kept anywhere."""

    trace_id: str


@dataclass(frozen=True, slots=True)
class NamedDataset:
    """An evaluation dataset, which may belong to several experiments."""

    dataset_id: str


@dataclass(frozen=True, slots=True)
class NamedArtifact:
    """A file or folder by its path under this server."""

    path: str


@dataclass(frozen=True, slots=True)
class NamedVersion:
    """A version of a registered model: it belongs where its source is."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class NamedVersionFiles:
    """The files of a version of a registered model."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class NamedSource:
    """What a new version of a registered model is made from."""

    source: str
    run_id: str | None
    model_id: str | None


Named = (
    NamedExperiment
    | ExperimentName
    | NamedRun
    | NamedLoggedModel
    | NamedTrace
    | NamedTraceFiles
    | NamedDataset
    | NamedArtifact
    | NamedVersion
    | NamedVersionFiles
    | NamedSource
)
