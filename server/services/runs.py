"""Runs: create, find, search, change, delete, and everything that is logged to them."""

import json
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

from server.commit.run_requests import ModelMetric, RunWrite
from server.commit.run_writes import RUN_NAME_TAG
from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.entities import LifecycleStage, Metric, RunInfo, RunStatus, ViewType
from server.domain.errors import invalid_parameter
from server.domain.names import make_run_name
from server.domain.operations import DeleteRun, RestoreRun, SetTag, UpdateRun
from server.domain.origins import Origin
from server.journal.entries import append_entry
from server.protocol import limits, paging
from server.protocol import runs as messages
from server.protocol import search as grammar
from server.protocol.wire import encode_page, missing_parameter
from server.services.claims import CreateKind
from server.services.identity import (
    DEFAULT_EXPERIMENT_ID,
    get_run,
    get_run_lanes,
    require_active_run,
    resolve_experiment_id,
)
from server.services.resends import GroupedCreate, Resends
from server.services.run_creates import RunCreate, make_runs, repeat_run
from server.services.run_memory import RunMemory
from server.services.run_messages import each_encoded_run, load_runs
from server.store import datasets, removals, runs, search
from server.store.announcements import announce_runs

RunPage = tuple[list[messages.RunMessage], str | None]
PARENT_RUN_TAG = "mlflow.parentRunId"
USER_TAG = "mlflow.user"
LOG_MODEL_TAG = "mlflow.log-model.history"
_HISTORY_KEYS = ("run_id", "artifact_path", "utc_time_created", "model_uuid")
_DEFAULT_PAGE = 1000
_LARGEST_PAGE = 50_000
_VIEW_BY_NUMBER = {1: "ACTIVE_ONLY", 2: "DELETED_ONLY", 3: "ALL"}
_STATUS_BY_NUMBER = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


