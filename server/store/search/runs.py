"""Finding runs.

A condition on a metric, param, tag or dataset is an `EXISTS` that the index on (run, key) answers. A
sort key is an outer join, so that runs without it stay and come last.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    and_,
    case,
    exists,
    not_,
    select,
)

from server.database.schema import dataset_input_tags, dataset_inputs, datasets, params, runs, series, tags
from server.domain.entities import ViewType
from server.protocol.search.terms import Comparison, Entity, Operator, Order
from server.store.search.conditions import Conditions
from server.store.search.lifecycles import run_stage_condition
from server.store.search.pages import read_page

_CONTEXT_TAG = "mlflow.data.context"
_COLUMNS = {
    "artifact_uri": runs.c.artifact_uri,
    "end_time": runs.c.end_time_ms,
    "run_id": runs.c.run_id,
    "run_name": runs.c.name,
    "start_time": runs.c.start_time_ms,
    "status": runs.c.status,
    "user_id": runs.c.user_id,
}
_KEYED: dict[Entity, Table] = {Entity.METRIC: series, Entity.PARAM: params, Entity.TAG: tags}


def find_runs(
    connection: Connection,
    *,
    experiment_ids: Sequence[int],
    view: ViewType,
    filters: Sequence[Comparison],
    order: Sequence[Order],
    offset: int,
    limit: int,
) -> tuple[list[int], bool]:
    """The runs of these experiments that meet every filter, in order, and whether there are more.

    Runs without a sort key come last in either direction, a NaN metric just before them. Ties are
    broken by the latest start, then by run id.
    """
    if not experiment_ids:
        return [], False
    conditions = Conditions(dialect=connection.dialect.name)
    query = select(runs.c.run_pk).where(
        runs.c.experiment_id.in_(experiment_ids),
        run_stage_condition(connection, experiment_ids, view),
        *_conditions(conditions, filters),
    )
    rows, has_more = read_page(connection, _sorted(query, order), offset=offset, limit=limit)
    return [row.run_pk for row in rows], has_more


def _conditions(conditions: Conditions, filters: Sequence[Comparison]) -> Iterator[ColumnElement[bool]]:
    # A run has a key once, so all conditions on it are one look at one row.
    present: dict[tuple[Entity, str], list[Comparison]] = {}
    for comparison in filters:
        if comparison.entity is Entity.ATTRIBUTE:
            yield conditions.compare(_COLUMNS[comparison.key], comparison)
        elif comparison.entity is Entity.DATASET:
            yield _dataset_condition(conditions, comparison)
        elif comparison.operator is Operator.IS_NULL:
            yield not_(exists().where(_has_key(_KEYED[comparison.entity], comparison.key)))
        else:
            present.setdefault((comparison.entity, comparison.key), []).append(comparison)
    for (entity, key), comparisons in present.items():
        table = _KEYED[entity]
        yield exists().where(
            _has_key(table, key),
            *(
                _value_condition(conditions, table, comparison)
                for comparison in comparisons
                if comparison.operator is not Operator.IS_NOT_NULL
            ),
        )


def _has_key(table: FromClause, key: str) -> ColumnElement[bool]:
    return and_(table.c.run_pk == runs.c.run_pk, table.c.key == key)


def _value_condition(conditions: Conditions, table: Table, comparison: Comparison) -> ColumnElement[bool]:
    if table is series:
        return conditions.compare_metric(series.c.latest_value, series.c.latest_is_nan, comparison)
    return conditions.compare(table.c.value, comparison)


def _dataset_condition(conditions: Conditions, comparison: Comparison) -> ColumnElement[bool]:
    """One of the run's inputs matches; several conditions may be met by different inputs."""
    if comparison.key == "context":
        return exists().where(
            dataset_inputs.c.run_pk == runs.c.run_pk,
            dataset_input_tags.c.input_pk == dataset_inputs.c.input_pk,
            dataset_input_tags.c.key == _CONTEXT_TAG,
            conditions.compare(dataset_input_tags.c.value, comparison),
        )
    return exists().where(
        dataset_inputs.c.run_pk == runs.c.run_pk,
        datasets.c.dataset_pk == dataset_inputs.c.dataset_pk,
        conditions.compare(datasets.c[comparison.key], comparison),
    )


def _sorted(query: Select[Any], order: Sequence[Order]) -> Select[Any]:
    source: FromClause = runs
    sorting: list[ColumnElement[Any]] = []
    for key in order:
        if key.entity is Entity.ATTRIBUTE:
            value: ColumnElement[Any] = _COLUMNS[key.key]
            rank: ColumnElement[int] = case((value.is_(None), 1), else_=0)
        else:
            keyed = _KEYED[key.entity].alias()
            source = source.outerjoin(keyed, _has_key(keyed, key.key))
            value, rank = _joined_value(keyed, key.entity)
        sorting += [rank, value.asc() if key.ascending else value.desc()]
    if not any(key.entity is Entity.ATTRIBUTE and key.key == "start_time" for key in order):
        sorting.append(runs.c.start_time_ms.desc().nulls_last())
    return query.select_from(source).order_by(*sorting, runs.c.run_id)


def _joined_value(keyed: FromClause, entity: Entity) -> tuple[ColumnElement[Any], ColumnElement[int]]:
    if entity is Entity.METRIC:
        value = keyed.c.latest_value
        return value, case((keyed.c.latest_is_nan == 1, 1), (value.is_(None), 2), else_=0)
    value = keyed.c.value
    return value, case((value.is_(None), 1), else_=0)
