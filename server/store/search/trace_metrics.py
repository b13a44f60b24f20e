"""Metrics over traces, spans and assessments, worked out by the database.

A percentile is interpolated between its two neighbours in the group's order: each value counts by how
near its rank is to the wanted one, so that a plain sum gives it on either database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    FromClause,
    Select,
    and_,
    case,
    cast,
    distinct,
    exists,
    func,
    or_,
    select,
)

from server.database.schema_traces import assessments, spans, trace_links, trace_metadata, trace_tags, traces
from server.protocol.search.traces import NAME_TAG, RUN_METADATA
from server.protocol.trace_metrics import (
    TIME_BUCKET,
    Aggregation,
    MetricFilter,
    MetricQuery,
    View,
    WantedAggregation,
)

_NS_PER_MS = 1_000_000
_SESSIONS = "session_count"
_VALUE = "value"


@dataclass(frozen=True, slots=True)
class MetricGroup:
    """One group: its dimensions, the time bucket in milliseconds, and its aggregates."""

    dimensions: dict[str, str]
    bucket_ms: int | None
    values: dict[str, float]


_DIMENSIONS: dict[str, ColumnElement[Any]] = {
    "trace_status": traces.c.state,
    "span_name": spans.c.name,
    "span_type": spans.c.type,
    "span_status": spans.c.status,
    "span_model_name": spans.c.model_name,
    "span_model_provider": spans.c.model_provider,
    "assessment_name": assessments.c.name,
    "assessment_value": assessments.c.value,
}
_VALUES: dict[tuple[View, str], ColumnElement[Any]] = {
    (View.TRACES, "trace_count"): traces.c.trace_pk,
    (View.TRACES, _SESSIONS): traces.c.session_id,
    (View.TRACES, "latency"): traces.c.execution_time_ms,
    (View.SPANS, "span_count"): spans.c.span_pk,
    # The two times are whole milliseconds apart only after the division of their difference.
    (View.SPANS, "latency"): (spans.c.end_time_ns - spans.c.start_time_ns) // _NS_PER_MS,
    (View.SPANS, "input_cost"): spans.c.input_cost,
    (View.SPANS, "output_cost"): spans.c.output_cost,
    (View.SPANS, "total_cost"): spans.c.total_cost,
    (View.ASSESSMENTS, "assessment_count"): assessments.c.assessment_pk,
    (View.ASSESSMENTS, "assessment_value"): assessments.c.number,
}
_COSTS = frozenset({"input_cost", "output_cost", "total_cost"})


def query_metrics(
    connection: Connection, query: MetricQuery, experiment_ids: Sequence[int]
) -> list[MetricGroup]:
    """The groups, ordered by time and then by their dimensions."""
    if not experiment_ids:
        return []
    value = _VALUES.get((query.view, query.metric))
    if value is None:
        value = traces.c[query.metric]
    rows = _rows(query, value, experiment_ids).subquery("wanted")
    names = [name for name in (TIME_BUCKET, *query.dimensions) if name in rows.c]
    ranked: FromClause = rows
    if any(item.percentile is not None for item in query.aggregations):
        ranked = _ranked(rows, names)
    keys = [ranked.c[name] for name in names]
    statement = select(
        *keys, *(_aggregate(item, ranked, query.metric).label(item.label) for item in query.aggregations)
    )
    if keys:
        statement = statement.group_by(*keys).order_by(*keys)
    found = connection.execute(statement.limit(query.limit)).all()
    return [group for row in found if (group := _group(query, names, tuple(row))) is not None]


def _group(query: MetricQuery, names: Sequence[str], row: tuple[Any, ...]) -> MetricGroup | None:
    found = dict(zip(names, row, strict=False))
    values = {
        item.label: float(value)
        for item, value in zip(query.aggregations, row[len(names) :], strict=True)
        if value is not None
    }
    bucket = found.pop(TIME_BUCKET, None)
    dimensions = {name: str(value) for name, value in found.items()}
    return MetricGroup(dimensions, None if bucket is None else int(bucket), values) if values else None


# --- the rows -------------------------------------------------------------------------------


def _rows(query: MetricQuery, value: ColumnElement[Any], experiment_ids: Sequence[int]) -> Select[Any]:
    """One row for each thing that counts: its dimensions and its value, neither of them null."""
    source: FromClause = traces
    conditions: list[ColumnElement[bool]] = [
        traces.c.experiment_id.in_(experiment_ids),
        value.is_not(None),
    ]
    if query.view is View.SPANS:
        source = source.join(spans, spans.c.trace_pk == traces.c.trace_pk)
    elif query.view is View.ASSESSMENTS:
        source = source.join(assessments, assessments.c.trace_pk == traces.c.trace_pk)
        conditions.append(assessments.c.is_valid == 1)
    conditions += [_filter(item) for item in query.filters]
    conditions += _in_time(query)
    columns = [value.label(_VALUE)]
    if query.interval_ms:
        moment = _moment(query)
        columns.append((moment - moment % query.interval_ms).label(TIME_BUCKET))
    for name in query.dimensions:
        if name == "trace_name":
            tag = trace_tags.alias("name")
            source = source.join(tag, and_(tag.c.trace_pk == traces.c.trace_pk, tag.c.key == NAME_TAG))
            columns.append(tag.c.value.label(name))
        else:
            columns.append(_DIMENSIONS[name].label(name))
            conditions.append(_DIMENSIONS[name].is_not(None))
    return select(*columns).select_from(source).where(*conditions)


def _moment(query: MetricQuery) -> ColumnElement[Any]:
    return spans.c.start_time_ns // _NS_PER_MS if query.view is View.SPANS else traces.c.timestamp_ms


def _in_time(query: MetricQuery) -> list[ColumnElement[bool]]:
    """Costs go by the time of their span, everything else by that of the trace."""
    moment: ColumnElement[Any] = traces.c.timestamp_ms
    if query.metric in _COSTS:
        moment = spans.c.start_time_ns // _NS_PER_MS
    conditions: list[ColumnElement[bool]] = []
    if query.start_ms is not None:
        conditions.append(moment >= query.start_ms)
    if query.end_ms is not None:
        conditions.append(moment <= query.end_ms)
    return conditions


def _filter(item: MetricFilter) -> ColumnElement[bool]:
    match item.view, item.entity:
        case "trace", "status":
            return traces.c.state == item.value
        case "trace", "tag":
            return exists().where(
                trace_tags.c.trace_pk == traces.c.trace_pk,
                trace_tags.c.key == item.key,
                trace_tags.c.value == item.value,
            )
        case "trace", _:
            return _has_metadata(item)
        case "span", entity:
            return spans.c[entity] == item.value
        case _, entity:
            return (assessments.c.name if entity == "name" else assessments.c.kind) == item.value


def _has_metadata(item: MetricFilter) -> ColumnElement[bool]:
    has_it = exists().where(
        trace_metadata.c.trace_pk == traces.c.trace_pk,
        trace_metadata.c.key == item.key,
        trace_metadata.c.value == item.value,
    )
    if item.key != RUN_METADATA:
        return has_it
    return or_(
        has_it,
        exists().where(
            trace_links.c.trace_id == traces.c.trace_id,
            trace_links.c.kind == "run",
            trace_links.c.target == item.value,
        ),
    )


# --- the aggregates -------------------------------------------------------------------------


def _ranked(rows: FromClause, names: Sequence[str]) -> FromClause:
    """The rows with their place in the order of their group, from 0, and the size of the group."""
    groups = [rows.c[name] for name in names]
    return select(
        *rows.c,
        (func.row_number().over(partition_by=groups, order_by=rows.c[_VALUE]) - 1).label("place"),
        func.count().over(partition_by=groups).label("size"),
    ).subquery("ranked")


def _aggregate(item: WantedAggregation, rows: FromClause, metric: str) -> ColumnElement[Any]:
    value = rows.c[_VALUE]
    match item.kind:
        case Aggregation.COUNT:
            return func.count(distinct(value) if metric == _SESSIONS else value)
        case Aggregation.SUM:
            return func.sum(value)
        case Aggregation.AVG:
            return func.avg(value)
        case Aggregation.MIN:
            return func.min(value)
        case Aggregation.MAX:
            return func.max(value)
        case Aggregation.PERCENTILE:
            wanted = (item.percentile or 0) / 100.0 * (rows.c["size"] - 1)
            distance = func.abs(cast(rows.c["place"] - wanted, Double))
            return func.sum(case((distance < 1, cast(value, Double) * (1 - distance)), else_=0.0))
