"""Spans, from an export over OTLP to either database and back."""

import base64
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from server.protocol.otlp import LARGEST_BODY_BYTES
from tests.support.tracing import (
    CHILD,
    INVALID,
    MISSING,
    ROOT,
    SECOND_NS,
    START_NS,
    V3,
    Tracer,
    any_value,
    new_id,
    request,
    span,
    tracing_server,
    usage,
)
from tests.support.tracking import refusal_of

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def tracer(database_url: str, tmp_path: Path) -> AsyncIterator[Tracer]:
    """A client of a server on an empty database."""
    async with tracing_server(database_url, tmp_path) as tracer:
        yield tracer


async def test_the_first_span_makes_the_trace(tracer: Tracer) -> None:
    """A trace that nobody started comes into being with its spans, and grows with them."""
    trace_id = new_id()
    await tracer.spans(span(trace_id, CHILD, parentSpanId=ROOT, at=1, takes=2))
    assert (await tracer.get(trace_id))["state"] == "IN_PROGRESS"
    attributes = {"mlflow.spanInputs": {"q": 1}, "session.id": "s", "user.id": "u", "mlflow.traceTag.t": "x"}
    await tracer.spans(span(trace_id, attributes=attributes, takes=2), resource={"service.name": "shop"})
    info = await tracer.get(trace_id)
    assert info["state"] == "OK"
    assert info["request_time"] == "2023-11-14T22:13:20Z"
    assert info["execution_duration"] == "3s"
    assert info["request_preview"] == '{"q": 1}'
    assert info["trace_metadata"] == {"mlflow.trace.session": "s", "mlflow.trace.user": "u"}
    assert info["tags"]["mlflow.trace.spansLocation"] == "TRACKING_STORE"
    assert (info["tags"]["service.name"], info["tags"]["t"]) == ("shop", "x")


@pytest.mark.parametrize("is_started_first", [True, False])
async def test_what_the_client_says_stands(tracer: Tracer, is_started_first: bool) -> None:
    """Spans change nothing of what a client has said of the trace, whichever comes first."""
    trace_id = new_id()
    said = {
        "trace_id": trace_id,
        "execution_duration": "9s",
        "request_preview": "mine",
        "trace_metadata": {"mlflow.trace.tokenUsage": json.dumps({"total_tokens": 1})},
    }
    if is_started_first:
        await tracer.start(**said)
    await tracer.spans(span(trace_id, attributes={**usage(3, 2), "mlflow.spanInputs": "theirs"}))
    if not is_started_first:
        await tracer.start(**said)
    info = await tracer.get(trace_id)
    assert (info["request_time"], info["execution_duration"]) == ("2024-01-02T03:04:05.678Z", "9s")
    assert info["request_preview"] == "mine"
    assert json.loads(info["trace_metadata"]["mlflow.trace.tokenUsage"]) == {"total_tokens": 1}
    assert await tracer.metrics("TRACES", "total_tokens", "SUM") == [({}, {"SUM": 1.0})]


async def test_tokens_are_summed_over_all_spans_once(tracer: Tracer) -> None:
    """A span that says what it used speaks for those below it, also when they came before it."""
    trace_id = new_id()
    leaf = span(trace_id, "00000000000000cc", parentSpanId=CHILD, attributes=usage(1, 1))
    other = span(trace_id, "00000000000000dd", parentSpanId=ROOT, attributes=usage(10, 5))
    await tracer.spans(leaf, other)
    await tracer.spans(
        span(trace_id, CHILD, parentSpanId=ROOT, attributes=usage(2, 2)), span(trace_id), other
    )
    metadata = (await tracer.get(trace_id))["trace_metadata"]
    assert json.loads(metadata["mlflow.trace.tokenUsage"]) == {
        "input_tokens": 12,
        "output_tokens": 7,
        "total_tokens": 19,
    }


async def test_spans_come_back_in_otlp(tracer: Tracer) -> None:
    """Ids, times, attributes of any kind, events, links and status come back as they came."""
    trace_id = new_id()
    raw = bytes.fromhex(trace_id.removeprefix("tr-"))
    sent = span(
        trace_id,
        attributes={"n": 5, "d": 0.5, "s": "text", "o": {"k": "v"}, "quoted": '{"a": 1}'},
        events=[
            {"name": "e", "timeUnixNano": str(START_NS), "attributes": [{"key": "k", "value": any_value(1)}]}
        ],
        links=[{"traceId": trace_id.removeprefix("tr-"), "spanId": CHILD}],
        status={"code": 2, "message": "bad"},
    )
    await tracer.spans(sent)
    [held] = (await tracer.whole(trace_id))["spans"]
    assert base64.b64decode(held["trace_id"]) == raw
    assert base64.b64decode(held["span_id"]) == bytes.fromhex(ROOT)
    assert (held["start_time_unix_nano"], held["end_time_unix_nano"]) == (START_NS, START_NS + SECOND_NS)
    assert held["status"] == {"code": "STATUS_CODE_ERROR", "message": "bad"}
    values = {item["key"]: item["value"] for item in held["attributes"]}
    assert values["n"] == {"int_value": 5}
    assert values["d"] == {"double_value": 0.5}
    assert values["s"] == {"string_value": "text"}
    assert values["o"] == {"kvlist_value": {"values": [{"key": "k", "value": {"string_value": "v"}}]}}
    assert values["quoted"] == {"kvlist_value": {"values": [{"key": "a", "value": {"int_value": 1}}]}}
    assert values["mlflow.traceRequestId"] == {"string_value": trace_id}
    assert held["events"] == [
        {"name": "e", "time_unix_nano": START_NS, "attributes": [{"key": "k", "value": {"int_value": 1}}]}
    ]
    assert base64.b64decode(held["links"][0]["span_id"]) == bytes.fromhex(CHILD)


