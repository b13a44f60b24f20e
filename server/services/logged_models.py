"""Logged models (MLflow 3): create, find, search, finish, delete, tag.

The workspace knows no logged models. Their files are delivered under the run that made them, the rest
is kept here.
"""

from collections.abc import Callable, Sequence
from uuid import uuid4

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.entities import LifecycleStage
from server.domain.errors import does_not_exist, invalid_parameter
from server.domain.names import make_run_name
from server.domain.origins import Origin
from server.journal.lanes import lock_lanes
from server.protocol import limits, paging
from server.protocol import logged_models as messages
from server.protocol import search as grammar
from server.protocol.experiments import TagMessage
from server.protocol.runs import MetricAnswer, ParamMessage, RunTagMessage, parse_param, parse_tag
from server.protocol.search import LoggedModelOrderBy
from server.services.claims import CreateKind, Made
from server.services.identity import get_experiment, require_active_experiment, resolve_experiment_id
from server.services.resends import DEDUPED, DEDUPED_TAG, Create, Resends
from server.store import logged_models, runs, search
from server.store.logged_models import LoggedModel, ModelMetric

_DEFAULT_PAGE = 50
_LARGEST_PAGE = 50_000


class LoggedModels:
    """What can be done with logged models."""

    def __init__(self, *, database: Database, writer: Writer, resends: Resends) -> None:
        self._database = database
        self._writer = writer
        self._resends = resends

    async def create(
        self, request: messages.CreateLoggedModelRequest, origin: Origin
    ) -> messages.LoggedModelMessage:
        """Make a logged model, waiting for its files.

        A client that asks again because it missed the answer is given the one it made.
        """
        name = messages.parse_name(request.name) or make_run_name()
        params = _parse_params(request.params)
        tags = _parse_tags(request.tags)
        for field in ("model_type", "source_run_id"):
            limits.check_length(field, limits.ENTITY_KEY, getattr(request, field))
            limits.check_text(field, getattr(request, field) or "")

        def make(transaction: Transaction) -> Made[messages.LoggedModelMessage]:
            model = _new_model(transaction, request, name)
            model_pk = logged_models.insert(
                transaction, model, params=params, tags=tags, principal=origin.principal
            )
            made = load_logged_models(transaction, logged_models.get_many(transaction, [model_pk]))[0]
            return Made(made, model.model_id)

        rows = 2 + len(params) + len(tags)
        return await self._resends.commit(
            Create(CreateKind.LOGGED_MODEL, make, _repeat_model, rows=rows), origin
        )

    async def get(self, model_id: str, *, allow_deleted: bool = False) -> messages.LoggedModelMessage:
        """One logged model with its params, tags and latest metrics."""

        def find(transaction: Transaction) -> messages.LoggedModelMessage:
            model = get_logged_model(transaction, model_id)
            if model.lifecycle_stage is LifecycleStage.DELETED and not allow_deleted:
                raise _not_found(model_id)
            return load_logged_models(transaction, [model])[0]

        return await self._database.read(find)

    async def search(
        self, request: messages.SearchLoggedModelsRequest
    ) -> tuple[list[messages.LoggedModelMessage], str | None]:
        """A page of logged models, and the token of the next one."""
        limit = limits.check_page_size(
            request.max_results or None, default=_DEFAULT_PAGE, largest=_LARGEST_PAGE
        )
        offset = paging.decode_offset(request.page_token)
        filters = grammar.parse_logged_model_filter(request.filter)
        order = grammar.parse_logged_model_order(
            [
                LoggedModelOrderBy(item.field_name, item.ascending, item.dataset_name, item.dataset_digest)
                for item in request.order_by
            ]
        )
        datasets = grammar.parse_logged_model_datasets(
            [(item.dataset_name, item.dataset_digest or None) for item in request.datasets]
        )

        def find(transaction: Transaction) -> tuple[list[messages.LoggedModelMessage], str | None]:
            model_pks, has_more = search.find_logged_models(
                transaction.connection,
                experiment_ids=[resolve_experiment_id(transaction, text) for text in request.experiment_ids],
                filters=filters,
                datasets=datasets,
                order=order,
                offset=offset,
                limit=limit,
            )
            found = load_logged_models(transaction, logged_models.get_many(transaction, model_pks))
            return found, paging.encode_offset(offset + limit) if has_more else None

        return await self._database.read(find)

    async def finalize(self, model_id: str, status: str | int | None) -> messages.LoggedModelMessage:
        """Note whether the upload of the model went well; the model afterwards."""
        wanted = messages.parse_status(status)
        return await self._change(
            model_id, lambda transaction, model: logged_models.set_status(transaction, model.model_pk, wanted)
        )

    async def delete(self, model_id: str) -> None:
        """Delete softly."""
        await self._change(
            model_id,
            lambda transaction, model: logged_models.set_lifecycle_stage(
                transaction, model.model_pk, LifecycleStage.DELETED
            ),
        )

    async def set_tags(self, model_id: str, tags: Sequence[RunTagMessage]) -> None:
        """Set tags."""
        parsed = _parse_tags(tags)
        await self._change(
            model_id, lambda transaction, model: logged_models.set_tags(transaction, model.model_pk, parsed)
        )

    async def delete_tag(self, model_id: str, key: str) -> None:
        """Delete one tag."""

        def change(transaction: Transaction, model: LoggedModel) -> None:
            limits.check_text("tag_key", key)
            if not logged_models.delete_tag(transaction, model.model_pk, key):
                raise does_not_exist(f"No tag with key {key!r} found for model with ID {model_id!r}.")

        await self._change(model_id, change)

    async def log_params(self, model_id: str, params: Sequence[ParamMessage]) -> None:
        """Log params. One that is there already must have the same value."""
        parsed = _parse_params(params)

        def change(transaction: Transaction, model: LoggedModel) -> None:
            known = dict(logged_models.list_params(transaction, [model.model_pk]).get(model.model_pk, []))
            for key in parsed:
                if key in known and known[key] != parsed[key]:
                    raise invalid_parameter(
                        f"Changing param values is not allowed. Param with key='{key}' was already logged"
                        f" with value='{known[key]}' for model ID='{model_id}'. Attempted logging new value"
                        f" '{parsed[key]}'."
                    )
            new = {key: value for key, value in parsed.items() if key not in known}
            logged_models.add_params(transaction, model.model_pk, new)

        await self._change(model_id, change)

    async def _change(
        self, model_id: str, change: Callable[[Transaction, LoggedModel], None]
    ) -> messages.LoggedModelMessage:
        def apply(transaction: Transaction) -> messages.LoggedModelMessage:
            model = get_logged_model(transaction, model_id)
            change(transaction, model)
            return load_logged_models(transaction, logged_models.get_many(transaction, [model.model_pk]))[0]

        return await self._writer.commit(Work(apply))


