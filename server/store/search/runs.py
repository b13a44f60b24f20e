"""Finding runs.

A condition on a metric, param, tag or dataset is an `EXISTS` that the index on (run, key) answers. A
sort key is an outer join, so that runs without it stay and come last; where a condition asks for the same
key, one join serves both. Where `candidates` knows the few runs that a condition leaves, only these are
looked at.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Table,
    and_,
    case,
    exists,
    literal_column,
    not_,
    select,
)

from server.database.schema import dataset_input_tags, dataset_inputs, datasets, params, runs, series, tags
from server.domain.entities import ViewType
from server.protocol.search.terms import Comparison, Entity, Operator, Order
from server.store.search.candidates import find_candidates
from server.store.search.conditions import Conditions
from server.store.search.lifecycles import STAGES, run_stage_condition
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
    source, sorting = _sorting(order, _newest_first(connection, experiment_ids))
    query = (
        select(runs.c.run_pk)
        .where(
            *_among(connection, experiment_ids, filters),
            run_stage_condition(connection, experiment_ids, view),
            *_conditions(conditions, filters, source),
        )
        .select_from(source.tables)
        .order_by(*sorting)
    )
    rows, has_more = read_page(connection, query, offset=offset, limit=limit)
    return [row.run_pk for row in rows], has_more


def _among(
    connection: Connection, experiment_ids: Sequence[int], filters: Sequence[Comparison]
) -> Iterator[ColumnElement[bool]]:
    """The runs to look at: those of the experiments, or the few of them that can match at all."""
    few = find_candidates(connection, experiment_ids, filters)
    if few is None:
        yield runs.c.experiment_id.in_(experiment_ids)
        return
    yield runs.c.run_pk.in_(few)
    # With a sign it is not what the index holds, which SQLite, not knowing how few they are, might prefer.
    yield literal_column("+runs.experiment_id", BigInteger()).in_(experiment_ids)


@dataclass(slots=True)
class _Source:
    """What is selected from: `runs`, joined with a table for each key that is sorted by."""

    tables: FromClause
    joined: dict[tuple[Entity, str], FromClause]


def _conditions(
    conditions: Conditions, filters: Sequence[Comparison], source: _Source
) -> Iterator[ColumnElement[bool]]:
    # A run has a key once, so all conditions on it are one look at one row.
    present: dict[tuple[Entity, str], list[Comparison]] = {}
    # A metric's row takes two looks to find, a param's or tag's one.
    for comparison in sorted(filters, key=lambda each: each.entity is Entity.METRIC):
        if comparison.entity is Entity.ATTRIBUTE:
            yield conditions.compare(_COLUMNS[comparison.key], comparison)
        elif comparison.entity is Entity.DATASET:
            yield _dataset_condition(conditions, comparison)
        elif comparison.operator is Operator.IS_NULL:
            yield not_(exists().where(_has_key(_KEYED[comparison.entity], comparison.key)))
        else:
            present.setdefault((comparison.entity, comparison.key), []).append(comparison)
    for (entity, key), comparisons in present.items():
        joined = source.joined.get((entity, key))
        table = _KEYED[entity] if joined is None else joined
        values = [
            _value_condition(conditions, entity, table, comparison)
            for comparison in comparisons
            if comparison.operator is not Operator.IS_NOT_NULL
        ]
        if joined is None:
            yield exists().where(_has_key(table, key), *values)
        else:
            yield and_(table.c.run_pk.is_not(None), *values)


def _has_key(table: FromClause, key: str) -> ColumnElement[bool]:
    return and_(table.c.run_pk == runs.c.run_pk, table.c.key == key)


def _value_condition(
    conditions: Conditions, entity: Entity, table: FromClause, comparison: Comparison
) -> ColumnElement[bool]:
    if entity is Entity.METRIC:
        return conditions.compare_metric(table.c.latest_value, table.c.latest_is_nan, comparison)
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


def _newest_first(connection: Connection, experiment_ids: Sequence[int]) -> ColumnElement[Any]:
    """By the latest start, runs without one last: written so that the index on runs gives this order.

    Postgres' index has them at its end, which is where it begins to read for the latest: it can be used only
    where no run is without a start.
    """
    newest = runs.c.start_time_ms.desc()
    if connection.dialect.name == "sqlite":
        return newest
    without_start = select(runs.c.run_pk).where(
        runs.c.experiment_id.in_(experiment_ids),
        runs.c.lifecycle_stage.in_(STAGES[ViewType.ALL]),
        runs.c.start_time_ms.is_(None),
    )
    has_some = connection.execute(without_start.limit(1)).first() is not None
    return newest.nulls_last() if has_some else newest


def _sorting(
    order: Sequence[Order], newest_first: ColumnElement[Any]
) -> tuple[_Source, list[ColumnElement[Any]]]:
    source = _Source(runs, {})
    sorting: list[ColumnElement[Any]] = []
    for key in order:
        if key.entity is Entity.ATTRIBUTE:
            value: ColumnElement[Any] = _COLUMNS[key.key]
            rank: ColumnElement[int] = case((value.is_(None), 1), else_=0)
        else:
            value, rank = _joined_value(_join(source, key), key.entity)
        sorting += [rank, value.asc() if key.ascending else value.desc()]
    if not any(key.entity is Entity.ATTRIBUTE and key.key == "start_time" for key in order):
        sorting.append(newest_first)
    return source, [*sorting, runs.c.run_id]


def _join(source: _Source, key: Order) -> FromClause:
    keyed = _KEYED[key.entity].alias()
    source.tables = source.tables.outerjoin(keyed, _has_key(keyed, key.key))
    source.joined[key.entity, key.key] = keyed
    return keyed


def _joined_value(keyed: FromClause, entity: Entity) -> tuple[ColumnElement[Any], ColumnElement[int]]:
    if entity is Entity.METRIC:
        value = keyed.c.latest_value
        return value, case((keyed.c.latest_is_nan == 1, 1), (value.is_(None), 2), else_=0)
    value = keyed.c.value
    return value, case((value.is_(None), 1), else_=0)
