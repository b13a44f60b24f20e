"""Finding traces.

Conditions on spans are met by one span together; every condition on an assessment by any valid one of
the trace, or by one that was given to the trace's whole session.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    Table,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
)

from server.database.schema_traces import assessments, spans, trace_links, trace_metadata, trace_tags, traces
from server.protocol.search.patterns import check_pattern, matches
from server.protocol.search.terms import Comparison, Entity, Operator
from server.protocol.search.traces import (
    CONTENT,
    RLIKE,
    SPAN_ATTRIBUTES,
    TraceComparison,
    TraceEntity,
    TraceOrder,
)
from server.store.search.conditions import Conditions
from server.store.search.pages import read_page

_SESSION_MARK = '"mlflow.trace.session":'
_REGEXP = "mlproxy_regexp"
_ISSUE = "issue"
_END = traces.c.timestamp_ms + func.coalesce(traces.c.execution_time_ms, 0)
_COLUMNS: dict[str, ColumnElement[Any]] = {
    "client_request_id": traces.c.client_request_id,
    "end_time_ms": _END,
    "execution_time_ms": traces.c.execution_time_ms,
    "experiment_id": traces.c.experiment_id,
    "request_id": traces.c.trace_id,
    "status": traces.c.state,
    "timestamp_ms": traces.c.timestamp_ms,
}
_KEYED: dict[TraceEntity, Table] = {TraceEntity.TAG: trace_tags, TraceEntity.METADATA: trace_metadata}
_TIES = (
    TraceOrder(TraceEntity.ATTRIBUTE, "timestamp_ms", ascending=False),
    TraceOrder(TraceEntity.ATTRIBUTE, "request_id", ascending=True),
)


@dataclass(frozen=True, slots=True)
class CommonTraces:
    """How many traces meet each of two filters, both, and how many there are at all."""

    first: int
    second: int
    both: int
    total: int


def find_traces(
    connection: Connection,
    *,
    experiment_ids: Sequence[int],
    filters: Sequence[TraceComparison],
    order: Sequence[TraceOrder],
    offset: int,
    limit: int,
) -> tuple[list[int], bool]:
    """The traces of these experiments that meet every filter, in order, and whether there are more.

    Traces without a sort key come last in either direction. Ties are broken by the latest start, then
    by trace id.
    """
    if not experiment_ids:
        return [], False
    _prepare(connection, filters)
    query = select(traces.c.trace_pk).where(
        traces.c.experiment_id.in_(experiment_ids), *_conditions(connection, experiment_ids, filters)
    )
    rows, has_more = read_page(connection, _sorted(query, order), offset=offset, limit=limit)
    return [row.trace_pk for row in rows], has_more


def count_common(
    connection: Connection,
    *,
    experiment_ids: Sequence[int],
    first: Sequence[TraceComparison],
    second: Sequence[TraceComparison],
    base: Sequence[TraceComparison],
) -> CommonTraces:
    """How often the filters meet, among the traces that meet the base filter."""
    if not experiment_ids:
        return CommonTraces(0, 0, 0, 0)
    _prepare(connection, [*first, *second, *base])
    is_first, is_second = (
        and_(literal(1) == 1, *_conditions(connection, experiment_ids, filters))
        for filters in (first, second)
    )
    row = connection.execute(
        select(_count_of(is_first), _count_of(is_second), _count_of(and_(is_first, is_second)), func.count())
        .select_from(traces)
        .where(traces.c.experiment_id.in_(experiment_ids), *_conditions(connection, experiment_ids, base))
    ).one()
    return CommonTraces(*(int(value or 0) for value in row))


def _count_of(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((condition, 1), else_=0))


def _prepare(connection: Connection, filters: Sequence[TraceComparison]) -> None:
    """SQLite has no regular expressions of its own."""
    if connection.dialect.name == "sqlite" and any(item.operator == RLIKE for item in filters):
        driver: Any = connection.connection.dbapi_connection
        driver.create_function(_REGEXP, 2, matches, deterministic=True)


# --- conditions -----------------------------------------------------------------------------


def _conditions(
    connection: Connection, experiment_ids: Sequence[int], filters: Sequence[TraceComparison]
) -> Iterator[ColumnElement[bool]]:
    conditions = _TraceConditions(connection.dialect.name, experiment_ids)
    of_span = [comparison for comparison in filters if comparison.entity is TraceEntity.SPAN]
    for comparison in filters:
        if comparison.entity is not TraceEntity.SPAN:
            yield conditions.of(comparison)
    if of_span:
        yield exists().where(
            spans.c.trace_pk == traces.c.trace_pk, *(conditions.of_span(item) for item in of_span)
        )


class _TraceConditions:
    """Writes the conditions of one search."""

    def __init__(self, dialect: str, experiment_ids: Sequence[int]) -> None:
        self._is_sqlite = dialect == "sqlite"
        self._conditions = Conditions(dialect=dialect)
        self._experiment_ids = experiment_ids

    def of(self, comparison: TraceComparison) -> ColumnElement[bool]:
        """The condition a trace must meet."""
        match comparison.entity:
            case TraceEntity.ATTRIBUTE:
                return self._compare(_COLUMNS[comparison.key], comparison)
            case TraceEntity.TAG | TraceEntity.METADATA:
                return self._of_keyed(_KEYED[comparison.entity], comparison)
            case TraceEntity.RUN:
                return or_(self._is_linked("run", comparison), self._of_keyed(trace_metadata, comparison))
            case TraceEntity.PROMPT:
                return self._is_linked("prompt", comparison)
            case TraceEntity.ISSUE:
                return exists().where(
                    assessments.c.trace_pk == traces.c.trace_pk,
                    assessments.c.kind == _ISSUE,
                    assessments.c.name == comparison.value,
                )
            case _:
                return self._of_assessment(comparison)

    def of_span(self, comparison: TraceComparison) -> ColumnElement[bool]:
        """The condition a span must meet."""
        if comparison.key.startswith(SPAN_ATTRIBUTES):
            return self._of_span_attribute(comparison)
        column = spans.c.content if comparison.key == CONTENT else spans.c[comparison.key]
        return self._compare(column, comparison)

    def _compare(self, column: ColumnElement[Any], comparison: TraceComparison) -> ColumnElement[bool]:
        if comparison.operator == RLIKE:
            return self._matches(column, str(comparison.value))
        plain = Comparison(Entity.ATTRIBUTE, comparison.key, Operator(comparison.operator), comparison.value)
        return self._conditions.compare(column, plain)

    def _matches(self, column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
        check_pattern(pattern)
        if not self._is_sqlite:
            return column.bool_op("~")(pattern)
        return cast(func.mlproxy_regexp(pattern, column), Integer) == 1

    def _of_keyed(self, table: Table, comparison: TraceComparison) -> ColumnElement[bool]:
        has_key = and_(table.c.trace_pk == traces.c.trace_pk, table.c.key == comparison.key)
        match comparison.operator:
            case "IS NULL":
                return not_(exists().where(has_key))
            case "IS NOT NULL":
                return exists().where(has_key)
            case _:
                return exists().where(has_key, self._compare(table.c.value, comparison))

    def _is_linked(self, kind: str, comparison: TraceComparison) -> ColumnElement[bool]:
        return exists().where(
            trace_links.c.trace_id == traces.c.trace_id,
            trace_links.c.kind == kind,
            trace_links.c.target == comparison.value,
        )

    def _of_span_attribute(self, comparison: TraceComparison) -> ColumnElement[bool]:
        """Attributes are looked for in the text of the span, where values are JSON in quotes."""
        key = comparison.key.removeprefix(SPAN_ATTRIBUTES)
        if len(key) >= 2 and key[0] == key[-1] == "`":
            key = key[1:-1]
        match comparison.operator:
            case "LIKE" | "ILIKE":
                pattern = f'%"{key}"{comparison.value}%'
                return self._compare(
                    spans.c.content,
                    TraceComparison(comparison.entity, CONTENT, comparison.operator, pattern),
                )
            case "RLIKE":
                return self._matches(spans.c.content, _attribute_pattern(key, str(comparison.value)))
        values = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
        found = or_(*(self._holds(text) for value in values for text in _attribute_texts(key, str(value))))
        return not_(found) if comparison.operator in ("!=", "NOT IN") else found

    def _holds(self, text: str) -> ColumnElement[bool]:
        place = func.instr if self._is_sqlite else func.strpos
        return cast(place(spans.c.content, text), Integer) > 0

    # --- assessments ---

    def _of_assessment(self, comparison: TraceComparison) -> ColumnElement[bool]:
        direct = self._assessed(assessments, comparison)
        found = or_(
            exists().where(assessments.c.trace_pk == traces.c.trace_pk, *direct),
            self._is_in_assessed_session(comparison),
        )
        return not_(found) if comparison.operator == "IS NULL" else found

    def _is_in_assessed_session(self, comparison: TraceComparison) -> ColumnElement[bool]:
        sibling, given = traces.alias("sibling"), assessments.alias("given")
        return and_(
            traces.c.session_id.is_not(None),
            exists().where(
                sibling.c.session_id == traces.c.session_id,
                sibling.c.experiment_id.in_(self._experiment_ids),
                given.c.trace_pk == sibling.c.trace_pk,
                given.c["metadata"].contains(_SESSION_MARK, autoescape=True),
                *self._assessed(given, comparison),
            ),
        )

    def _assessed(self, table: FromClause, comparison: TraceComparison) -> list[ColumnElement[bool]]:
        """What a valid assessment of that name must meet."""
        conditions = [
            table.c.kind == comparison.entity.value,
            table.c.name == comparison.key,
            table.c.is_valid == 1,
        ]
        match comparison.operator:
            case "IS NULL" | "IS NOT NULL":
                pass
            case "=" | "!=":
                is_equal = or_(
                    table.c.value == comparison.value, table.c.value == json.dumps(comparison.value)
                )
                conditions.append(is_equal if comparison.operator == "=" else not_(is_equal))
            case "<" | "<=" | ">" | ">=":
                conditions += [table.c.is_number == 1, self._compare(table.c.number, comparison)]
            case _:
                conditions.append(self._compare(table.c.value, comparison))
        return conditions


def _attribute_texts(key: str, value: str) -> list[str]:
    """How an attribute of that value stands in a span's text: as text, or as anything else JSON has."""
    name = json.dumps(key, ensure_ascii=False)
    texts = [f"{name}: {json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)}"]
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return texts
    return [*texts, f"{name}: {json.dumps(value, ensure_ascii=False)}"]


