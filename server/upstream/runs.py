"""Runs of the workspace.

A run is created under an id of our choosing through Run History, as azureml-core does it. A workspace that
refuses that gets `runs/create`, which chooses the id, with a marker tag by which the run is found again.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.domain import failpoints
from server.domain.clock import iso_from_ms
from server.domain.entities import RunStatus
from server.domain.verdicts import Verdict
from server.upstream.answers import read_answer
from server.upstream.connection import Connection
from server.upstream.failures import UpstreamFailure, refused_here
from server.upstream.segments import checked_run_id, path_segment, run_segment

MARKER_TAG = "mlproxy.run_uid"
_MARKER = re.compile(r"[A-Za-z0-9._-]{1,250}")
_JSON_PATCH = "application/json-patch+json; charset=utf-8"
_START_EVENT = "Microsoft.MachineLearning.Run.Start"
_SEARCH_PAGE = 500
_STATUSES = {
    **{status.value: status for status in RunStatus},
    "NOTSTARTED": RunStatus.SCHEDULED,
    "QUEUED": RunStatus.SCHEDULED,
    "PREPARING": RunStatus.SCHEDULED,
    "PROVISIONING": RunStatus.SCHEDULED,
    "STARTING": RunStatus.SCHEDULED,
    "FINALIZING": RunStatus.RUNNING,
    "CANCELREQUESTED": RunStatus.RUNNING,
    "COMPLETED": RunStatus.FINISHED,
    "CANCELED": RunStatus.KILLED,
}


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be made in the workspace. `experiment_id` is the workspace's."""

    run_id: str
    experiment_name: str
    experiment_id: str
    name: str
    start_time_ms: int | None
    parent_run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamMetric:
    """One metric point; `value` may be NaN or infinite."""

    key: str
    value: float
    timestamp_ms: int
    step: int


@dataclass(frozen=True, slots=True)
class UpstreamRun:
    """A run as the workspace has it; `metrics` are the latest by key."""

    run_id: str
    experiment_id: str
    name: str
    user_id: str
    status: RunStatus
    lifecycle_stage: str
    start_time_ms: int | None
    end_time_ms: int | None
    artifact_uri: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, UpstreamMetric]


@dataclass(frozen=True, slots=True)
class RunsPage:
    """One page of a search; `next_page_token` is `None` on the last one."""

    runs: list[UpstreamRun]
    next_page_token: str | None


class MetricAnswer(msgspec.Struct):
    """A metric point on the wire. NaN and infinities come as strings."""

    key: str
    value: float | None = 0.0
    timestamp: int | None = 0
    step: int | None = 0

    def to_domain(self) -> UpstreamMetric:
        """The point, with what the wire left out."""
        return UpstreamMetric(self.key, self.value or 0.0, self.timestamp or 0, self.step or 0)


class _KeyValue(msgspec.Struct):
    key: str
    value: str | None = ""


class _Info(msgspec.Struct):
    run_id: str = ""
    run_uuid: str = ""
    experiment_id: str | None = ""
    run_name: str | None = ""
    user_id: str | None = ""
    status: str | None = "RUNNING"
    lifecycle_stage: str | None = "active"
    start_time: int | None = None
    end_time: int | None = None
    artifact_uri: str | None = ""


class _Data(msgspec.Struct):
    metrics: list[MetricAnswer] | None = None
    params: list[_KeyValue] | None = None
    tags: list[_KeyValue] | None = None


class _Run(msgspec.Struct):
    info: _Info
    data: _Data = msgspec.field(default_factory=_Data)

    def to_domain(self) -> UpstreamRun:
        info, data = self.info, self.data
        tags = {tag.key: tag.value or "" for tag in data.tags or []}
        return UpstreamRun(
            run_id=info.run_id or info.run_uuid,
            experiment_id=info.experiment_id or "",
            name=info.run_name or tags.get("mlflow.runName", ""),
            user_id=info.user_id or "",
            status=_STATUSES.get((info.status or "").upper(), RunStatus.RUNNING),
            lifecycle_stage=(info.lifecycle_stage or "active").lower(),
            start_time_ms=info.start_time,
            end_time_ms=info.end_time or None,
            artifact_uri=info.artifact_uri or "",
            params={param.key: param.value or "" for param in data.params or []},
            tags=tags,
            metrics={metric.key: metric.to_domain() for metric in data.metrics or []},
        )


