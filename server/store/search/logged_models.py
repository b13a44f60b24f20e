"""Finding logged models.

A metric of a logged model may have been logged several times, on several datasets. A condition is met
by any of them; an order goes by the latest.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, case, exists, func, or_, select

from server.database.schema import (
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    runs,
)
from server.domain.entities import LifecycleStage
from server.protocol.search.terms import Comparison, DatasetFilter, Entity, Operator, Order
from server.store.search.conditions import Conditions
from server.store.search.pages import read_page

_STATUS_PREFIX = "LOGGED_MODEL_"
_COLUMNS: dict[str, ColumnElement[Any]] = {
    "artifact_location": logged_models.c.artifact_uri,
    "creation_timestamp": logged_models.c.creation_timestamp_ms,
    "experiment_id": logged_models.c.experiment_id,
    "last_updated_timestamp": logged_models.c.last_updated_timestamp_ms,
    "model_id": logged_models.c.model_id,
    "model_type": logged_models.c.model_type,
    "name": logged_models.c.name,
    "source_run_id": logged_models.c.source_run_id,
    # Clients write `READY` in filters and `LOGGED_MODEL_READY` in messages.
    "status": func.replace(logged_models.c.status, _STATUS_PREFIX, ""),
    "status_message": logged_models.c.status_message,
}
_KEYED: dict[Entity, Table] = {Entity.PARAM: logged_model_params, Entity.TAG: logged_model_tags}
_TIES = (
    Order(Entity.ATTRIBUTE, "creation_timestamp", ascending=False),
    Order(Entity.ATTRIBUTE, "model_id", ascending=True),
)


def find_logged_models(
    connection: Connection,
    *,
    experiment_ids: Sequence[int],
    filters: Sequence[Comparison],
    datasets: Sequence[DatasetFilter],
    order: Sequence[Order],
    offset: int,
    limit: int,
) -> tuple[list[int], bool]:
    """The logged models of these experiments that meet every filter, and whether there are more.

    `datasets` narrows the metrics that conditions look at; without a condition on a metric it asks for
    any metric on one of them. Models without a sort key come last in either direction, a NaN metric
    just before them. Ties are broken by the latest creation, then by model id.
    """
    if not experiment_ids:
        return [], False
    conditions = Conditions(dialect=connection.dialect.name)
    query = select(logged_models.c.model_pk).where(
        logged_models.c.experiment_id.in_(experiment_ids),
        logged_models.c.lifecycle_stage == LifecycleStage.ACTIVE.value,
        *(_condition(conditions, comparison, datasets) for comparison in filters),
    )
    if datasets and not any(comparison.entity is Entity.METRIC for comparison in filters):
        query = query.where(
            exists().where(logged_model_metrics.c.model_id == logged_models.c.model_id, _on_any(datasets))
        )
    query = query.order_by(*_sorting(order))
    rows, has_more = read_page(connection, query, offset=offset, limit=limit)
    return [row.model_pk for row in rows], has_more


def _condition(
    conditions: Conditions, comparison: Comparison, datasets: Sequence[DatasetFilter]
) -> ColumnElement[bool]:
    if comparison.entity is Entity.ATTRIBUTE:
        if comparison.key == "status":
            comparison = _without_status_prefix(comparison)
        return conditions.compare(_COLUMNS[comparison.key], comparison)
    if comparison.entity is Entity.METRIC:
        metrics = logged_model_metrics.c
        matches = [
            metrics.model_id == logged_models.c.model_id,
            metrics.key == comparison.key,
            conditions.compare_metric(metrics.value, metrics.is_nan, comparison),
        ]
        return exists().where(*matches, *([_on_any(datasets)] if datasets else []))
    table = _KEYED[comparison.entity]
    return exists().where(
        table.c.model_pk == logged_models.c.model_pk,
        table.c.key == comparison.key,
        conditions.compare(table.c.value, comparison),
    )


def _without_status_prefix(comparison: Comparison) -> Comparison:
    value = comparison.value
    if isinstance(value, tuple):
        value = tuple(str(text).removeprefix(_STATUS_PREFIX) for text in value)
    elif comparison.operator in (Operator.EQUAL, Operator.NOT_EQUAL):
        value = str(value).removeprefix(_STATUS_PREFIX)
    return Comparison(comparison.entity, comparison.key, comparison.operator, value)


def _on_any(datasets: Sequence[DatasetFilter]) -> ColumnElement[bool]:
    metrics = logged_model_metrics.c
    return or_(
        *(
            and_(metrics.dataset_name == dataset.name, metrics.dataset_digest == dataset.digest)
            if dataset.digest is not None
            else metrics.dataset_name == dataset.name
            for dataset in datasets
        )
    )


def _sorting(order: Sequence[Order]) -> list[ColumnElement[Any]]:
    named = {key.key for key in order if key.entity is Entity.ATTRIBUTE}
    sorting: list[ColumnElement[Any]] = []
    for key in [*order, *(tie for tie in _TIES if tie.key not in named)]:
        if key.entity is Entity.METRIC:
            is_nan, value = (_latest(key, column) for column in ("is_nan", "value"))
            rank = case((is_nan == 1, 1), (is_nan.is_(None), 2), else_=0)
        else:
            value = _COLUMNS[key.key]
            rank = case((value.is_(None), 1), else_=0)
        sorting += [rank, value.asc() if key.ascending else value.desc()]
    return sorting


def _latest(key: Order, column: str) -> ColumnElement[Any]:
    """A column of the model's latest point of this metric, on the order's dataset if it has one."""
    metrics = logged_model_metrics.c
    query = (
        select(metrics[column])
        .join(runs, runs.c.run_pk == metrics.run_pk, isouter=True)
        .where(metrics.model_id == logged_models.c.model_id, metrics.key == key.key)
        .order_by(metrics.timestamp_ms.desc(), metrics.step.desc(), runs.c.run_id)
        .limit(1)
    )
    if key.dataset_name is not None:
        query = query.where(metrics.dataset_name == key.dataset_name)
    if key.dataset_digest is not None:
        query = query.where(metrics.dataset_digest == key.dataset_digest)
    return query.correlate(logged_models).scalar_subquery()
