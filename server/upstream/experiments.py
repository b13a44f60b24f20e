"""Experiments of the workspace."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.domain.verdicts import Verdict
from server.upstream.answers import read_answer
from server.upstream.connection import Connection
from server.upstream.failures import ALREADY_EXISTS, UpstreamFailure


@dataclass(frozen=True, slots=True)
class UpstreamExperiment:
    """An experiment as the workspace has it. `lifecycle_stage` is `active` or `deleted`."""

    experiment_id: str
    name: str
    lifecycle_stage: str
    tags: dict[str, str] = field(default_factory=dict)


class _Tag(msgspec.Struct):
    key: str
    value: str | None = ""


class _Experiment(msgspec.Struct):
    experiment_id: str
    name: str = ""
    lifecycle_stage: str = "active"
    tags: list[_Tag] | None = None

    def to_domain(self) -> UpstreamExperiment:
        tags = {tag.key: tag.value or "" for tag in self.tags or []}
        return UpstreamExperiment(self.experiment_id, self.name, self.lifecycle_stage, tags)


class _Created(msgspec.Struct):
    experiment_id: str


class _Found(msgspec.Struct):
    experiment: _Experiment


class _Page(msgspec.Struct):
    experiments: list[_Experiment] = []
    next_page_token: str | None = None


class UpstreamExperiments:
    """Calls about experiments."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(self, name: str) -> str:
        """The id of the experiment `name`, which exists afterwards.

        Raises:
            UpstreamFailure: PARK also when the name belongs to a deleted experiment.
        """
        try:
            answer = await self._connection.mlflow("POST", "experiments/create", json={"name": name})
        except UpstreamFailure as failure:
            if failure.verdict is not Verdict.ALREADY_APPLIED:
                raise
            return await self._existing(name, failure)
        return read_answer(answer, _Created, is_repeatable=False).experiment_id

    async def find_by_name(self, name: str) -> UpstreamExperiment | None:
        """The experiment `name`, deleted ones included."""
        try:
            answer = await self._connection.mlflow(
                "GET", "experiments/get-by-name", params={"experiment_name": name}
            )
        except UpstreamFailure as failure:
            if failure.is_missing:
                return None
            raise
        return read_answer(answer, _Found, is_repeatable=True).experiment.to_domain()

    async def list_all(self, *, page_size: int = 500) -> AsyncIterator[UpstreamExperiment]:
        """Every experiment, deleted ones included."""
        body: dict[str, Any] = {"max_results": page_size, "view_type": "ALL"}
        while True:
            answer = await self._connection.mlflow(
                "POST", "experiments/search", json=body, is_repeatable=True
            )
            page = read_answer(answer, _Page, is_repeatable=True)
            for experiment in page.experiments:
                yield experiment.to_domain()
            if not page.next_page_token:
                return
            body["page_token"] = page.next_page_token

    async def delete(self, experiment_id: str) -> None:
        """Delete it, softly."""
        await self._connection.mlflow("POST", "experiments/delete", json={"experiment_id": experiment_id})

    async def restore(self, experiment_id: str) -> None:
        """Undo `delete`."""
        await self._connection.mlflow("POST", "experiments/restore", json={"experiment_id": experiment_id})

    async def set_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Set a tag, over the one before."""
        body = {"experiment_id": experiment_id, "key": key, "value": value}
        await self._connection.mlflow("POST", "experiments/set-experiment-tag", json=body)

    async def _existing(self, name: str, refusal: UpstreamFailure) -> str:
        existing = await self.find_by_name(name)
        if existing is not None and existing.lifecycle_stage == "active":
            return existing.experiment_id
        raise UpstreamFailure(
            Verdict.PARK,
            ALREADY_EXISTS,
            f"the experiment {name!r} exists in the workspace and is deleted: restore it there, then retry "
            f"({refusal.message})",
            status=refusal.status,
        ) from refusal