def _attribute_pattern(key: str, pattern: str) -> str:
    """The pattern for a span's text: an anchor means the value's beginning or end, not the text's."""
    before, after = (r'"\\"', "") if pattern.startswith("^") else (r'"\\".*', "")
    pattern = pattern.removeprefix("^")
    if pattern.endswith("$"):
        pattern, after = pattern[:-1], r"\\" + '"'
    return f'"{_literal(key)}": {before}{pattern}{after}'


def _literal(text: str) -> str:
    return "".join(
        character if character.isalnum() or character in "_ " else f"\\{character}" for character in text
    )


# --- order ----------------------------------------------------------------------------------


def _sorted(query: Select[Any], order: Sequence[TraceOrder]) -> Select[Any]:
    source: FromClause = traces
    sorting: list[ColumnElement[Any]] = []
    named = {(key.entity, key.key) for key in order}
    for key in [*order, *(tie for tie in _TIES if (tie.entity, tie.key) not in named)]:
        if key.entity is TraceEntity.ATTRIBUTE:
            value = _COLUMNS[key.key]
        else:
            keyed = _KEYED[key.entity].alias()
            source = source.outerjoin(
                keyed, and_(keyed.c.trace_pk == traces.c.trace_pk, keyed.c.key == key.key)
            )
            value = keyed.c.value
        if key not in _TIES:
            sorting.append(case((value.is_(None), 1), else_=0))
        sorting.append(value.asc() if key.ascending else value.desc())
    return query.select_from(source).order_by(*sorting)