class _RunAnswer(msgspec.Struct):
    run: _Run


class _SearchAnswer(msgspec.Struct):
    runs: list[_Run] = []
    next_page_token: str | None = None


class UpstreamRuns:
    """Calls about runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create_or_modify(self, run: NewRun) -> None:
        """Make the run under its own id, running; doing it again changes nothing.

        Two calls, both repeatable: the run itself, then its start. A refusal of the first is raised as it
        is (nothing happened). A refusal of the second is UNCERTAIN: the run is there by then.
        """
        url = f"{self._connection.address.history_url}/experiments/{path_segment(run.experiment_name)}/runs"
        url = f"{url}/{run_segment(run.run_id)}"
        answer = await self._connection.request(
            "PATCH", url, json=_creation(run), content_type=_JSON_PATCH, route="history/runs"
        )
        read_answer(answer, dict[str, Any], is_repeatable=False)
        failpoints.reach("run.made")
        try:
            await self._connection.request(
                "POST",
                f"{url}/events",
                json=_start_event(run),
                content_type=_JSON_PATCH,
                route="history/runs/events",
                expects_answer=False,
            )
        except UpstreamFailure as failure:
            if not failure.is_definite_refusal:
                raise
            raise UpstreamFailure(
                Verdict.UNCERTAIN,
                failure.code,
                f"the run was made but not started: {failure.message}",
                status=failure.status,
            ) from failure

    async def create_with_marker(self, run: NewRun, marker: str) -> str:
        """Make the run under an id that the workspace chooses, tagged with `marker`; the id."""
        tags = {**_tags(run), MARKER_TAG: _checked_marker(marker)}
        body: dict[str, Any] = {
            "experiment_id": run.experiment_id,
            "run_name": run.name,
            "user_id": run.user_id,
            "tags": _key_values(tags),
        }
        if run.start_time_ms is not None:
            body["start_time"] = run.start_time_ms
        answer = await self._connection.mlflow("POST", "runs/create", json=body)
        return read_answer(answer, _RunAnswer, is_repeatable=False).run.to_domain().run_id

    async def find_by_marker(self, experiment_id: str, marker: str) -> list[str]:
        """The ids of the runs tagged with `marker`, oldest first; deleted ones included."""
        condition = f"tags.{MARKER_TAG} = '{_checked_marker(marker)}'"
        found: list[UpstreamRun] = []
        page_token: str | None = None
        while True:
            page = await self.search([experiment_id], filter_text=condition, page_token=page_token)
            found += [run for run in page.runs if run.tags.get(MARKER_TAG) == marker]
            page_token = page.next_page_token
            if page_token is None:
                break
        found.sort(key=lambda run: (run.start_time_ms or 0, run.run_id))
        return [run.run_id for run in found]

    async def search(
        self,
        experiment_ids: Sequence[str],
        *,
        filter_text: str = "",
        order_by: Sequence[str] = (),
        page_size: int = _SEARCH_PAGE,
        page_token: str | None = None,
    ) -> RunsPage:
        """One page of the runs that the workspace's own filter finds; deleted ones included."""
        body: dict[str, Any] = {
            "experiment_ids": list(experiment_ids),
            "run_view_type": "ALL",
            "max_results": page_size,
        }
        optional = {"filter": filter_text, "order_by": list(order_by), "page_token": page_token}
        body |= {key: value for key, value in optional.items() if value}
        answer = await self._connection.mlflow("POST", "runs/search", json=body, is_repeatable=True)
        page = read_answer(answer, _SearchAnswer, is_repeatable=True)
        return RunsPage([run.to_domain() for run in page.runs], page.next_page_token or None)

    async def find(self, upstream_run_id: str) -> UpstreamRun | None:
        """The run, or `None` when the workspace does not know it."""
        params = _named(upstream_run_id)
        try:
            answer = await self._connection.mlflow("GET", "runs/get", params=params)
        except UpstreamFailure as failure:
            if failure.is_missing:
                return None
            raise
        return read_answer(answer, _RunAnswer, is_repeatable=True).run.to_domain()

    async def log_batch(
        self,
        run_id: str,
        metrics: Sequence[UpstreamMetric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log all of it in one call. The workspace's limits are the caller's to keep."""
        body: dict[str, Any] = {"run_id": checked_run_id(run_id)}
        if metrics:
            body["metrics"] = [_metric(metric) for metric in metrics]
        if params:
            body["params"] = _key_values(params)
        if tags:
            body["tags"] = _key_values(tags)
        await self._connection.mlflow("POST", "runs/log-batch", json=body)

    async def delete_tag(self, run_id: str, key: str) -> None:
        """Take a tag off; one that is not there is fine."""
        body = {"run_id": checked_run_id(run_id), "key": key}
        try:
            await self._connection.mlflow("POST", "runs/delete-tag", json=body)
        except UpstreamFailure as failure:
            if not (failure.is_missing and "tag" in failure.message.lower()):
                raise

    async def update(
        self,
        run_id: str,
        status: RunStatus | None = None,
        end_time_ms: int | None = None,
        name: str | None = None,
    ) -> None:
        """Change what is given."""
        body: dict[str, Any] = dict(_named(run_id))
        if status is not None:
            body["status"] = status.value
        if end_time_ms is not None:
            body["end_time"] = end_time_ms
        if name is not None:
            body["run_name"] = name
        await self._connection.mlflow("POST", "runs/update", json=body)

    async def delete(self, run_id: str) -> None:
        """Delete it, softly."""
        await self._connection.mlflow("POST", "runs/delete", json={"run_id": checked_run_id(run_id)})

    async def restore(self, run_id: str) -> None:
        """Undo `delete`."""
        await self._connection.mlflow("POST", "runs/restore", json={"run_id": checked_run_id(run_id)})


def _named(run_id: str) -> dict[str, str]:
    """A run as MLflow's clients name it, under its old and its new field."""
    return {"run_uuid": checked_run_id(run_id), "run_id": run_id}


def _creation(run: NewRun) -> dict[str, Any]:
    body: dict[str, Any] = {
        "runId": run.run_id,
        "displayName": run.name,
        "target": "local",
        "tags": _tags(run),
        "runTypeV2": {"orchestrator": "External", "traits": ["unspecified"]},
    }
    if run.parent_run_id is not None:
        body["parentRunId"] = checked_run_id(run.parent_run_id)
    if run.start_time_ms is not None:
        body["startTimeUtc"] = iso_from_ms(run.start_time_ms)
    return body


def _start_event(run: NewRun) -> dict[str, Any]:
    instant = iso_from_ms(run.start_time_ms or 0)
    return {
        "timestamp": instant,
        "name": _START_EVENT,
        "data": {"RunId": run.run_id, "StartTime": instant},
    }


def _tags(run: NewRun) -> dict[str, str]:
    own = {"mlflow.user": run.user_id} if run.user_id else {}
    return {**own, **run.tags}


def _key_values(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _metric(metric: UpstreamMetric) -> dict[str, Any]:
    return {
        "key": metric.key,
        "value": _number(metric.value),
        "timestamp": metric.timestamp_ms,
        "step": metric.step,
    }


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _checked_marker(marker: str) -> str:
    if not _MARKER.fullmatch(marker):
        raise refused_here(f"not a usable marker: {marker[:200]!r}", "INVALID_PARAMETER_VALUE")
    return marker
