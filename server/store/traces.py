"""Traces, their tags and metadata, their spans, and what they are linked to."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from server.database.engine import Transaction
from server.protocol.search.traces import RUN_METADATA
from server.protocol.spans import (
    COST,
    MODEL,
    MODEL_PROVIDER,
    USAGE,
    Span,
    object_attribute,
    text_attribute,
)

TOKEN_COLUMNS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
COST_COLUMNS = ("input_cost", "output_cost", "total_cost")
RUN_LINK = "run"
PROMPT_LINK = "prompt"
_LONGEST_MODEL = 500
_LARGEST_INTEGER = 2**63 - 1
_INFO = (
    "trace_pk, trace_id, experiment_id, timestamp_ms, execution_time_ms, state, client_request_id,"
    " request_preview, response_preview, session_id"
)
_CHILDREN = ("trace_tags", "trace_metadata", "spans", "assessments")


@dataclass(slots=True)
class Trace:
    """A trace without what hangs on it."""

    trace_pk: int
    trace_id: str
    experiment_id: int
    timestamp_ms: int
    execution_time_ms: int | None
    state: str
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class SpanUsage:
    """What a span says it cost, and where it stands in its trace."""

    span_id: str
    parent_id: str | None
    tokens: dict[str, Any] | None
    costs: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """A span as it is kept."""

    parent_id: str | None
    start_ns: int
    content: str


@dataclass(frozen=True, slots=True)
class TraceDetails:
    """What hangs on a trace."""

    tags: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


# --- finding --------------------------------------------------------------------------------


def find(transaction: Transaction, trace_id: str) -> Trace | None:
    """The trace that has this id."""
    rows = transaction.rows(f"SELECT {_INFO} FROM traces WHERE trace_id = ?", (trace_id,))
    return Trace(*rows[0]) if rows else None


def find_many(transaction: Transaction, trace_ids: Iterable[str]) -> dict[str, Trace]:
    """The traces that exist, by id."""
    rows = transaction.rows_in(f"SELECT {_INFO} FROM traces WHERE trace_id", trace_ids)
    return {row[1]: Trace(*row) for row in rows}


def list_by_pk(transaction: Transaction, trace_pks: Sequence[int]) -> list[Trace]:
    """The traces, in the order asked for."""
    rows = transaction.rows_in(f"SELECT {_INFO} FROM traces WHERE trace_pk", trace_pks)
    found = {row[0]: row for row in rows}
    return [Trace(*found[trace_pk]) for trace_pk in trace_pks if trace_pk in found]


def list_details(transaction: Transaction, trace_pks: Sequence[int]) -> dict[int, TraceDetails]:
    """Tags and metadata of these traces."""
    details = {trace_pk: TraceDetails() for trace_pk in trace_pks}
    for trace_pk, key, value in transaction.rows_in(
        "SELECT trace_pk, key, value FROM trace_tags WHERE trace_pk", trace_pks
    ):
        details[trace_pk].tags[key] = value
    for trace_pk, key, value in transaction.rows_in(
        "SELECT trace_pk, key, value FROM trace_metadata WHERE trace_pk", trace_pks
    ):
        details[trace_pk].metadata[key] = value
    return details


# --- writing --------------------------------------------------------------------------------


def insert(transaction: Transaction, trace: Trace, principal: str | None) -> int:
    """Store a new trace; its trace_pk."""
    return int(
        transaction.rows(
            "INSERT INTO traces (trace_id, experiment_id, timestamp_ms, execution_time_ms, state,"
            " client_request_id, request_preview, response_preview, session_id, principal)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING trace_pk",
            (trace.trace_id, *_changeable(trace), principal),
        )[0][0]
    )


def update(transaction: Transaction, trace: Trace) -> None:
    """Store a trace over what it was."""
    transaction.run(
        "UPDATE traces SET experiment_id = ?, timestamp_ms = ?, execution_time_ms = ?, state = ?,"
        " client_request_id = ?, request_preview = ?, response_preview = ?, session_id = ?"
        " WHERE trace_pk = ?",
        (*_changeable(trace), trace.trace_pk),
    )


def _changeable(trace: Trace) -> tuple[Any, ...]:
    return (
        trace.experiment_id,
        trace.timestamp_ms,
        trace.execution_time_ms,
        trace.state,
        trace.client_request_id,
        trace.request_preview,
        trace.response_preview,
        trace.session_id,
    )


def set_tags(transaction: Transaction, trace_pk: int, tags: Mapping[str, str]) -> None:
    """Set tags, over what they were."""
    _set(transaction, "trace_tags", trace_pk, tags)


def set_metadata(transaction: Transaction, trace_pk: int, metadata: Mapping[str, str]) -> None:
    """Set metadata, over what it was."""
    if run_id := metadata.get(RUN_METADATA):
        transaction.named.add(run_id)
    _set(transaction, "trace_metadata", trace_pk, metadata)


def _set(transaction: Transaction, table: str, trace_pk: int, pairs: Mapping[str, str]) -> None:
    transaction.run_many(
        f"INSERT INTO {table} (trace_pk, key, value) VALUES (?, ?, ?)"
        " ON CONFLICT (trace_pk, key) DO UPDATE SET value = excluded.value",
        [(trace_pk, key, value) for key, value in pairs.items()],
    )


def delete_tag(transaction: Transaction, trace_pk: int, key: str) -> bool:
    """Delete a tag; whether it was there."""
    return transaction.run("DELETE FROM trace_tags WHERE trace_pk = ? AND key = ?", (trace_pk, key)) > 0


def set_tokens(transaction: Transaction, trace_pk: int, tokens: Mapping[str, Any]) -> None:
    """Note the token counts that metrics sum up; a count that is none is not known."""
    columns = ", ".join(f"{column} = ?" for column in TOKEN_COLUMNS)
    transaction.run(
        f"UPDATE traces SET {columns} WHERE trace_pk = ?",
        (*(whole_count(tokens.get(column)) for column in TOKEN_COLUMNS), trace_pk),
    )


# --- spans ----------------------------------------------------------------------------------


def put_spans(transaction: Transaction, trace_pk: int, spans: Sequence[Span]) -> None:
    """Store spans, over those that have their ids."""
    columns = (
        "trace_pk",
        "span_id",
        "parent_span_id",
        "name",
        "type",
        "status",
        "start_time_ns",
        "end_time_ns",
        "model_name",
        "model_provider",
        *COST_COLUMNS,
        "token_usage",
        "content",
    )
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns[2:])
    transaction.run_many(
        f"INSERT INTO spans ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        f" ON CONFLICT (trace_pk, span_id) DO UPDATE SET {changes}",
        [_span_row(trace_pk, span) for span in spans],
    )


def _span_row(trace_pk: int, span: Span) -> tuple[Any, ...]:
    costs = object_attribute(span.attributes, COST) or {}
    usage = object_attribute(span.attributes, USAGE)
    return (
        trace_pk,
        span.span_id,
        span.parent_id,
        without_nul(span.name),
        without_nul(span.type),
        span.status.value,
        span.start_ns,
        span.end_ns,
        without_nul((text_attribute(span.attributes, MODEL) or "")[:_LONGEST_MODEL]) or None,
        without_nul((text_attribute(span.attributes, MODEL_PROVIDER) or "")[:_LONGEST_MODEL]) or None,
        *(finite(costs.get(column)) for column in COST_COLUMNS),
        None if usage is None else json.dumps(usage),
        span.content(),
    )


def without_nul(text: str | None) -> str | None:
    """The text as Postgres can hold it."""
    return text if text is None else text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def list_spans(transaction: Transaction, trace_pks: Sequence[int]) -> dict[int, list[StoredSpan]]:
    """The spans of these traces: roots first, then by their start."""
    found: dict[int, list[StoredSpan]] = {}
    for trace_pk, *span in transaction.rows_in(
        "SELECT trace_pk, parent_span_id, start_time_ns, content FROM spans WHERE trace_pk", trace_pks
    ):
        found.setdefault(trace_pk, []).append(StoredSpan(*span))
    for stored in found.values():
        stored.sort(key=lambda span: (span.parent_id is not None, span.start_ns))
    return found


def list_usage(transaction: Transaction, trace_pk: int) -> list[SpanUsage]:
    """What every span of a trace says it cost."""
    rows = transaction.rows(
        f"SELECT span_id, parent_span_id, token_usage, {', '.join(COST_COLUMNS)} FROM spans"
        " WHERE trace_pk = ?",
        (trace_pk,),
    )
    return [
        SpanUsage(
            span_id,
            parent_id,
            json.loads(usage) if usage else None,
            None if all(cost is None for cost in costs) else dict(zip(COST_COLUMNS, costs, strict=True)),
        )
        for span_id, parent_id, usage, *costs in rows
    ]


# --- numbers --------------------------------------------------------------------------------


def whole_count(value: Any) -> int | None:
    """A count of tokens, if the value is one that fits."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number) > _LARGEST_INTEGER or number != number.to_integral_value():
        return None
    return int(number)


