"""What a body may hold is counted in its bytes, and what no decoder understands is a refusal."""

import gzip
import json
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from server.domain.errors import MlflowError
from server.protocol import bulk
from server.protocol.otlp import JSON, PROTOBUF, BodyDecoder, OtlpError, decode_spans
from server.protocol.paging import decode_offset, decode_point, encode_offset

DESCRIPTOR = ExportTraceServiceRequest.DESCRIPTOR


def _request(spans: int) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(spans):
        span = scope.spans.add(name="a span of some length", span_id=b"12345678", trace_id=b"1" * 16)
        span.start_time_unix_nano = number
        span.attributes.add(key="a").value.string_value = "b"
    return bytes(request.SerializeToString())


@pytest.fixture
def _nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SMALL_BYTES", 0)


@pytest.mark.usefixtures("_nothing_is_small")
@pytest.mark.parametrize(("most", "is_refused"), [(301, True), (302, False)])
def test_messages_are_counted_wherever_they_are(
    monkeypatch: pytest.MonkeyPatch, most: int, *, is_refused: bool
) -> None:
    """A hundred spans with an attribute and its value are 302 messages with those around them."""
    monkeypatch.setattr(bulk, "MOST_CONTAINERS", most)
    body = _request(100)
    if is_refused:
        with pytest.raises(MlflowError) as caught:
            bulk.check_protobuf(body, DESCRIPTOR)
        assert caught.value.status == 413
    else:
        bulk.check_protobuf(body, DESCRIPTOR)


@pytest.mark.usefixtures("_nothing_is_small")
@given(st.binary(max_size=200))
def test_any_bytes_are_counted(body: bytes) -> None:
    """Counting ends, and leaves what is no message to the parser."""
    with suppress(MlflowError):
        bulk.check_protobuf(body, DESCRIPTOR)


@pytest.mark.parametrize(
    "text",
    [
        b"[]," * (bulk.MOST_CONTAINERS + 1),
        b"{} " * (bulk.MOST_CONTAINERS + 1),
        b"1," * (bulk.MOST_VALUES + 1),
    ],
)
def test_too_many_values_of_json_are_refused(text: bytes) -> None:
    """Lists, objects and whatever commas part."""
    with pytest.raises(MlflowError) as caught:
        bulk.check_json(text)
    assert caught.value.status == 413


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["resourceSpans", "scopeSpans", "spans", "links", "traceId", "spanId", "attributes", "value"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.builds(_request, st.integers(0, 3)).flatmap(lambda body: st.permutations(body).map(bytes))
)
def test_any_bytes_are_spans_or_a_refusal(body: bytes) -> None:
    """OTLP's protobuf: never another exception than the two that are answered."""
    with suppress(OtlpError, MlflowError):
        decode_spans(body, PROTOBUF)


@settings(deadline=None)
@given(_json)
def test_any_json_is_spans_or_a_refusal(document: Any) -> None:
    """OTLP's JSON, in shapes that nearly fit."""
    with suppress(OtlpError, MlflowError):
        decode_spans(json.dumps(document).encode(), JSON)


@given(
    st.lists(st.binary(max_size=40), max_size=4),
    st.sampled_from(["", "identity", "gzip", "deflate", "br", "zstd"]),
)
def test_any_bytes_are_a_body_or_a_refusal(pieces: list[bytes], encoding: str) -> None:
    """Whatever is said about their compression."""
    with suppress(OtlpError, MlflowError):
        decoder = BodyDecoder(encoding)
        for piece in pieces:
            decoder.feed(piece)
        decoder.finish()


@given(st.binary(max_size=300), st.integers(1, 40), st.sampled_from(["gzip", "deflate"]))
def test_what_was_compressed_comes_out_again(content: bytes, step: int, encoding: str) -> None:
    """However it is cut into pieces."""
    compressed = gzip.compress(content) if encoding == "gzip" else zlib.compress(content)
    decoder = BodyDecoder(encoding)
    for start in range(0, len(compressed), step):
        decoder.feed(compressed[start : start + step])
    assert decoder.finish() == content


@given(st.text(max_size=60) | st.binary(max_size=60).map(bytes.hex))
def test_any_text_is_a_page_or_a_refusal(token: str) -> None:
    """A page token comes back from outside."""
    for decode in (decode_offset, decode_point):
        with suppress(MlflowError):
            decode(token)


@given(st.integers(1, 2**63 - 1))
def test_a_page_token_is_read_again(offset: int) -> None:
    """What we hand out leads to where it was made for."""
    assert decode_offset(encode_offset(offset)) == offset
