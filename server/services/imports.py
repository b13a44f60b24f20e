"""Importing a bundle: its lists of parts one after the other, each harmless to apply again.

What a bundle holds goes the way of what clients log: through the same services, with the same checks and
limits, into the store and the journal, so that it is delivered as if it had been logged here. Run ids, names
and times are kept; experiments are found by their name, and get an id of their own if they are new. What is
there already as the bundle has it is left alone.
"""

from dataclasses import dataclass
from functools import partial
from typing import assert_never

from server.commit.run_writes import RUN_NAME_TAG
from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.entities import LifecycleStage, RunStatus
from server.domain.errors import does_not_exist, invalid_parameter
from server.domain.operations import SetExperimentTag
from server.journal.entries import append_entry
from server.protocol import bundles, limits
from server.protocol import runs as messages
from server.protocol.artifacts import checked_path
from server.protocol.bundles import (
    EndPart,
    ExperimentPart,
    FilePart,
    ModelPart,
    ModelPointsPart,
    ParamsPart,
    Part,
    PointsPart,
    RunPart,
)
from server.protocol.experiments import TagMessage
from server.protocol.logged_models import parse_name
from server.services.artifact_places import joined, model_folder, run_folder
from server.services.experiments import add_experiment, announce_experiment
from server.services.logged_models import place_under_run
from server.services.run_creates import add_run
from server.services.runs import PARENT_RUN_TAG, Runs
from server.store import artifacts, experiments, imported, logged_models, runs
from server.store.imported import ImportState
from server.store.logged_models import LoggedModel
from server.store.runs import NewRun


@dataclass(frozen=True, slots=True)
class _Import:
    """An import under way."""

    bundle_id: str
    state: ImportState
    principal: str | None


class Imports:
    """Takes in bundles."""

    def __init__(self, *, database: Database, writer: Writer, runs_service: Runs) -> None:
        self._database = database
        self._writer = writer
        self._runs = runs_service

    async def begin(self, bundle_id: str, names: list[str]) -> int:
        """The number of the list of parts to go on with: 0, or where an import of this bundle stopped.

        Raises:
            MlflowError: an experiment of that name is deleted here.
        """
        _check_id(bundle_id)

        def find(transaction: Transaction) -> int:
            for name in names:
                limits.check_text("experiments", name)
                _require_no_deleted(transaction, name)
            return imported.find(transaction, bundle_id).next_part

        return await self._database.read(find)

    async def apply(
        self, bundle_id: str, number: int, parts: list[Part], principal: str | None
    ) -> str | None:
        """Apply a list of parts, unless it has been; where the file of its last part is to be uploaded.

        None where there is no file, or where it is there already.

        Raises:
            MlflowError: a list before this one is missing, or a part breaks a rule that clients have to keep.
        """
        _check_id(bundle_id)
        state = await self._database.read(partial(imported.find, bundle_id=bundle_id))
        if number > state.next_part:
            raise invalid_parameter(f"Part {state.next_part} of the bundle is missing.")
        if number == state.next_part:
            under_way = _Import(bundle_id, state, principal)
            for part in parts:
                await self._apply(under_way, part)
            failpoints.reach("import.applied")
            state.next_part = number + 1
            await self._writer.commit(
                Work(partial(imported.put, bundle_id=bundle_id, state=state)), background=True
            )
        last = parts[-1] if parts else None
        if not isinstance(last, FilePart):
            return None
        return await self._database.read(partial(_missing_file, part=last))

    async def _apply(self, under_way: _Import, part: Part) -> None:
        match part:
            case ExperimentPart():
                await self._commit_alone(partial(_add_experiment, under_way=under_way, part=part))
            case RunPart():
                await self._add_run(under_way, part)
            case ParamsPart():
                params = [messages.ParamMessage(key, value) for key, value in part.params]
                await self._log(under_way, messages.LogBatchRequest(run_id=part.run_id, params=params))
            case PointsPart():
                points = [
                    messages.MetricMessage(
                        key=part.key, value=_value(value, is_nan), timestamp=time, step=step
                    )
                    for step, time, value, is_nan in part.points
                ]
                await self._log(under_way, messages.LogBatchRequest(run_id=part.run_id, metrics=points))
            case ModelPart():
                await self._commit_alone(partial(_add_model, under_way=under_way, part=part))
            case ModelPointsPart():
                await self._log_model_points(under_way, part)
            case EndPart():
                await self._end(under_way, part)
            case FilePart():
                pass  # its bytes come by themselves
            case _:
                assert_never(part)

    async def _commit_alone(self, apply: "partial[None]") -> None:
        await self._writer.commit(Work(apply, alone=True))

    async def _log(self, under_way: _Import, request: messages.LogBatchRequest) -> None:
        size_bytes = 64 * (len(request.metrics) + len(request.params))
        await self._runs.log_batch(request, under_way.principal, size_bytes)

    async def _add_run(self, under_way: _Import, part: RunPart) -> None:
        changed_tags = await self._writer.commit(
            Work(partial(_add_run, under_way=under_way, part=part), rows=5 + len(part.tags))
        )
        for tag in changed_tags:
            await self._runs.set_tag(
                messages.SetTagRequest(run_id=part.run_id, key=tag[0], value=tag[1]), under_way.principal
            )
        if part.datasets or part.input_models:
            await self._runs.log_inputs(_inputs_of(part))
        if part.output_models:
            models = [messages.ModelOutputMessage(model_id, step) for model_id, step in part.output_models]
            await self._runs.log_outputs(messages.LogOutputsRequest(run_id=part.run_id, models=models))

    async def _log_model_points(self, under_way: _Import, part: ModelPointsPart) -> None:
        """Points of a run that is not here stay out: they belong to it."""
        run_ids = {point.run_id for point in part.points}
        known = await self._database.read(partial(runs.find_made, run_ids=run_ids))
        for run_id in known:
            points = [
                messages.MetricMessage(
                    key=point.key,
                    value=_value(point.value, point.is_nan),
                    timestamp=point.timestamp_ms,
                    step=point.step,
                    model_id=part.model_id,
                    dataset_name=point.dataset_name,
                    dataset_digest=point.dataset_digest,
                )
                for point in part.points
                if point.run_id == run_id
            ]
            await self._log(under_way, messages.LogBatchRequest(run_id=run_id, metrics=points))

    async def _end(self, under_way: _Import, part: EndPart) -> None:
        if part.status not in list(RunStatus):
            raise invalid_parameter(f"'{part.status}' is not the status of a run.")
        found = await self._database.read(partial(runs.find_info, run_id=part.run_id))
        if found is None:
            raise does_not_exist(f"Run with id={part.run_id} not found")
        if (found.status.value, found.end_time_ms) == (part.status, part.end_time_ms):
            return
        await self._runs.update(
            messages.UpdateRunRequest(run_id=part.run_id, status=part.status, end_time=part.end_time_ms),
            under_way.principal,
        )


