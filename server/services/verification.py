"""Comparing a run here with the workspace: every point, param, tag and file.

What the workspace's limits could not hold is looked for in the run's overflow files there.
"""

import math
from collections import Counter
from collections.abc import Mapping

from server.database.engine import Database, Transaction
from server.domain.entities import RunInfo
from server.domain.errors import ErrorCode, MlflowError
from server.domain.overflow_files import OWN_FOLDER
from server.journal.overflow import OverflowFile, list_files
from server.protocol import operations as messages
from server.services.identity import get_run
from server.store import histories, run_data, runs, upstream_ids
from server.store.upstream_ids import RunIds
from server.upstream.artifacts import UpstreamArtifacts
from server.upstream.failures import UpstreamFailure
from server.upstream.metrics import UpstreamMetrics
from server.upstream.overflow import OverflowContents, OverflowPoint, read_overflow
from server.upstream.runs import UpstreamRun, UpstreamRuns

_MOST_DIFFERENCES = 200
# The workspace sets tags of these names itself, and we mark what we make.
_SERVICE_TAGS = ("azureml.", "mlproxy.", "mlflow.")
# Tags that name another run are delivered with that run's upstream id.
_RUN_TAGS = frozenset({"mlflow.parentRunId", "mlflow.rootRunId"})

Difference = messages.VerifyDifference


class Verification:
    """Reads both sides and reports what differs."""

    def __init__(
        self,
        *,
        database: Database,
        runs_upstream: UpstreamRuns,
        metrics_upstream: UpstreamMetrics,
        artifacts_upstream: UpstreamArtifacts,
    ) -> None:
        self._database = database
        self._runs = runs_upstream
        self._metrics = metrics_upstream
        self._artifacts = artifacts_upstream

    async def verify(self, run_id: str) -> messages.VerifyAnswer:
        """Compare one run.

        Raises:
            MlflowError: the run is not known here, or the workspace cannot be read.
        """
        here = await self._database.read(lambda transaction: _load(transaction, run_id))
        try:
            return await self._compare(here)
        except UpstreamFailure as failure:
            raise MlflowError(
                ErrorCode.TEMPORARILY_UNAVAILABLE, f"The workspace could not be read: {failure.message}"
            ) from failure

    async def _compare(self, here: "_Here") -> messages.VerifyAnswer:
        upstream_id = here.ids.upstream_id
        there = None if upstream_id is None else await self._runs.find(upstream_id)
        differences: list[Difference] = []
        overflow = OverflowContents()
        if there is None:
            differences.append(Difference("run", here.info.run_id, "is not in the workspace"))
        else:
            experiment = here.ids.experiment.upstream_id or here.ids.experiment.upstream_name
            paths = await self._artifacts.list_paths(experiment, there.run_id)
            overflow = await read_overflow(self._artifacts, experiment, there.run_id, paths)
            differences.extend(_compare_overflow_files(here.overflow_files, overflow))
            differences.extend(_compare_info(here.info, there))
            differences.extend(_compare_texts("param", here.params, overflow.params | there.params))
            differences.extend(_twice("param", overflow.params, there.params))
            tags = _newest_tags(here.tags, overflow.tags, there.tags)
            differences.extend(_compare_texts("tag", here.comparable_tags, tags))
            differences.extend(_unexpected("param", here.params, overflow.params | there.params))
            differences.extend(_unexpected("tag", here.tags, _not_service_tags(there.tags)))
            differences.extend(_unexpected("metric", here.points, {**overflow.points, **there.metrics}))
            differences.extend(await self._compare_points(here, there, overflow))
            differences.extend(await self._compare_files(here, there, experiment, paths))
            differences.extend(await self._made_twice(here.ids))
        return messages.VerifyAnswer(
            run_id=here.info.run_id,
            upstream_run_id=upstream_id,
            equal=not differences,
            points=sum(len(points) for points in here.points.values()),
            params=len(here.params),
            tags=len(here.tags),
            artifacts=len(here.files),
            overflow=sum(overflow.files.values()),
            differences=differences[:_MOST_DIFFERENCES],
        )

    async def _made_twice(self, ids: RunIds) -> list[Difference]:
        """Further runs that carry this run's marker: the first one was not shown for too long."""
        if ids.upstream_id == ids.run_id:
            return []  # made under our own id: there can be no other
        marked = await self._runs.find_by_marker(ids.experiment.upstream_id or "", ids.run_id)
        others = [upstream_id for upstream_id in marked if upstream_id != ids.upstream_id]
        return [Difference("run", f"{ids.upstream_id} alone", f"also {', '.join(others)}")] if others else []

    async def _compare_points(
        self, here: "_Here", there: UpstreamRun, overflow: OverflowContents
    ) -> list[Difference]:
        differences = []
        for key, points in here.points.items():
            shown = Counter(overflow.points.get(key))
            async for metric in self._metrics.history(there.run_id, key):
                value = None if math.isnan(metric.value) else metric.value
                shown[metric.step, metric.timestamp_ms, value] += 1
            wanted = Counter(
                (step, timestamp_ms, None if is_nan else value)
                for step, timestamp_ms, value, is_nan in points
            )
            for point, count in (wanted - shown).items():
                differences.append(Difference(f"metric {key}", _shown(point, count), "missing"))
            for point, count in (shown - wanted).items():
                differences.append(Difference(f"metric {key}", "not here", f"{_shown(point, count)} more"))
        return differences

    async def _compare_files(
        self, here: "_Here", there: UpstreamRun, experiment: str, paths: list[str]
    ) -> list[Difference]:
        own = [path for path in paths if not path.startswith(f"{OWN_FOLDER}/")]
        differences = _unexpected("artifact", here.files, dict.fromkeys(own))
        for path, (size_bytes, md5) in here.files.items():
            stored = await self._artifacts.info(experiment, there.run_id, path)
            if stored is None:
                differences.append(Difference(f"artifact {path}", f"{size_bytes} bytes", "missing"))
            elif stored.size_bytes != size_bytes or (stored.md5 is not None and stored.md5 != md5):
                differences.append(
                    Difference(
                        f"artifact {path}",
                        f"{size_bytes} bytes, MD5 {md5.hex()}",
                        f"{stored.size_bytes} bytes, MD5 {stored.md5.hex() if stored.md5 else 'unknown'}",
                    )
                )
        return differences


