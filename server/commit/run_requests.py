"""One request of a hot kind: what it wants changed of a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.commit.bounds import Admission
from server.domain.entities import Metric, RunStatus
from server.domain.operations import UpdateRun


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A metric point that also belongs to a logged model, perhaps measured on a dataset."""

    model_id: str
    metric: Metric
    dataset_name: str | None
    dataset_digest: str | None


@dataclass(slots=True)
class RunWrite:
    """One request to change what a run holds. Its result is the run as it is afterwards."""

    run_id: str
    metrics: Sequence[Metric] = ()
    model_metrics: Sequence[ModelMetric] = ()
    params: Sequence[tuple[str, str]] = ()
    tags: Sequence[tuple[str, str]] = ()
    deleted_tag: str | None = None
    update: UpdateRun | None = None
    principal: str | None = None
    is_batch: bool = False
    size_bytes: int = 256

    @property
    def rows(self) -> int:
        """How many rows it may write."""
        return 1 + len(self.metrics) + len(self.params) + len(self.tags)

    @property
    def admission(self) -> Admission:
        """Whether it may use the room that is kept for the ends of runs."""
        status = None if self.update is None else self.update.status
        ends = status is not None and RunStatus(status).is_terminal
        return Admission.RUN_ENDING if ends else Admission.ORDINARY