# --- inside a transaction -------------------------------------------------------------------


def _require_no_deleted(transaction: Transaction, name: str) -> None:
    found = experiments.find_id_by_name(transaction, name)
    if found is None:
        return
    if experiments.get_many(transaction, [found])[0].lifecycle_stage is LifecycleStage.DELETED:
        raise invalid_parameter(
            f"The experiment '{name}' is deleted here: restore it, or remove it for good."
        )


def _add_experiment(transaction: Transaction, *, under_way: _Import, part: ExperimentPart) -> None:
    name = limits.check_experiment_name(part.name)
    limits.check_int64("creation_time_ms", part.creation_time_ms)
    for key, value in part.tags.items():
        limits.check_key(key, "key")
        limits.check_length("value", limits.EXPERIMENT_TAG_VALUE, value)
        limits.check_text("value", value)
    _require_no_deleted(transaction, name)
    experiment_id = experiments.find_id_by_name(transaction, name)
    if experiment_id is None:
        experiment_id = add_experiment(transaction, name, principal=under_way.principal)
        imported.set_experiment_creation(transaction, experiment_id, part.creation_time_ms)
    known = {tag.key: tag.value for tag in experiments.get_many(transaction, [experiment_id])[0].tags}
    new = [(key, value) for key, value in part.tags.items() if known.get(key) != value]
    if new:
        experiments.set_tags(transaction, experiment_id, new)
        announce_experiment(transaction, experiment_id, under_way.principal)
    lane_id = experiments.lane_of(transaction, experiment_id)
    for key, value in new:
        append_entry(
            transaction, lane_id, SetExperimentTag(experiment_id, key, value), principal=under_way.principal
        )
    under_way.state.experiments[str(part.experiment_id)] = experiment_id
    imported.put(transaction, under_way.bundle_id, under_way.state)