def finite(value: Any) -> float | None:
    """A finite number, if the value is one."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# --- links ----------------------------------------------------------------------------------


def link(transaction: Transaction, trace_ids: Iterable[str], kind: str, targets: Sequence[str]) -> None:
    """Link traces, whether they exist or not. A link that is there stays."""
    if kind == RUN_LINK:
        transaction.named.update(targets)
    transaction.run_many(
        "INSERT INTO trace_links (trace_id, kind, target) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(trace_id, kind, target) for trace_id in trace_ids for target in targets],
    )


# --- deleting -------------------------------------------------------------------------------


def list_for_deletion(
    transaction: Transaction,
    experiment_id: int,
    *,
    until_ms: int | None,
    limit: int | None,
    trace_ids: Sequence[str],
) -> list[tuple[int, str]]:
    """(trace_pk, trace_id) of an experiment's traces: those named, or the oldest up to a moment."""
    sql = "SELECT trace_pk, trace_id FROM traces WHERE experiment_id = ?"
    if until_ms is None:
        rows = transaction.rows_in(
            f"SELECT trace_pk, trace_id FROM traces WHERE experiment_id = {int(experiment_id)} AND trace_id",
            dict.fromkeys(trace_ids),
        )
    else:
        sql += " AND timestamp_ms <= ? ORDER BY timestamp_ms, trace_id"
        bounds = [experiment_id, until_ms]
        if limit is not None:
            sql += " LIMIT ?"
            bounds.append(limit)
        rows = transaction.rows(sql, bounds)
    return [(row[0], row[1]) for row in rows]


def delete(transaction: Transaction, found: Sequence[tuple[int, str]]) -> None:
    """Delete traces with everything that hangs on them."""
    trace_pks = [(trace_pk,) for trace_pk, _ in found]
    for table in (*_CHILDREN, "traces"):
        transaction.run_many(f"DELETE FROM {table} WHERE trace_pk = ?", trace_pks)
    transaction.run_many("DELETE FROM trace_links WHERE trace_id = ?", [(trace_id,) for _, trace_id in found])
