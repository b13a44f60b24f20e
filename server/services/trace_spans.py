"""Spans that come in over OTLP, and what they tell about their traces.

A trace comes into being with its first span. What a client says about the trace itself is final: spans
then only fill in what it left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Transaction
from server.domain.entities import Experiment
from server.domain.errors import MlflowError
from server.protocol import traces as messages
from server.protocol.spans import COST, INPUTS, OUTPUTS, USAGE, Span, SpanStatus, dumped, loaded
from server.services.identity import get_experiment
from server.store import traces
from server.store.traces import Trace, TraceDetails

log = structlog.get_logger(__name__)

_TAG_PREFIX = "mlflow.traceTag."
_UNTOLD = ("telemetry.sdk.", "mlflow.")
_SESSION_ATTRIBUTES = ("session.id", "gen_ai.conversation.id")
_USER_ATTRIBUTE = "user.id"
_LONGEST_PREVIEW = 1000
_UNFINISHED = ("IN_PROGRESS", "STATE_UNSPECIFIED")
_NS_PER_MS = 1_000_000
_SUMS = ("input_tokens", "output_tokens", "total_tokens")
_OPTIONAL_SUMS = (
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
)


class TraceSpans:
    """Takes spans in."""

    def __init__(self, *, writer: Writer) -> None:
        self._writer = writer

    async def log(
        self,
        experiment_id: str,
        spans: Sequence[Span],
        *,
        run_id: str | None,
        principal: str | None,
        size_bytes: int,
    ) -> None:
        """Store spans, all or none; with a run, link the traces that are complete to it."""
        messages.check_trace_id(run_id or "", "run_id")

        def apply(transaction: Transaction) -> None:
            _log(transaction, experiment_id, spans, principal)
            complete = {span.trace_id for span in spans if span.parent_id is None}
            if run_id and complete:
                traces.link(transaction, sorted(complete), traces.RUN_LINK, [run_id])

        await self._writer.commit(Work(apply, size_bytes=256 + size_bytes, rows=1 + len(spans)))


def artifact_uri(experiment: Experiment, trace_id: str) -> str:
    """Where a trace's files lie."""
    return f"{experiment.artifact_location.rstrip('/')}/traces/{trace_id}/artifacts"


# --- storing --------------------------------------------------------------------------------


def _log(transaction: Transaction, experiment_id: str, spans: Sequence[Span], principal: str | None) -> None:
    experiment = get_experiment(transaction, experiment_id)
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    existing = traces.find_many(transaction, by_trace)
    for trace_id, its_spans in by_trace.items():
        told = _Told.by(its_spans)
        trace = existing.get(trace_id)
        if trace is None:
            trace = _create(transaction, experiment, told, trace_id, principal)
        traces.put_spans(transaction, trace.trace_pk, its_spans)
        _complete(transaction, trace, told)


def _create(
    transaction: Transaction, experiment: Experiment, told: "_Told", trace_id: str, principal: str | None
) -> Trace:
    trace = Trace(
        0,
        trace_id,
        experiment.experiment_id,
        told.start_ms,
        None if told.end_ms is None else told.end_ms - told.start_ms,
        told.state or "IN_PROGRESS",
    )
    trace.trace_pk = traces.insert(transaction, trace, principal)
    traces.set_tags(transaction, trace.trace_pk, {messages.ARTIFACT_TAG: artifact_uri(experiment, trace_id)})
    return trace


def _complete(transaction: Transaction, trace: Trace, told: "_Told") -> None:
    """Fill in what the spans tell and the trace does not have yet."""
    details = traces.list_details(transaction, [trace.trace_pk])[trace.trace_pk]
    is_final = messages.FINALIZED in details.metadata
    if not is_final:
        _widen(trace, told)
    if told.state and trace.state in _UNFINISHED:
        trace.state = told.state
    root = told.root.attributes if told.root is not None else {}
    trace.request_preview = trace.request_preview or preview(root.get(INPUTS), "user")
    trace.response_preview = trace.response_preview or preview(root.get(OUTPUTS), "assistant")
    metadata = _usage_metadata(transaction, trace, told, details, is_final=is_final)
    if told.session and trace.session_id is None:
        trace.session_id = metadata[messages.SESSION] = told.session
    if told.user and messages.USER not in details.metadata:
        metadata[messages.USER] = told.user
    traces.update(transaction, trace)
    traces.set_metadata(transaction, trace.trace_pk, metadata)
    traces.set_tags(transaction, trace.trace_pk, {**told.tags, messages.SPANS_TAG: messages.SPANS_HERE})


def _widen(trace: Trace, told: "_Told") -> None:
    """From the earliest start of any span to the latest end."""
    start = min(trace.timestamp_ms, told.start_ms)
    ends = [] if told.end_ms is None else [told.end_ms]
    if trace.execution_time_ms is not None:
        ends.append(trace.timestamp_ms + trace.execution_time_ms)
    trace.timestamp_ms = start
    trace.execution_time_ms = max(ends) - start if ends else None


