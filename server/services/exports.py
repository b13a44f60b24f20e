"""Exporting experiments as a bundle, while everything goes on.

Each run is read as it is when its turn comes, in pages of bounded size: what is logged during the export may
be in the bundle or not. Deleted runs and deleted logged models are left out.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import structlog

from server import __version__
from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.domain.entities import Experiment, LifecycleStage, RunInfo
from server.domain.errors import ErrorCode, MlflowError, invalid_parameter
from server.protocol import bundles, limits
from server.protocol.artifacts import prefix_of_uri
from server.protocol.bundles import DatasetPart, FilePart, Part
from server.services.artifact_places import joined
from server.services.artifacts import Artifacts
from server.services.bundle_file import BundleWriter
from server.services.identity import get_experiment, require_active_experiment
from server.services.sealed_tar import OpenMember
from server.store import datasets, experiments, exported, logged_models, runs
from server.store.exported import ExportedFile
from server.store.logged_models import LoggedModel

log = structlog.get_logger(__name__)

_RUNS_A_PAGE = 50
_FILES_A_PAGE = 200
_POINTS_A_PART = 1_000
_POINTS_READ = 20_000
_PARAMS_A_PART = 100
_PARTS_BYTES = 1024 * 1024


class Exports:
    """Makes bundles."""

    def __init__(self, *, database: Database, artifacts: Artifacts, clock: Clock) -> None:
        self._database = database
        self._artifacts = artifacts
        self._clock = clock

    async def find(self, named: Sequence[str]) -> list[Experiment]:
        """The experiments with these names or ids.

        Raises:
            MlflowError: one of them does not exist, or is deleted.
        """
        if not named:
            raise invalid_parameter("Name at least one experiment.")
        return await self._database.read(lambda transaction: _find_experiments(transaction, named))

    async def stream(self, chosen: Sequence[Experiment]) -> AsyncIterator[bytes]:
        """The bytes of a bundle. It is whole only if this ends without an error.

        Raises:
            MlflowError: the bytes of a file are in the workspace only, which cannot give them now.
        """
        header = bundles.Header(
            bundles.FORMAT,
            __version__,
            uuid4().hex,
            self._clock.now_ms(),
            [bundles.ExperimentName(item.experiment_id, item.name) for item in chosen],
        )
        bundle = _OpenBundle(BundleWriter(header))
        for piece in bundle.writer.begin():
            yield piece
        for experiment in chosen:
            async for part in self._parts_of(experiment):
                if isinstance(part, _FileToSend):
                    async for piece in self._send_file(bundle, part):
                        yield piece
                elif bundle.takes(part):
                    yield bundle.flush()
        if bundle.is_open:
            yield bundle.flush()
        for piece in bundle.writer.end():
            yield piece
        log.info("experiments_exported", experiments=len(chosen), lists=bundle.number)

    async def _send_file(self, bundle: "_OpenBundle", file: "_FileToSend") -> AsyncIterator[bytes]:
        try:
            found = await self._artifacts.find(file.address)
        except MlflowError as error:
            if error.code is ErrorCode.RESOURCE_DOES_NOT_EXIST:
                return  # deleted since it was listed
            raise
        part = FilePart(file.owner_id, file.is_of_model, file.path, found.file.size_bytes, found.file.md5)
        chunks = await self._artifacts.open(found)
        bundle.takes(part)
        number = bundle.number
        yield bundle.flush()
        member = OpenMember(bundles.file_member(number), part.size_bytes)
        yield member.begin()
        try:
            async for chunk in chunks:
                yield member.add(chunk)
        finally:
            await chunks.aclose()
        try:
            yield bundle.writer.close(member)
        except ValueError as error:
            raise MlflowError(
                ErrorCode.TEMPORARILY_UNAVAILABLE,
                f"The file '{file.address}' could not be read whole: {error}",
            ) from error

    # --- what an experiment holds ---

    async def _parts_of(self, experiment: Experiment) -> AsyncIterator["Part | _FileToSend"]:
        yield bundles.ExperimentPart(
            experiment.experiment_id,
            experiment.name,
            {tag.key: tag.value for tag in experiment.tags},
            experiment.creation_time_ms,
        )
        async for part in self._runs_of(experiment):
            yield part
        for model_pk in await self._database.read(
            partial(exported.list_model_pks, experiment_id=experiment.experiment_id)
        ):
            async for part in self._model(model_pk):
                yield part
        async for page in self._run_pages(experiment):
            for info in page:
                yield bundles.EndPart(info.run_id, info.status.value, info.end_time_ms)

    async def _run_pages(self, experiment: Experiment) -> AsyncIterator[list[RunInfo]]:
        after = 0
        while True:

            def read(transaction: Transaction, after: int = after) -> list[RunInfo]:
                run_pks = exported.list_active_run_pks(
                    transaction, experiment.experiment_id, after_run_pk=after, limit=_RUNS_A_PAGE
                )
                return runs.list_infos(transaction, run_pks)

            page = await self._database.read(read)
            if not page:
                return
            yield page
            after = page[-1].run_pk

    async def _runs_of(self, experiment: Experiment) -> AsyncIterator["Part | _FileToSend"]:
        async for page in self._run_pages(experiment):
            for info in page:
                for part in await self._database.read(partial(_run_parts, info=info)):
                    yield part
                for series_id, key in await self._database.read(
                    partial(exported.list_series, run_pk=info.run_pk)
                ):
                    async for points in self._points(info.run_id, series_id, key):
                        yield points
                async for file in self._files(info.run_pk, is_of_model=False):
                    yield file

    async def _points(self, run_id: str, series_id: int, key: str) -> AsyncIterator[Part]:
        after = exported.BEFORE_ALL
        while True:
            page = await self._database.read(
                partial(exported.list_points, series_id=series_id, after=after, limit=_POINTS_READ)
            )
            for start in range(0, len(page), _POINTS_A_PART):
                rows = page[start : start + _POINTS_A_PART]
                points = [(step, time, value, bool(is_nan)) for step, time, value, is_nan in rows]
                yield bundles.PointsPart(run_id, key, points)
            if len(page) < _POINTS_READ:
                return
            after = page[-1]

    async def _files(self, owner: int, *, is_of_model: bool) -> AsyncIterator["_FileToSend"]:
        list_files = exported.list_model_files if is_of_model else exported.list_run_files
        after: str | None = None
        while True:
            page: list[ExportedFile] = await self._database.read(
                lambda transaction, after=after: list_files(  # type: ignore[misc]
                    transaction, owner, after_path=after, limit=_FILES_A_PAGE
                )
            )
            for file in page:
                folder = prefix_of_uri(file.folder_uri)
                if folder is not None:
                    yield _FileToSend(file.owner_id, is_of_model, file.path, joined(folder, file.path))
            if len(page) < _FILES_A_PAGE:
                return
            after = page[-1].path

    async def _model(self, model_pk: int) -> AsyncIterator["Part | _FileToSend"]:
        model, part = await self._database.read(partial(_model_part, model_pk=model_pk))
        if model is None or part is None:
            return
        yield part
        offset = 0
        while True:
            rows = await self._database.read(
                partial(
                    exported.list_model_points, model_id=model.model_id, offset=offset, limit=_POINTS_A_PART
                )
            )
            if rows:
                points = [bundles.ModelPoint(*row) for row in rows]
                yield bundles.ModelPointsPart(model.model_id, points)
            if len(rows) < _POINTS_A_PART:
                break
            offset += len(rows)
        async for file in self._files(model_pk, is_of_model=True):
            yield file


@dataclass(frozen=True, slots=True)
class _FileToSend:
    """A file whose part and bytes are still to be written; `address` is its path under this server."""

    owner_id: str
    is_of_model: bool
    path: str
    address: str


@dataclass(slots=True)
class _OpenBundle:
    """A bundle that is being written, and the parts of its next list."""

    writer: BundleWriter
    number: int = 0
    _parts: list[Part] = field(default_factory=list)
    _size_bytes: int = 0

    @property
    def is_open(self) -> bool:
        """Whether a list has been begun."""
        return bool(self._parts)

    def takes(self, part: Part) -> bool:
        """Add a part to the list; whether it is full now."""
        self._parts.append(part)
        self._size_bytes += len(bundles.encode_parts([part]))
        return self._size_bytes >= _PARTS_BYTES

    def flush(self) -> bytes:
        """The list as a member; the next part begins another one."""
        content = bundles.encode_parts(self._parts)
        member = self.writer.member(bundles.parts_member(self.number), len(content), [content])
        self.number += 1
        self._parts, self._size_bytes = [], 0
        return b"".join(member)


# --- inside a transaction -------------------------------------------------------------------


def _find_experiments(transaction: Transaction, named: Sequence[str]) -> list[Experiment]:
    found: dict[int, Experiment] = {}
    for name in named:
        limits.check_text("experiments", name)
        experiment_id = experiments.find_id_by_name(transaction, name)
        text = name if experiment_id is None else str(experiment_id)
        experiment = get_experiment(transaction, text)
        require_active_experiment(experiment)
        found[experiment.experiment_id] = experiment
    return list(found.values())


def _run_parts(transaction: Transaction, info: RunInfo) -> list[Part]:
    pk = info.run_pk
    tags = dict(runs.list_tags(transaction, [pk]).get(pk, []))
    params = runs.list_params(transaction, [pk]).get(pk, [])
    linked = datasets.list_models(transaction, [pk])
    parts: list[Part] = [
        bundles.RunPart(
            info.run_id,
            info.experiment_id,
            info.name,
            info.user_id,
            info.start_time_ms,
            tags,
            [
                DatasetPart(
                    item.name,
                    item.digest,
                    item.source_type,
                    item.source,
                    item.schema,
                    item.profile,
                    list(item.tags),
                )
                for item in datasets.list_inputs(transaction, [pk]).get(pk, [])
            ],
            [model_id for model_id, _ in linked.get((pk, "input"), [])],
            linked.get((pk, "output"), []),
        )
    ]
    for start in range(0, len(params), _PARAMS_A_PART):
        parts.append(bundles.ParamsPart(info.run_id, params[start : start + _PARAMS_A_PART]))
    return parts


def _model_part(
    transaction: Transaction, model_pk: int
) -> tuple[LoggedModel | None, bundles.ModelPart | None]:
    found = logged_models.get_many(transaction, [model_pk])
    if not found or found[0].lifecycle_stage is LifecycleStage.DELETED:
        return None, None
    model = found[0]
    return model, bundles.ModelPart(
        model.model_id,
        model.experiment_id,
        model.name,
        model.status,
        model.status_message,
        model.model_type,
        model.source_run_id,
        model.creation_timestamp_ms,
        model.last_updated_timestamp_ms,
        dict(logged_models.list_params(transaction, [model_pk]).get(model_pk, [])),
        dict(logged_models.list_tags(transaction, [model_pk]).get(model_pk, [])),
    )