class _Here:
    """A run as it is here."""

    def __init__(self, info: RunInfo, ids: RunIds) -> None:
        self.info = info
        self.ids = ids
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.points: dict[str, list[tuple[int, int, float, int]]] = {}
        self.files: dict[str, tuple[int, bytes]] = {}
        self.overflow_files: list[OverflowFile] = []

    @property
    def comparable_tags(self) -> dict[str, str]:
        return {key: value for key, value in self.tags.items() if key not in _RUN_TAGS}


def _load(transaction: Transaction, run_id: str) -> _Here:
    info = get_run(transaction, run_id)
    ids = upstream_ids.find_run(transaction, info.run_pk)
    assert ids is not None
    here = _Here(info, ids)
    here.overflow_files = list_files(transaction, info.run_pk)
    here.params = dict(runs.list_params(transaction, [info.run_pk]).get(info.run_pk, []))
    here.tags = {
        key: upstream_ids.upstream_tag_value(transaction, key, value)
        for key, value in runs.list_tags(transaction, [info.run_pk]).get(info.run_pk, [])
    }
    for _, key, *_ in run_data.list_metrics(transaction, [info.run_pk]).get(info.run_pk, []):
        here.points[key] = histories.list_points(transaction, info.run_pk, key, limit=2**62)
    for path, size_bytes, md5 in transaction.rows(
        "SELECT artifacts.path, artifacts.size_bytes, artifacts.md5 FROM artifacts"
        " JOIN artifact_roots ON artifact_roots.root_id = artifacts.root_id WHERE artifact_roots.run_pk = ?",
        (info.run_pk,),
    ):
        here.files[path] = (size_bytes, bytes(md5))
    for folder, path, size_bytes, md5 in transaction.rows(
        "SELECT logged_models.upstream_folder, artifacts.path, artifacts.size_bytes, artifacts.md5"
        " FROM logged_models JOIN artifact_roots ON artifact_roots.model_pk = logged_models.model_pk"
        " JOIN artifacts ON artifacts.root_id = artifact_roots.root_id"
        " WHERE logged_models.source_run_id = ? AND logged_models.upstream_folder IS NOT NULL",
        (info.run_id,),
    ):
        here.files[f"{folder}/{path}"] = (size_bytes, bytes(md5))
    return here


def _compare_info(info: RunInfo, there: UpstreamRun) -> list[Difference]:
    differences = []
    if info.status is not there.status:
        differences.append(Difference("status", info.status.value, there.status.value))
    if info.name != there.name:
        differences.append(Difference("name", info.name, there.name))
    if info.start_time_ms is not None and info.start_time_ms != there.start_time_ms:
        differences.append(Difference("start_time", str(info.start_time_ms), str(there.start_time_ms)))
    if info.end_time_ms is not None and info.end_time_ms != there.end_time_ms:
        differences.append(Difference("end_time", str(info.end_time_ms), str(there.end_time_ms)))
    if info.lifecycle_stage.value != there.lifecycle_stage:
        differences.append(Difference("lifecycle_stage", info.lifecycle_stage.value, there.lifecycle_stage))
    return differences


def _compare_texts(what: str, here: dict[str, str], there: dict[str, str]) -> list[Difference]:
    return [
        Difference(f"{what} {key}", value, there.get(key, "missing"))
        for key, value in here.items()
        if there.get(key) != value
    ]


def _unexpected(what: str, here: Mapping[str, object], there: Mapping[str, object]) -> list[Difference]:
    """What only the workspace has."""
    return [Difference(f"{what} {key}", "not here", "there") for key in there if key not in here]


def _shown(point: OverflowPoint, count: int) -> str:
    step, timestamp_ms, value = point
    return f"{(step, timestamp_ms, 'NaN' if value is None else value)} × {count}"


def _compare_overflow_files(here: list[OverflowFile], there: OverflowContents) -> list[Difference]:
    """Overflow files that are delivered and not whole there."""
    differences = [Difference("overflow", "values", fault) for fault in there.faults]
    for file in here:
        values = there.files.get(file.path)
        if file.is_delivered and (values is None or values < file.entries):
            found = "missing" if values is None else f"{values} values"
            differences.append(Difference(f"artifact {file.path}", f"{file.entries} values", found))
    return differences


def _twice(what: str, overflow: Mapping[str, object], there: Mapping[str, object]) -> list[Difference]:
    """What is both in the run and in its overflow, and may be in one of them only."""
    return [
        Difference(f"{what} {key}", "once", "in the run and in its overflow")
        for key in overflow
        if key in there
    ]


def _newest_tags(here: dict[str, str], overflow: dict[str, str], there: dict[str, str]) -> dict[str, str]:
    """The tags there. Where the run's overflow has the newest value, the run may still show an older one."""
    return overflow | there | {key: value for key, value in overflow.items() if here.get(key) == value}


def _not_service_tags(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(_SERVICE_TAGS)}