class Runs:
    """What can be done with runs."""

    def __init__(self, *, database: Database, writer: Writer, resends: Resends) -> None:
        self._database = database
        self._writer = writer
        self._resends = resends
        self._memory = RunMemory()
        self._creates = resends.grouped(CreateKind.RUN, make_runs, repeat_run)

    # --- life ---

    async def create(self, request: messages.CreateRunRequest, origin: Origin) -> messages.RunMessage:
        """Make a run under an id of our own, which is also its id in the workspace.

        A client that asks again because it missed the answer is given the run it made.
        """
        tags = dict(
            messages.parse_tag_at_create(tag, f"tags[{index}].") for index, tag in enumerate(request.tags)
        )
        name = _run_name(request.run_name, tags)
        limits.check_int64("start_time", request.start_time)

        all_tags = {**tags, RUN_NAME_TAG: name}
        if origin.principal is not None:
            all_tags[messages.PRINCIPAL_TAG] = origin.principal
        create = RunCreate(
            run_id=uuid4().hex,
            experiment_id=request.experiment_id or str(DEFAULT_EXPERIMENT_ID),
            name=name,
            user_id=request.user_id or tags.get(USER_TAG, ""),
            start_time_ms=request.start_time,
            parent_run_id=tags.get(PARENT_RUN_TAG),
            principal=origin.principal,
            tags=list(all_tags.items()),
        )
        return await self._resends.commit_grouped(
            self._creates,
            GroupedCreate(
                create,
                create.run_id,
                tells_time=request.start_time is not None,
                size_bytes=create.size_bytes,
                rows=create.rows,
            ),
            origin,
        )

    async def get(self, run_id: str) -> messages.RunMessage:
        """One run with its latest metrics, params, tags, inputs and outputs."""
        return await self._database.read(
            lambda transaction: load_runs(transaction, [get_run(transaction, run_id)])[0]
        )

    async def search(self, request: messages.SearchRunsRequest) -> RunPage:
        """A page of runs, and the token of the next one."""
        find = _find_page(request)

        def read(transaction: Transaction) -> RunPage:
            run_pks, token = find(transaction)
            return load_runs(transaction, runs.list_infos(transaction, run_pks)), token

        return await self._database.read(read)

    async def search_json(self, request: messages.SearchRunsRequest) -> bytearray:
        """The same as JSON: a page may be megabytes, so it is encoded in the thread that reads it."""
        find = _find_page(request)

        def read(transaction: Transaction) -> bytearray:
            run_pks, token = find(transaction)
            return encode_page("runs", each_encoded_run(transaction, run_pks, self._memory), token)

        return await self._database.read(read)

    async def update(self, request: messages.UpdateRunRequest, principal: str | None) -> RunInfo:
        """Change status, end time or name; the run afterwards."""
        limits.check_int64("end_time", request.end_time)
        if request.run_name:
            limits.check_length("run_name", limits.TAG_VALUE, request.run_name)
            limits.check_text("run_name", request.run_name)
        change = UpdateRun(_status(request.status), request.end_time, request.run_name or None)
        result: RunInfo = await self._writer.commit_run_write(
            RunWrite(request.named_run, update=change, principal=principal)
        )
        return result

    async def delete(self, run_id: str, principal: str | None) -> None:
        """Delete softly. Deleting what is deleted changes nothing."""
        await self._set_lifecycle_stage(run_id, LifecycleStage.DELETED, principal)

    async def restore(self, run_id: str, principal: str | None) -> None:
        """Restore a deleted run."""
        await self._set_lifecycle_stage(run_id, LifecycleStage.ACTIVE, principal)

    async def _set_lifecycle_stage(self, run_id: str, stage: LifecycleStage, principal: str | None) -> None:
        def apply(transaction: Transaction) -> None:
            lanes = get_run_lanes(transaction, run_id)
            if lanes.lifecycle_stage is stage:
                return
            deleting = stage is LifecycleStage.DELETED
            if not deleting and removals.is_run_announced(transaction, lanes.run_pk):
                raise invalid_parameter(f"The run {run_id} is being removed for good.")
            runs.set_lifecycle_stage(
                transaction, [lanes.run_pk], stage, transaction.now_ms if deleting else None
            )
            append_entry(
                transaction,
                lanes.data_lane,
                DeleteRun() if deleting else RestoreRun(),
                principal=principal,
                awaits_end_of=[lanes.artifact_lane] if deleting else [],
            )
            announce_runs(
                transaction,
                [("deleted" if deleting else "restored", get_run(transaction, lanes.run_id))],
            )

        await self._writer.commit(Work(apply))

    # --- logging ---

    async def log_metric(
        self, request: messages.LogMetricRequest, principal: str | None, size_bytes: int
    ) -> None:
        """Log one point."""
        run_id = request.named_run
        metric = messages.parse_metric(request)
        await self._writer.commit_run_write(
            RunWrite(
                run_id,
                metrics=(metric,),
                model_metrics=_model_metrics([(request, metric)]),
                principal=principal,
                size_bytes=size_bytes,
            )
        )

    async def log_param(self, request: messages.LogParamRequest, principal: str | None) -> None:
        """Log one param."""
        run_id, param = request.named_run, messages.parse_param(request)
        await self._writer.commit_run_write(RunWrite(run_id, params=(param,), principal=principal))

    async def set_tag(self, request: messages.SetTagRequest, principal: str | None) -> None:
        """Set one tag."""
        run_id, tag = request.named_run, messages.parse_tag(request)
        await self._writer.commit_run_write(RunWrite(run_id, tags=(tag,), principal=principal))

    async def delete_tag(self, request: messages.DeleteTagRequest, principal: str | None) -> None:
        """Delete one tag."""
        run_id = request.named_run
        if not request.key:
            raise missing_parameter("key")
        messages.refuse_principal_tag(request.key)
        await self._writer.commit_run_write(RunWrite(run_id, deleted_tag=request.key, principal=principal))

    async def log_batch(
        self, request: messages.LogBatchRequest, principal: str | None, size_bytes: int
    ) -> None:
        """Log metrics, params and tags, all or none."""
        run_id = request.named_run
        limits.check_run_id(run_id)
        limits.check_batch(len(request.metrics), len(request.params), len(request.tags))
        points = messages.parse_metrics(request.metrics)
        params = [
            messages.parse_param(item, f"params[{index}].") for index, item in enumerate(request.params)
        ]
        tags = [messages.parse_tag(item, f"tags[{index}].") for index, item in enumerate(request.tags)]
        limits.check_unique_params([key for key, _ in params])
        await self._writer.commit_run_write(
            RunWrite(
                run_id,
                metrics=points,
                model_metrics=_model_metrics(zip(request.metrics, points, strict=True)),
                params=params,
                tags=tags,
                principal=principal,
                is_batch=True,
                size_bytes=size_bytes,
            )
        )

    async def log_model(self, request: messages.LogModelRequest, principal: str | None) -> None:
        """Add a model to the run's history tag, as clients before 3.0 do with each `log_model`."""
        run_id = request.named_run
        model = _parse_model(request.model_json)

        def apply(transaction: Transaction) -> None:
            lanes = get_run_lanes(transaction, run_id)
            require_active_run(lanes)
            tags = dict(runs.list_tags(transaction, [lanes.run_pk]).get(lanes.run_pk, []))
            history = _logged_before(tags.get(LOG_MODEL_TAG))
            if model in history:
                return  # asked again: the answer was lost
            value = json.dumps([*history, model])
            runs.set_tag(transaction, lanes.run_pk, LOG_MODEL_TAG, value)
            append_entry(transaction, lanes.data_lane, SetTag(LOG_MODEL_TAG, value), principal=principal)

        await self._writer.commit(Work(apply))

    async def log_inputs(self, request: messages.LogInputsRequest) -> None:
        """Note datasets and models that a run used. Kept here: the workspace has no open call for it."""
        inputs = [_dataset_input(item, index) for index, item in enumerate(request.datasets)]
        models = [(model.model_id, 0) for model in request.models]
        run_id = request.named_run

        def apply(transaction: Transaction) -> None:
            lanes = get_run_lanes(transaction, run_id)
            require_active_run(lanes)
            for item in inputs:
                datasets.log_input(transaction, lanes.experiment_id, lanes.run_pk, item)
            datasets.link_models(transaction, lanes.run_pk, "input", models)

        await self._writer.commit(Work(apply, rows=1 + 3 * len(inputs) + len(models)))

    async def log_outputs(self, request: messages.LogOutputsRequest) -> None:
        """Note logged models that a run made."""
        models = [(model.model_id, model.step) for model in request.models]
        run_id = request.named_run

        def apply(transaction: Transaction) -> None:
            lanes = get_run_lanes(transaction, run_id)
            require_active_run(lanes)
            datasets.link_models(transaction, lanes.run_pk, "output", models)

        await self._writer.commit(Work(apply, rows=1 + len(models)))