def get_logged_model(transaction: Transaction, model_id: str) -> LoggedModel:
    """The logged model, deleted or not.

    Raises:
        MlflowError: there is none.
    """
    limits.check_text("model_id", model_id)
    model = logged_models.find(transaction, model_id)
    if model is None:
        raise _not_found(model_id)
    return model


def load_logged_models(
    transaction: Transaction, models: Sequence[LoggedModel]
) -> list[messages.LoggedModelMessage]:
    """The logged models with all they hold, in as many statements as there are kinds of data."""
    model_pks = [model.model_pk for model in models]
    params = logged_models.list_params(transaction, model_pks)
    tags = logged_models.list_tags(transaction, model_pks)
    metrics = logged_models.list_latest_metrics(transaction, [model.model_id for model in models])
    return [
        messages.LoggedModelMessage(
            _info(model, tags.get(model.model_pk, [])),
            messages.LoggedModelDataMessage(
                [TagMessage(key, value) for key, value in params.get(model.model_pk, ())],
                [_metric(model.model_id, metric) for metric in metrics.get(model.model_id, ())],
            ),
        )
        for model in models
    ]


def _info(model: LoggedModel, tags: Sequence[tuple[str, str]]) -> messages.LoggedModelInfoMessage:
    return messages.LoggedModelInfoMessage(
        model.model_id,
        str(model.experiment_id),
        model.name,
        model.creation_timestamp_ms,
        model.last_updated_timestamp_ms,
        model.artifact_uri,
        model.status,
        model.model_type or "",
        model.source_run_id or "",
        model.status_message,
        [TagMessage(key, value) for key, value in tags],
    )


def _metric(model_id: str, metric: ModelMetric) -> MetricAnswer:
    return MetricAnswer(
        metric.key,
        "NaN" if metric.is_nan else metric.value,
        metric.timestamp_ms,
        metric.step,
        model_id,
        metric.dataset_name,
        metric.dataset_digest,
        metric.run_id,
    )


def _new_model(
    transaction: Transaction, request: messages.CreateLoggedModelRequest, name: str
) -> LoggedModel:
    experiment = get_experiment(transaction, request.experiment_id)
    require_active_experiment(experiment)
    model_id = f"m-{uuid4().hex}"
    source_run_id, folder = place_under_run(transaction, request.source_run_id or None, name, model_id)
    return LoggedModel(
        model_pk=0,
        model_id=model_id,
        experiment_id=experiment.experiment_id,
        name=name,
        artifact_uri=f"{experiment.artifact_location.rstrip('/')}/models/{model_id}/artifacts",
        status=messages.PENDING,
        status_message=None,
        model_type=request.model_type or None,
        source_run_id=source_run_id,
        lifecycle_stage=LifecycleStage.ACTIVE,
        creation_timestamp_ms=transaction.now_ms,
        last_updated_timestamp_ms=transaction.now_ms,
        upstream_folder=folder,
    )


def _repeat_model(transaction: Transaction, model_id: str) -> messages.LoggedModelMessage | None:
    """The logged model that an earlier create made, tagged as asked for again."""
    model = logged_models.find_made(transaction, model_id)
    if model is None:
        return None
    logged_models.set_tags(transaction, model.model_pk, {DEDUPED_TAG: DEDUPED})
    return load_logged_models(transaction, [model])[0]


def place_under_run(
    transaction: Transaction, given: str | None, name: str, model_id: str
) -> tuple[str | None, str | None]:
    """The id of the source run here, and the folder for the model's files under it in the workspace."""
    run = runs.find_info(transaction, given) if given else None
    lanes = runs.find_lanes(transaction, run.run_id) if run else None
    if run is None or lanes is None:
        return given, None
    # Two replicas that make a model of the same name for the same run take turns.
    lock_lanes(transaction, [lanes.artifact_lane])
    taken = logged_models.find_by_upstream_folder(transaction, run.run_id, name) is not None
    return run.run_id, f"{name}-{model_id}" if taken else name


def _parse_params(params: Sequence[ParamMessage]) -> dict[str, str]:
    parsed = [parse_param(item, f"params[{index}].") for index, item in enumerate(params)]
    limits.check_unique_params([key for key, _ in parsed])
    return dict(parsed)


def _parse_tags(tags: Sequence[RunTagMessage]) -> dict[str, str]:
    return dict(parse_tag(item, f"tags[{index}].") for index, item in enumerate(tags))


def _not_found(model_id: str) -> Exception:
    return does_not_exist(f"Logged model with ID '{model_id}' not found.")