async def test_other_libraries_attributes_are_understood(tracer: Tracer) -> None:
    """Kind, tokens, model and inputs of the usual conventions become MLflow's."""
    trace_id = new_id()
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.request.model": "small",
        "gen_ai.input.messages": json.dumps([{"role": "user", "content": "hi"}]),
    }
    await tracer.spans(span(trace_id, attributes=attributes))
    values = {item["key"]: item["value"] for item in (await tracer.whole(trace_id))["spans"][0]["attributes"]}
    assert values["mlflow.spanType"] == {"string_value": "CHAT_MODEL"}
    assert values["mlflow.llm.model"] == {"string_value": "small"}
    assert "mlflow.spanInputs" in values
    found = await tracer.metrics("SPANS", "span_count", "COUNT", dimensions=["span_model_name", "span_type"])
    assert found == [({"span_model_name": "small", "span_type": "CHAT_MODEL"}, {"COUNT": 1.0})]
    metadata = (await tracer.get(trace_id))["trace_metadata"]
    assert json.loads(metadata["mlflow.trace.tokenUsage"])["total_tokens"] == 10


async def test_protobuf_and_json_say_the_same(tracer: Tracer) -> None:
    """An export in protobuf is kept exactly as the same export in JSON."""
    one, other = new_id(), new_id()
    await tracer.spans(span(one, attributes={"k": "v"}))
    message = ExportTraceServiceRequest()
    held = message.resource_spans.add().scope_spans.add().spans.add()
    held.trace_id, held.span_id, held.name = bytes.fromhex(other[3:]), bytes.fromhex(ROOT), "root"
    held.start_time_unix_nano, held.end_time_unix_nano = START_NS, START_NS + SECOND_NS
    held.status.code = 1
    attribute = held.attributes.add()
    attribute.key, attribute.value.string_value = "k", "v"
    answer = await tracer.export(message.SerializeToString(), content_type="application/x-protobuf")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-protobuf"
    spans = [(await tracer.whole(trace_id))["spans"][0] for trace_id in (one, other)]
    for held_span in spans:
        del held_span["trace_id"]
        held_span["attributes"] = [item for item in held_span["attributes"] if item["key"] == "k"]
    assert spans[0] == spans[1]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "members", "identity"])
async def test_compressed_exports(tracer: Tracer, encoding: str) -> None:
    """Every usual compression is undone, a body of several gzip members included."""
    trace_id = new_id()
    body = json.dumps(request(span(trace_id))).encode()
    compressed = {
        "gzip": gzip.compress(body, mtime=0),
        "deflate": zlib.compress(body),
        "raw deflate": zlib.compress(body)[2:-4],
        "members": gzip.compress(body[:20], mtime=0) + gzip.compress(body[20:]),
        "identity": body,
    }[encoding]
    name = {"raw deflate": "deflate", "members": "gzip"}.get(encoding, encoding)
    assert (await tracer.export(compressed, content_encoding=name)).status_code == 200
    assert await tracer.search() == [trace_id]


async def test_a_body_that_swells_is_refused(tracer: Tracer) -> None:
    """What comes out of a compressed body is counted while it does, and has a bound."""
    bomb = gzip.compress(b" " * (LARGEST_BODY_BYTES + 1), mtime=0)
    assert len(bomb) < 100_000
    answer = await tracer.export(bomb, content_encoding="gzip")
    assert (answer.status_code, refusal_of(answer)[1]) == (413, INVALID)


@pytest.mark.parametrize(
    ("body", "headers", "status", "detail"),
    [
        (b"{}", {}, 400, "Invalid OpenTelemetry format - no spans found"),
        (b"{", {}, 400, "Invalid OpenTelemetry format"),
        (b"[]", {}, 400, "Invalid OpenTelemetry format"),
        (b'{"resourceSpans": 5}', {}, 400, "Invalid OpenTelemetry format"),
        (b"\x01\x02", {"content_type": "application/x-protobuf"}, 400, "Invalid OpenTelemetry format"),
        (b"zz", {"content_encoding": "gzip"}, 400, "Failed to decompress gzip payload"),
        (
            gzip.compress(b"{}", mtime=0)[:-5],
            {"content_encoding": "gzip"},
            400,
            "Failed to decompress gzip payload",
        ),
        (b"zz", {"content_encoding": "br"}, 400, "Unsupported Content-Encoding: br"),
        (
            b"{}",
            {"content_type": "text/plain"},
            400,
            "Invalid Content-Type: text/plain. Expected: application/x-protobuf or application/json",
        ),
        (
            json.dumps(request(span("", ROOT))).encode(),
            {},
            422,
            "Cannot convert OpenTelemetry span to MLflow span",
        ),
        (
            json.dumps(request(span("ab" * 17))).encode(),
            {},
            422,
            "Cannot convert OpenTelemetry span to MLflow span",
        ),
        (
            json.dumps(request(span("ab" * 16, startTimeUnixNano=str(2**63)))).encode(),
            {},
            422,
            "Cannot convert OpenTelemetry span to MLflow span",
        ),
    ],
)
async def test_exports_that_are_none(
    tracer: Tracer, body: bytes, headers: dict[str, str], status: int, detail: str
) -> None:
    """What is no export is refused with the status and sentence of a stock server."""
    answer = await tracer.export(body, **headers)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