# --- creating -------------------------------------------------------------------------------


def _run_name(name: str | None, tags: dict[str, str]) -> str:
    tagged = tags.get(RUN_NAME_TAG)
    if name and tagged and name != tagged:
        raise invalid_parameter(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values"
            f" (run_name='{name}', mlflow.runName='{tagged}')."
        )
    chosen = name or tagged or make_run_name()
    limits.check_length("run_name", limits.TAG_VALUE, chosen)
    limits.check_text("run_name", chosen)
    return chosen


# --- searching ------------------------------------------------------------------------------


def _find_page(
    request: messages.SearchRunsRequest,
) -> Callable[[Transaction], tuple[list[int], str | None]]:
    """What finds the runs of the page that is asked for, and the token of the next one.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE`, the filter, the order, the page size or the token is wrong.
    """
    limit = limits.check_page_size(request.max_results, default=_DEFAULT_PAGE, largest=_LARGEST_PAGE)
    offset = paging.decode_offset(request.page_token)
    filters = grammar.parse_run_filter(request.filter)
    order = grammar.parse_run_order(request.order_by)
    view = parse_view(request.run_view_type)

    def find(transaction: Transaction) -> tuple[list[int], str | None]:
        experiment_ids = [resolve_experiment_id(transaction, text) for text in request.experiment_ids]
        run_pks, has_more = search.find_runs(
            transaction.connection,
            experiment_ids=experiment_ids,
            view=view,
            filters=filters,
            order=order,
            offset=offset,
            limit=limit,
        )
        token = paging.encode_offset(offset + limit) if has_more else None
        return run_pks, token

    return find