def _add_run(transaction: Transaction, *, under_way: _Import, part: RunPart) -> list[tuple[str, str]]:
    """Make the run; if it is here already, the tags that are to be set."""
    _check_id(part.run_id)
    experiment_id = _experiment_here(under_way, part.experiment_id)
    limits.check_length("run_name", limits.TAG_VALUE, part.name)
    limits.check_text("run_name", part.name)
    limits.check_text("user_id", part.user_id)
    limits.check_int64("start_time", part.start_time_ms)
    for _, step in part.output_models:
        limits.check_int64("step", step)
    tags = dict(
        messages.parse_tag(messages.RunTagMessage(key, value), "tags.") for key, value in part.tags.items()
    )
    found = runs.find_info(transaction, part.run_id)
    if found is not None:
        if found.experiment_id != experiment_id:
            raise invalid_parameter(f"The run {part.run_id} is here already, in another experiment.")
        known = dict(runs.list_tags(transaction, [found.run_pk]).get(found.run_pk, []))
        return [(key, value) for key, value in tags.items() if known.get(key) != value]
    location = experiments.get_many(transaction, [experiment_id])[0].artifact_location
    add_run(
        transaction,
        NewRun(
            run_id=part.run_id,
            experiment_id=experiment_id,
            name=part.name,
            user_id=part.user_id,
            status=RunStatus.RUNNING,
            start_time_ms=part.start_time_ms,
            artifact_uri=f"{location.rstrip('/')}/{part.run_id}/artifacts",
            parent_run_id=tags.get(PARENT_RUN_TAG),
            principal=under_way.principal,
            tags=list({**tags, RUN_NAME_TAG: part.name}.items()),
        ),
    )
    return []


def _add_model(transaction: Transaction, *, under_way: _Import, part: ModelPart) -> None:
    _check_id(part.model_id)
    if logged_models.find(transaction, part.model_id) is not None:
        return
    name = parse_name(part.name)
    if not name or part.status not in _MODEL_STATUSES:
        raise invalid_parameter(f"The logged model {part.model_id} has no such name or status.")
    for text in (part.status_message, part.model_type, part.source_run_id):
        limits.check_length("model_type", limits.ENTITY_KEY, text)
        limits.check_text("model_type", text or "")
    limits.check_int64("creation_timestamp_ms", part.creation_timestamp_ms)
    limits.check_int64("last_updated_timestamp_ms", part.last_updated_timestamp_ms)
    experiment_id = _experiment_here(under_way, part.experiment_id)
    location = experiments.get_many(transaction, [experiment_id])[0].artifact_location
    source_run_id, folder = place_under_run(transaction, part.source_run_id, name, part.model_id)
    model = LoggedModel(
        model_pk=0,
        model_id=part.model_id,
        experiment_id=experiment_id,
        name=name,
        artifact_uri=f"{location.rstrip('/')}/models/{part.model_id}/artifacts",
        status=part.status,
        status_message=part.status_message,
        model_type=part.model_type,
        source_run_id=source_run_id,
        lifecycle_stage=LifecycleStage.ACTIVE,
        creation_timestamp_ms=part.creation_timestamp_ms,
        last_updated_timestamp_ms=part.last_updated_timestamp_ms,
        upstream_folder=folder,
    )
    params = dict(
        messages.parse_param(messages.ParamMessage(key, value), "params.")
        for key, value in part.params.items()
    )
    tags = dict(
        messages.parse_tag(messages.RunTagMessage(key, value), "tags.") for key, value in part.tags.items()
    )
    logged_models.insert(transaction, model, params=params, tags=tags, principal=under_way.principal)


def _missing_file(transaction: Transaction, *, part: FilePart) -> str | None:
    """The path to upload the file to; None if the same bytes are there."""
    path = checked_path(part.path)
    _check_id(part.owner_id)
    if part.is_of_model:
        folder = model_folder(transaction, part.owner_id)[0]
    else:
        folder = run_folder(transaction, part.owner_id)[0]
    _, known = artifacts.find_in_root(transaction, folder, path)
    if known is not None and (known.md5, known.size_bytes) == (part.md5, part.size_bytes):
        return None
    return joined(folder, path)


_MODEL_STATUSES = ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")


def _experiment_here(under_way: _Import, experiment_id: int) -> int:
    try:
        return under_way.state.experiments[str(experiment_id)]
    except KeyError:
        raise invalid_parameter(f"The bundle does not hold experiment {experiment_id}.") from None


def _check_id(text: str) -> None:
    if not bundles.ID.fullmatch(text):
        raise invalid_parameter(f"'{text[:80]}' cannot be an id.")


def _value(value: float, is_nan: bool) -> float:
    return float("nan") if is_nan else value


def _inputs_of(part: RunPart) -> messages.LogInputsRequest:
    datasets = [
        messages.DatasetInputMessage(
            [TagMessage(key, value) for key, value in item.tags],
            messages.DatasetMessage(
                item.name, item.digest, item.source_type, item.source, item.schema, item.profile
            ),
        )
        for item in part.datasets
    ]
    models = [messages.ModelInputMessage(model_id) for model_id in part.input_models]
    return messages.LogInputsRequest(run_id=part.run_id, datasets=datasets, models=models)