async def test_an_export_must_name_its_experiment(tracer: Tracer) -> None:
    """Without the header, or with an experiment that is not there, nothing is kept."""
    body = json.dumps(request(span(new_id()))).encode()
    answer = await tracer.server.http.post(
        "/v1/traces", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert refusal_of(await tracer.export(body, x_mlflow_experiment_id="999"))[1] == MISSING
    assert refusal_of(await tracer.export(body, x_mlflow_experiment_id="abc"))[1] == INVALID


async def test_one_bad_span_keeps_out_all(tracer: Tracer) -> None:
    """An export is kept whole or not at all."""
    body = json.dumps(request(span(new_id()), span(""))).encode()
    assert (await tracer.export(body)).status_code == 422
    assert await tracer.search() == []


async def test_texts_no_database_holds(tracer: Tracer) -> None:
    """A NUL in a name, tag or attribute does not keep the span out."""
    trace_id = new_id()
    attributes = {"k": "a\0b", "session.id": "s\0", "mlflow.traceTag.bad": "x\0"}
    await tracer.spans(span(trace_id, name="na\0me", attributes=attributes))
    whole = await tracer.whole(trace_id)
    assert {"key": "k", "value": {"string_value": "a\0b"}} in whole["spans"][0]["attributes"]
    assert "bad" not in whole["trace_info"]["tags"]


async def test_an_incomplete_trace_is_not_handed_out_whole(tracer: Tracer) -> None:
    """A batch leaves out a trace that has fewer spans than its client said; a part can be asked for."""
    trace_id = new_id()
    await tracer.spans(span(trace_id))
    stats = json.dumps({"num_spans": 2})
    await tracer.start(trace_id=trace_id, trace_metadata={"mlflow.trace.sizeStats": stats})
    assert await tracer.server.get(f"{V3}/batchGet", trace_ids=[trace_id]) == {}
    assert len((await tracer.whole(trace_id))["spans"]) == 1
    await tracer.spans(span(trace_id, CHILD, parentSpanId=ROOT))
    batch = await tracer.server.get(f"{V3}/batchGet", trace_ids=[trace_id, "tr-none"])
    assert [len(trace["spans"]) for trace in batch["traces"]] == [2]


async def test_batches_keep_the_order_asked_for(tracer: Tracer) -> None:
    """Infos come in the order of the ids, each once, and only from the experiments named."""
    first, second = await tracer.start(), await tracer.start()
    answer = await tracer.server.post(f"{V3}/batchGetInfos", trace_ids=[second, first, second, "tr-none"])
    assert [info["trace_id"] for info in answer["trace_infos"]] == [second, first]
    assert await tracer.server.post(f"{V3}/batchGetInfos", trace_ids=[first], experiment_ids=["0"]) == {}


async def test_files_of_a_trace(tracer: Tracer) -> None:
    """The spans kept here, or the file a client of version 2 put beside the trace, come as a download."""
    trace_id = new_id()
    await tracer.spans(span(trace_id))
    path = "/ajax-api/3.0/mlflow/get-trace-artifact"
    answer = await tracer.server.send("GET", path, {"request_id": trace_id})
    assert answer.json()["spans"][0]["name"] == "root"
    assert answer.headers["content-disposition"].startswith("attachment")
    other = await tracer.start()
    files = f"/api/2.0/mlflow-artifacts/artifacts/{tracer.experiment_id}/traces/{other}/artifacts"
    await tracer.server.http.put(f"{files}/traces.json", content=b'{"spans": []}')
    await tracer.server.http.put(f"{files}/attachments/a.png", content=b"png")
    assert (await tracer.server.send("GET", path, {"request_id": other})).content == b'{"spans": []}'
    picture = await tracer.server.send("GET", path, {"request_id": other, "path": "a.png"})
    assert (picture.content, picture.headers["content-type"]) == (b"png", "image/png")
    assert (await tracer.server.refusal("GET", path, {"request_id": other, "path": "../x"}))[1] == INVALID
    assert (await tracer.server.refusal("GET", path, {"request_id": "tr-none"}))[1] == MISSING
    assert (await tracer.server.refusal("GET", path))[1] == "BAD_REQUEST"