def _usage_metadata(
    transaction: Transaction, trace: Trace, told: "_Told", details: TraceDetails, *, is_final: bool
) -> dict[str, str]:
    """Tokens and costs summed up over all spans the trace has by now."""
    wanted = [
        key
        for key, is_told in ((messages.USAGE, told.has_usage), (messages.COST, told.has_cost))
        if is_told and not (is_final and key in details.metadata)
    ]
    metadata: dict[str, str] = {}
    if not wanted:
        return metadata
    usage = traces.list_usage(transaction, trace.trace_pk)
    if messages.USAGE in wanted:
        tokens = sum_up(
            {span.span_id: (span.parent_id, span.tokens) for span in usage}, _SUMS, _OPTIONAL_SUMS
        )
        metadata[messages.USAGE] = dumped({key: int(value) for key, value in tokens.items()})
        traces.set_tokens(transaction, trace.trace_pk, tokens)
    if messages.COST in wanted:
        costs = sum_up(
            {span.span_id: (span.parent_id, span.costs) for span in usage}, traces.COST_COLUMNS, ()
        )
        metadata[messages.COST] = dumped({key: float(value) for key, value in costs.items()})
    return metadata


def sum_up(
    nodes: Mapping[str, tuple[str | None, Mapping[str, Any] | None]],
    keys: Sequence[str],
    optional: Sequence[str],
) -> dict[str, float]:
    """The sums over a tree of spans. A span that says something speaks for all below it."""
    totals: dict[str, float] = dict.fromkeys(keys, 0)
    speaks: dict[str, bool] = {}
    for parent_id, numbers in nodes.values():
        if numbers is None or _is_spoken_for(nodes, parent_id, speaks):
            continue
        for key in (*keys, *optional):
            value = traces.finite(numbers.get(key))
            if value is not None:
                totals[key] = totals.get(key, 0) + value
    return totals


def _is_spoken_for(
    nodes: Mapping[str, tuple[str | None, Mapping[str, Any] | None]],
    span_id: str | None,
    known: dict[str, bool],
) -> bool:
    """Whether this span or one above it says something."""
    path: dict[str, bool] = {}
    answer = False
    while span_id is not None and span_id in nodes and span_id not in path:
        if span_id in known:
            answer = known[span_id]
            break
        parent_id, numbers = nodes[span_id]
        path[span_id] = True
        if numbers is not None:
            answer = True
            break
        span_id = parent_id
    known.update(dict.fromkeys(path, answer))
    return answer


# --- what spans tell ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Told:
    """What some spans tell about their trace."""

    start_ms: int
    end_ms: int | None
    root: Span | None
    state: str | None
    session: str | None
    user: str | None
    tags: dict[str, str]
    has_usage: bool
    has_cost: bool

    @classmethod
    def by(cls, spans: Sequence[Span]) -> "_Told":
        """What these spans of one trace tell."""
        ends = [span.end_ns for span in spans if span.end_ns is not None]
        root = next((span for span in spans if span.parent_id is None), None)
        state = None
        if root is not None:
            state = "ERROR" if root.status is SpanStatus.ERROR else "OK"
        return cls(
            min(span.start_ns for span in spans) // _NS_PER_MS,
            max(ends) // _NS_PER_MS if ends else None,
            root,
            state,
            _first_text(spans, _SESSION_ATTRIBUTES, messages.LONGEST_SESSION),
            _first_text(spans, (_USER_ATTRIBUTE,), None),
            _tags(spans, root),
            any(USAGE in span.attributes for span in spans),
            any(COST in span.attributes for span in spans),
        )


def _first_text(spans: Sequence[Span], keys: Sequence[str], longest: int | None) -> str | None:
    for span in spans:
        for key in keys:
            value = loaded(span.attributes.get(key))
            if value:
                text = value if isinstance(value, str) else dumped(value)
                return traces.without_nul(text[:longest])
    return None


def _tags(spans: Sequence[Span], root: Span | None) -> dict[str, str]:
    """What the producer says of itself, and over it the tags that a client sent along."""
    resource: Mapping[str, Any] = next((span.resource for span in spans if span.resource), {})
    given = {key: value for key, value in resource.items() if not key.startswith(_UNTOLD)}
    for key, text in ({} if root is None else root.attributes).items():
        if key.startswith(_TAG_PREFIX):
            given[key.removeprefix(_TAG_PREFIX)] = loaded(text)
    tags: dict[str, str] = {}
    for key, value in given.items():
        try:
            messages.refuse_reserved_tag(key, deleting=False)
            name, text = messages.parse_trace_tag(key, value if isinstance(value, str) else dumped(value))
        except MlflowError:
            log.debug("span_tag_skipped", key=key)
        else:
            tags[name] = text
    return tags


# --- previews -------------------------------------------------------------------------------


def preview(text: str | None, role: str) -> str | None:
    """The beginning of an input or output; of a conversation, that of its last message by this role."""
    if not text:
        return None
    shown = traces.without_nul(_message_text(loaded(text), role) or text) or ""
    return shown if len(shown) <= _LONGEST_PREVIEW else f"{shown[: _LONGEST_PREVIEW - 3]}..."


def _message_text(value: Any, role: str) -> str | None:
    found = _conversation(value)
    if not found:
        return None
    message = next((item for item in reversed(found) if item["role"] == role), found[-1])
    content = message["content"]
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if isinstance(part, str):
            return part
        if isinstance(part, dict) and part.get("type") in ("text", "output_text"):
            inner = part.get("text")
            return inner if isinstance(inner, str) else None
    return None


def _conversation(value: Any) -> list[dict[str, Any]]:
    """The messages in what the usual chat interfaces take and give."""
    for _ in range(10):
        if not isinstance(value, dict):
            return []
        choices = value.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        candidates = [value.get("messages"), [first.get("message")] if isinstance(first, dict) else None]
        candidates += [value.get("input"), value.get("output")]
        for candidate in candidates:
            if isinstance(candidate, list) and candidate:
                return [item for item in candidate if _is_message(item)]
        value = value.get("request")
    return []


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and "role" in item and "content" in item
