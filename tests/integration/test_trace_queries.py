"""Searching traces, and metrics over them, on either database."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.tracing import CHILD, INVALID, ROOT, V3, Tracer, new_id, span, tracing_server
from tests.support.tracking import Json

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def tracer(database_url: str, tmp_path: Path) -> AsyncIterator[Tracer]:
    """A client of a server on an empty database."""
    async with tracing_server(database_url, tmp_path) as tracer:
        yield tracer


# --- search ---------------------------------------------------------------------------------


async def test_conditions_on_spans_mean_one_span(tracer: Tracer) -> None:
    """All conditions on spans are met by one and the same span."""
    trace_id = new_id()
    tool = {"mlflow.spanType": "TOOL"}
    await tracer.spans(
        span(trace_id), span(trace_id, CHILD, parentSpanId=ROOT, name="inner", attributes=tool)
    )
    assert await tracer.search("span.name = 'inner' AND span.type = 'TOOL'") == [trace_id]
    assert await tracer.search("span.name = 'root' AND span.type = 'TOOL'") == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("span.attributes.model = 'a.b'", True),
        ("span.attributes.model = 'a_b'", False),
        ("span.attributes.model != 'a.b'", False),
        ("span.attributes.model IN ('x', 'a.b')", True),
        ("span.attributes.count = '5'", True),
        ("span.attributes.model LIKE '%a.b%'", True),
        ("span.attributes.model ILIKE '%A.B%'", True),
        ("span.attributes.model LIKE '%A.B%'", False),
        ("span.attributes.model RLIKE '^a[.]b$'", True),
        ("span.attributes.model RLIKE '^b'", False),
        ("span.attributes.model RLIKE '(x|b)$'", True),
        ("span.content LIKE '%größe%'", True),
        ("span.name RLIKE '^r.+t$'", True),
        ("span.name RLIKE 'R'", False),
    ],
)
async def test_looking_into_spans(tracer: Tracer, text: str, is_found: bool) -> None:
    """Attributes and content of spans are searched the same way on both databases."""
    await tracer.spans(span(new_id(), attributes={"model": "a.b", "count": 5, "text": "größe"}))
    assert bool(await tracer.search(text)) is is_found


async def test_a_pattern_cannot_stop_the_server(tracer: Tracer) -> None:
    """A regular expression that would take for ever elsewhere is answered at once."""
    await tracer.start(tags={"t": "a" * 5000 + "b"})
    assert await tracer.search("tags.t RLIKE '^(a+)+$'") == []
    assert len(await tracer.search("tags.t RLIKE '^(a|b)+$'")) == 1


async def test_ordering(tracer: Tracer) -> None:
    """Traces sort by attributes, tags and metadata; those without the key come last either way."""
    a = await tracer.start(request_time="2024-01-01T00:00:01Z", tags={"k": "1"}, execution_duration="3s")
    b = await tracer.start(request_time="2024-01-01T00:00:02Z", tags={"k": "2"}, execution_duration="1s")
    c = await tracer.start(request_time="2024-01-01T00:00:03Z")
    assert await tracer.search() == [c, b, a]
    assert await tracer.search(order_by=["tags.k ASC"]) == [a, b, c]
    assert await tracer.search(order_by=["tags.k DESC"]) == [b, a, c]
    assert await tracer.search(order_by=["execution_time DESC"]) == [a, b, c]
    assert await tracer.search(order_by=["end_time ASC"]) == [c, b, a]
    assert await tracer.search(order_by=["timestamp ASC"]) == [a, b, c]


async def test_pages_end_where_the_traces_end(tracer: Tracer) -> None:
    """Pages follow each other without gap or repeat, and the last one has no token."""
    made = [await tracer.start(request_time=f"2024-01-01T00:00:0{number}Z") for number in range(4)]
    location = {"mlflow_experiment": {"experiment_id": tracer.experiment_id}}
    seen, token = [], None
    for _ in range(2):
        page = await tracer.server.post(f"{V3}/search", locations=[location], max_results=2, page_token=token)
        seen += [trace["trace_id"] for trace in page["traces"]]
        token = page.get("next_page_token")
    assert (seen, token) == (made[::-1], None)


@pytest.mark.parametrize("max_results", [0, -1, 501])
async def test_page_sizes_that_are_refused(tracer: Tracer, max_results: int) -> None:
    """A page holds between one and five hundred traces."""
    location = {"mlflow_experiment": {"experiment_id": tracer.experiment_id}}
    fields = {"locations": [location], "max_results": max_results}
    assert (await tracer.server.refusal("POST", f"{V3}/search", fields))[1] == INVALID


# --- metrics --------------------------------------------------------------------------------


async def test_percentiles_are_interpolated(tracer: Tracer) -> None:
    """Percentiles lie between their neighbours in rank, for each group by itself."""
    for seconds in (1, 2, 4, 8):
        await tracer.start(execution_duration=f"{seconds}s", tags={"mlflow.traceName": "n"})
    await tracer.start(execution_duration="5s", tags={"mlflow.traceName": "m"})
    await tracer.start(tags={"mlflow.traceName": "m"})
    found = await tracer.metrics("TRACES", "latency", 50.0, 100.0, 90.0, "AVG", dimensions=["trace_name"])
    assert [dimensions["trace_name"] for dimensions, _ in found] == ["m", "n"]
    assert found[0][1] == {"P50.0": 5000.0, "P100.0": 5000.0, "P90.0": 5000.0, "AVG": 5000.0}
    assert found[1][1] == pytest.approx({"P50.0": 3000.0, "P100.0": 8000.0, "P90.0": 6800.0, "AVG": 3750.0})


async def test_time_buckets(tracer: Tracer) -> None:
    """Counts fall into whole intervals from the epoch on, within the bounds asked for."""
    for moment in ("03:10:00", "03:59:59.999", "04:00:00", "09:00:00"):
        await tracer.start(request_time=f"2024-01-02T{moment}Z", state="OK")
    found = await tracer.metrics(
        "TRACES",
        "trace_count",
        "COUNT",
        dimensions=["trace_status"],
        time_interval_seconds=3600,
        start_time_ms=1_704_164_400_000,
        end_time_ms=1_704_171_600_000,
    )
    assert [(point[0]["time_bucket"], point[1]["COUNT"]) for point in found] == [
        ("2024-01-02T03:00:00+00:00", 2.0),
        ("2024-01-02T04:00:00+00:00", 1.0),
    ]


async def test_metrics_of_spans(tracer: Tracer) -> None:
    """Spans are counted by name and status, timed, and their costs summed up by model."""
    trace_id = new_id()
    cost = {"mlflow.llm.model": "m", "mlflow.llm.cost": {"input_cost": 0.25, "total_cost": 0.5}}
    await tracer.spans(
        span(trace_id, takes=3, attributes=cost),
        span(trace_id, CHILD, parentSpanId=ROOT, name="inner", status={"code": 2}),
    )
    assert await tracer.metrics("SPANS", "span_count", "COUNT", dimensions=["span_name", "span_status"]) == [
        ({"span_name": "inner", "span_status": "ERROR"}, {"COUNT": 1.0}),
        ({"span_name": "root", "span_status": "OK"}, {"COUNT": 1.0}),
    ]
    assert await tracer.metrics("SPANS", "latency", "MAX", filters=["span.name = 'inner'"]) == [
        ({}, {"MAX": 1000.0})
    ]
    assert await tracer.metrics("SPANS", "total_cost", "SUM", dimensions=["span_model_name"]) == [
        ({"span_model_name": "m"}, {"SUM": 0.5})
    ]
    metadata = (await tracer.get(trace_id))["trace_metadata"]
    assert json.loads(metadata["mlflow.trace.cost"])["total_cost"] == 0.5


async def test_metric_filters(tracer: Tracer) -> None:
    """Filters narrow what is counted; sessions are counted once each."""
    one = {"mlflow.trace.session": "s", "k": "v"}
    for metadata in (one, one, {"mlflow.trace.session": "t"}, {}):
        await tracer.start(trace_metadata=metadata, tags={"c": "red"})
    assert await tracer.metrics("TRACES", "session_count", "COUNT") == [({}, {"COUNT": 2.0})]
    filters = ['trace.metadata.k = "v"', 'trace.status = "OK"', "trace.tag.c = 'red'"]
    assert await tracer.metrics("TRACES", "trace_count", "COUNT", filters=filters) == [({}, {"COUNT": 2.0})]
    assert await tracer.metrics("TRACES", "session_count", "COUNT", filters=filters) == [({}, {"COUNT": 1.0})]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"aggregations": [{"aggregation_type": "SUM"}]},
            "Found invalid aggregation_type(s): ['SUM']. Supported aggregation types: ['COUNT']",
        ),
        (
            {"dimensions": ["zz"]},
            "Found invalid dimension(s): ['zz']. Supported dimensions: ['trace_name', 'trace_status']",
        ),
        (
            {"time_interval_seconds": 60},
            "start_time_ms and end_time_ms are required if time_interval_seconds is set",
        ),
        (
            {"filters": ['trace.status != "OK"']},
            "Invalid comparator: '!=', only '=' operator is supported",
        ),
        (
            {"filters": ['span.name = "x"']},
            "Filtering by span is only supported for SPANS view type, got TRACES",
        ),
        (
            {"filters": ['trace.foo = "x"']},
            "Invalid entity 'foo' specified for view type 'trace'."
            " Valid entities are ['status', 'tag', 'metadata']",
        ),
    ],
)
async def test_metrics_that_are_refused(tracer: Tracer, fields: Json, message: str) -> None:
    """What cannot be asked for is refused in MLflow's words."""
    query = {
        "experiment_ids": [tracer.experiment_id],
        "view_type": "TRACES",
        "metric_name": "trace_count",
        "aggregations": [{"aggregation_type": "COUNT"}],
    }
    assert (await tracer.server.refusal("POST", f"{V3}/metrics", {**query, **fields}))[2] == message


async def test_correlation_of_filters(tracer: Tracer) -> None:
    """Filters that always meet correlate fully, those that never do not at all."""
    for state, tag in (("OK", "x"), ("OK", "x"), ("ERROR", "y")):
        await tracer.start(state=state, tags={"t": tag})

    async def correlate(first: str, second: str) -> Json:
        return await tracer.server.post(
            f"{V3}/calculate-filter-correlation",
            experiment_ids=[tracer.experiment_id],
            filter_string1=first,
            filter_string2=second,
        )

    same = await correlate("status = 'OK'", "tags.t = 'x'")
    assert (same["npmi"], same["joint_count"], same["total_count"]) == (pytest.approx(1.0), 2, 3)
    assert (await correlate("status = 'OK'", "tags.t = 'y'"))["npmi"] == -1.0
    assert "npmi" not in await correlate("status = 'OK'", "tags.t = 'z'")
