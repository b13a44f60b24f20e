"""Metrics over traces, spans and assessments: what may be asked for, and under which conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from server.domain.errors import invalid_parameter
from server.protocol import limits
from server.protocol.search.clauses import Clause, read_clauses
from server.protocol.search.grammar import plain_prefix
from server.protocol.search.lexing import Kind
from server.protocol.search.quoting import plain_key, quoted_text
from server.protocol.wire import Request, missing_parameter

TIME_BUCKET = "time_bucket"
_MOST_POINTS = 1000
_MOST_FILTERS = 50
_MOST_AGGREGATIONS = 20
_LONGEST_INTERVAL = 10**10


class View(StrEnum):
    """What is counted."""

    TRACES = "TRACES"
    SPANS = "SPANS"
    ASSESSMENTS = "ASSESSMENTS"


class Aggregation(StrEnum):
    """How numbers become one."""

    COUNT = "COUNT"
    SUM = "SUM"
    AVG = "AVG"
    PERCENTILE = "PERCENTILE"
    MIN = "MIN"
    MAX = "MAX"


@dataclass(frozen=True, slots=True)
class WantedAggregation:
    """One aggregation; a percentile says which."""

    kind: Aggregation
    percentile: float | None = None

    @property
    def label(self) -> str:
        """Its name in the answer."""
        return self.kind.value if self.percentile is None else f"P{self.percentile}"


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """`view.entity[.key] = value`."""

    view: str
    entity: str
    key: str | None
    value: str


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """What is asked for, checked."""

    experiment_ids: Sequence[str]
    view: View
    metric: str
    aggregations: Sequence[WantedAggregation]
    dimensions: Sequence[str]
    filters: Sequence[MetricFilter]
    interval_ms: int | None
    start_ms: int | None
    end_ms: int | None
    limit: int


# --- messages -------------------------------------------------------------------------------


class AggregationMessage(msgspec.Struct):
    """One aggregation."""

    aggregation_type: str | int | None = None
    percentile_value: float | None = None


class TraceMetricsRequest(Request):
    """POST traces/metrics."""

    experiment_ids: list[str] = []
    view_type: str | int | None = None
    metric_name: str = ""
    aggregations: list[AggregationMessage] = []
    dimensions: list[str] = []
    filters: list[str] = []
    time_interval_seconds: int | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    max_results: int | None = None
    page_token: str | None = None


class DataPointMessage(msgspec.Struct, omit_defaults=True):
    """The aggregates of one group."""

    metric_name: str
    dimensions: dict[str, str] = {}
    values: dict[str, float] = {}


class TraceMetricsAnswer(msgspec.Struct, omit_defaults=True):
    """traces/metrics."""

    data_points: list[DataPointMessage] = []


# --- what there is --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Metric:
    aggregations: frozenset[Aggregation]
    dimensions: frozenset[str]


_COUNTED = frozenset({Aggregation.COUNT})
_SPREAD = frozenset({Aggregation.AVG, Aggregation.MIN, Aggregation.MAX, Aggregation.PERCENTILE})
_SUMMED = _SPREAD | {Aggregation.SUM}
_OF_TRACE = frozenset({"trace_name"})
_OF_MODEL = frozenset({"span_model_name", "span_model_provider"})
_METRICS: dict[View, dict[str, _Metric]] = {
    View.TRACES: {
        "trace_count": _Metric(_COUNTED, _OF_TRACE | {"trace_status"}),
        "session_count": _Metric(_COUNTED, frozenset()),
        "latency": _Metric(_SPREAD, _OF_TRACE),
        "input_tokens": _Metric(_SUMMED, _OF_TRACE),
        "output_tokens": _Metric(_SUMMED, _OF_TRACE),
        "total_tokens": _Metric(_SUMMED, _OF_TRACE),
        "cache_read_input_tokens": _Metric(_SUMMED, _OF_TRACE),
        "cache_creation_input_tokens": _Metric(_SUMMED, _OF_TRACE),
    },
    View.SPANS: {
        "span_count": _Metric(_COUNTED, _OF_MODEL | {"span_name", "span_type", "span_status"}),
        "latency": _Metric(_SPREAD, frozenset({"span_name", "span_status"})),
        "input_cost": _Metric(_SUMMED, _OF_MODEL),
        "output_cost": _Metric(_SUMMED, _OF_MODEL),
        "total_cost": _Metric(_SUMMED, _OF_MODEL),
    },
    View.ASSESSMENTS: {
        "assessment_count": _Metric(_COUNTED, frozenset({"assessment_name", "assessment_value"})),
        "assessment_value": _Metric(_SPREAD, frozenset({"assessment_name"})),
    },
}
_VIEWS = (View.TRACES, View.SPANS, View.ASSESSMENTS)
_AGGREGATIONS = tuple(Aggregation)
# Whether an entity is asked for with a key.
_ENTITIES: dict[str, dict[str, bool]] = {
    "trace": {"status": False, "tag": True, "metadata": True},
    "span": {"name": False, "status": False, "type": False},
    "assessment": {"name": False, "type": False},
}
_VIEW_OF_PREFIX = {"span": View.SPANS, "assessment": View.ASSESSMENTS}


# --- reading --------------------------------------------------------------------------------


def parse_metric_query(request: TraceMetricsRequest) -> MetricQuery:
    """What a request asks for.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when there is no such metric, or not in that way.
    """
    for name in ("experiment_ids", "view_type", "metric_name", "aggregations"):
        if not getattr(request, name):
            raise missing_parameter(name)
    view = _view(request.view_type)
    aggregations = _parse_aggregations(request.aggregations)
    _check_metric(view, request.metric_name, aggregations, request.dimensions)
    interval = request.time_interval_seconds
    if interval and (request.start_time_ms is None or request.end_time_ms is None):
        raise invalid_parameter("start_time_ms and end_time_ms are required if time_interval_seconds is set")
    if interval is not None and not 0 <= interval <= _LONGEST_INTERVAL:
        raise limits.invalid_value("time_interval_seconds", interval)
    limits.check_int64("start_time_ms", request.start_time_ms)
    limits.check_int64("end_time_ms", request.end_time_ms)
    if len(request.filters) > _MOST_FILTERS:
        raise invalid_parameter(f"`filters` is limited to {_MOST_FILTERS}. Got {len(request.filters)}.")
    return MetricQuery(
        request.experiment_ids,
        view,
        request.metric_name,
        aggregations,
        list(dict.fromkeys(request.dimensions)),
        [_parse_filter(text, view) for text in request.filters],
        interval * 1000 if interval else None,
        request.start_time_ms,
        request.end_time_ms,
        limits.check_page_size(request.max_results, default=_MOST_POINTS, largest=_MOST_POINTS),
    )


def _view(value: Any) -> View:
    if isinstance(value, int):
        return _VIEWS[value - 1] if 1 <= value <= len(_VIEWS) else View.TRACES
    return View(value) if value in View.__members__ else View.TRACES


def _parse_aggregations(messages: Sequence[AggregationMessage]) -> list[WantedAggregation]:
    if len(messages) > _MOST_AGGREGATIONS:
        raise invalid_parameter(f"`aggregations` is limited to {_MOST_AGGREGATIONS}. Got {len(messages)}.")
    found = []
    for message in messages:
        kind, percentile = _aggregation(message.aggregation_type), message.percentile_value
        if kind is Aggregation.PERCENTILE:
            if percentile is None:
                raise invalid_parameter("Percentile value is required for PERCENTILE aggregation")
            if not 0 <= percentile <= 100:
                raise invalid_parameter(f"Percentile value must be between 0 and 100, got {percentile}")
        elif percentile is not None:
            raise invalid_parameter(
                f"Percentile value is only allowed for PERCENTILE aggregation type, got {kind}"
            )
        found.append(WantedAggregation(kind, percentile))
    return list(dict.fromkeys(found))


def _aggregation(value: Any) -> Aggregation:
    if isinstance(value, int):
        return _AGGREGATIONS[value - 1] if 1 <= value <= len(_AGGREGATIONS) else Aggregation.COUNT
    return Aggregation(value) if value in Aggregation.__members__ else Aggregation.COUNT


def _check_metric(
    view: View, name: str, aggregations: Sequence[WantedAggregation], dimensions: Sequence[str]
) -> None:
    metrics = _METRICS[view]
    if name not in metrics:
        raise invalid_parameter(f"metric_name must be one of {list(metrics)}, got '{name}'")
    metric = metrics[name]
    wrong = sorted({item.kind.value for item in aggregations} - {kind.value for kind in metric.aggregations})
    if wrong:
        known = sorted(kind.value for kind in metric.aggregations)
        raise invalid_parameter(
            f"Found invalid aggregation_type(s): {wrong}. Supported aggregation types: {known}"
        )
    if strange := sorted(set(dimensions) - metric.dimensions):
        raise invalid_parameter(
            f"Found invalid dimension(s): {strange}. Supported dimensions: {sorted(metric.dimensions)}"
        )


def _parse_filter(text: str, view: View) -> MetricFilter:
    clauses = read_clauses(text)
    if clauses.strays:
        raise invalid_parameter(f"Invalid clause(s) in filter string: {', '.join(clauses.strays)}")
    if len(clauses.valid) != 1:
        raise invalid_parameter(f"Invalid filter: '{text}'. Expected one filter clause.")
    found = _read_clause(clauses.valid[0])
    wanted = _VIEW_OF_PREFIX.get(found.view, view)
    if wanted is not view:
        raise invalid_parameter(
            f"Filtering by {found.view} is only supported for {wanted} view type, got {view}"
        )
    return found


def _read_clause(clause: Clause) -> MetricFilter:
    if clause.left.kind is not Kind.IDENTIFIER:
        raise invalid_parameter(
            f"Invalid comparison clause. Expected 'Identifier' found '{clause.left.text}'"
        )
    view, entity, key = _identifier(clause.left.text)
    if clause.operator != "=" or clause.right is None:
        raise invalid_parameter(f"Invalid comparator: '{clause.operator}', only '=' operator is supported")
    if clause.right.kind not in (Kind.STRING, Kind.IDENTIFIER):
        raise invalid_parameter(
            f"Expected a quoted string value for {entity} value (e.g. 'my-value'). "
            f"Got value {clause.right.text}"
        )
    return MetricFilter(view, entity, key, quoted_text(clause.right.text))


def _identifier(text: str) -> tuple[str, str, str | None]:
    parts = text.split(".", 2)
    if len(parts) < 2:
        raise invalid_parameter(
            f"Invalid identifier {text!r}. Columns should be specified as "
            "'trace.<key>', 'span.<key>', 'assessment.<key>'."
        )
    view, entity = plain_prefix(parts[0]), parts[1]
    if view not in _ENTITIES:
        raise invalid_parameter(f"Invalid view type '{view}'. Valid values are {list(_ENTITIES)}")
    entities = _ENTITIES[view]
    if entity not in entities:
        raise invalid_parameter(
            f"Invalid entity '{entity}' specified for view type '{view}'. Valid entities are {list(entities)}"
        )
    if entities[entity] and len(parts) < 3:
        raise invalid_parameter(
            f"Filtering by {entity} requires a key, e.g. '{view}.{entity}.<key> = <value>'"
        )
    if not entities[entity] and len(parts) > 2:
        raise invalid_parameter(
            f"Filtering by {entity} does not require a key, use '{view}.{entity}' instead"
        )
    return view, entity, plain_key(parts[2]) if len(parts) > 2 else None