# --- parsing --------------------------------------------------------------------------------


def parse_view(view: str | int | None) -> ViewType:
    """The view type in a request; active things only when it is absent or unknown, as on a stock server."""
    if isinstance(view, str) and view.isascii() and view.isdigit():
        view = int(view[:2])
    name = _VIEW_BY_NUMBER.get(view) if isinstance(view, int) else view
    return ViewType.__members__.get(name or "", ViewType.ACTIVE_ONLY)


def _status(value: str | int | None) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:2])
    name = _STATUS_BY_NUMBER.get(value) if isinstance(value, int) else value
    if name not in RunStatus.__members__:
        raise limits.invalid_value("status", value, f"Expected one of {', '.join(RunStatus)}.")
    return name


def _model_metrics(
    pairs: Iterable[tuple[messages.MetricMessage | messages.LogMetricRequest, Metric]],
) -> list[ModelMetric]:
    return [
        ModelMetric(message.model_id, metric, message.dataset_name, message.dataset_digest)
        for message, metric in pairs
        if message.model_id
    ]


def _logged_before(history: str | None) -> list[Any]:
    """The models in a history tag; a client may have set the tag to anything."""
    try:
        models = json.loads(history or "[]")
    except ValueError:
        return []
    return models if isinstance(models, list) else []


def _parse_model(text: str | None) -> dict[str, Any]:
    if not text:
        raise missing_parameter("model_json")
    try:
        model = json.loads(text)
    except ValueError as error:
        raise invalid_parameter(f"Malformed model info. \n {text[:500]} \n is not a valid JSON.") from error
    if not isinstance(model, dict):
        raise invalid_parameter("Malformed model info. It must be a JSON object.")
    missing = [key for key in ("artifact_path", "flavors", "utc_time_created", "run_id") if key not in model]
    if missing:
        raise invalid_parameter(f"Model json is missing mandatory fields: {missing}")
    return _history_entry(model)


def _history_entry(model: dict[str, Any]) -> dict[str, Any]:
    """What a stock server keeps of a model in the tag: where it is and how to load it."""
    entry = {key: model[key] for key in _HISTORY_KEYS if key in model}
    flavors = model["flavors"] if isinstance(model["flavors"], dict) else {}
    entry["flavors"] = {
        name: {key: value for key, value in flavor.items() if key != "config"}
        if isinstance(flavor, dict)
        else flavor
        for name, flavor in flavors.items()
    }
    return entry


def _dataset_input(item: messages.DatasetInputMessage, index: int) -> datasets.DatasetInput:
    dataset = item.dataset
    if dataset is None:
        raise missing_parameter(f"datasets[{index}].dataset")
    for name in ("name", "digest", "source_type", "source"):
        if not getattr(dataset, name):
            raise missing_parameter(f"datasets[{index}].dataset.{name}")
    limits.check_length("name", limits.DATASET_NAME, dataset.name)
    limits.check_length("digest", limits.DATASET_DIGEST, dataset.digest)
    limits.check_length("source", limits.DATASET_SOURCE, dataset.source)
    limits.check_length("schema", limits.DATASET_SCHEMA, dataset.schema)
    limits.check_length("profile", limits.DATASET_PROFILE, dataset.profile)
    for tag in item.tags:
        limits.check_length("key", limits.INPUT_TAG_KEY, tag.key)
        limits.check_length("value", limits.INPUT_TAG_VALUE, tag.value)
    return datasets.DatasetInput(
        dataset.name or "",
        dataset.digest or "",
        dataset.source_type or "",
        dataset.source or "",
        dataset.schema,
        dataset.profile,
        tuple((tag.key, tag.value) for tag in item.tags),
    )
