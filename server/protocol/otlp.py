"""OTLP over HTTP: an export request, in protobuf or JSON, compressed or not, to spans.

The protobuf packages are imported with the first request: a server that gets none does not hold them.
"""

import base64
import importlib
import json
import zlib
from typing import Any

from server.domain.errors import ErrorCode, MlflowError
from server.protocol.bulk import check_json, check_protobuf
from server.protocol.span_conventions import with_mlflow_attributes
from server.protocol.spans import TRACE_ID_ATTRIBUTE, TRACE_ID_PREFIX, Event, Link, Span, SpanStatus, dumped

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
LARGEST_BODY_BYTES = 64 * 1024 * 1024
_LONGEST_TRACE_ID = 16
_LONGEST_SPAN_ID = 8
_LARGEST_TIME = 2**63 - 1
_HEX_FIELDS = ("traceId", "spanId", "parentSpanId")
_STATUSES = {1: SpanStatus.OK, 2: SpanStatus.ERROR}
# The programs whose name is taken over from their resource to the root span.
_KNOWN_SERVICES = frozenset({"claude-code", "codex_cli_rs", "codex_vscode", "gemini-cli", "qwen-code"})
_ZLIB_METHOD = 8
_STREAM_HEADER_BYTES = 2
# Each starts anew, and costs more than the bytes of an empty one.
_MOST_GZIP_MEMBERS = 1000
_GZIP_WINDOW = zlib.MAX_WBITS | 16


class OtlpError(Exception):
    """A request that cannot be taken; OTLP clients get a status and a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


# --- bodies ---------------------------------------------------------------------------------


class BodyDecoder:
    """Takes a body a piece at a time and undoes its compression, counting what comes out.

    Raises:
        OtlpError: the compression is not known, or not what the bytes are.
        MlflowError: more comes out than `limit`.
    """

    def __init__(self, encoding: str, *, limit: int = LARGEST_BODY_BYTES) -> None:
        if encoding not in ("", "identity", "gzip", "deflate"):
            raise OtlpError(400, f"Unsupported Content-Encoding: {encoding}")
        self._encoding = "" if encoding == "identity" else encoding
        self._left = limit
        self._parts: list[bytes] = []
        self._inflater: Any = None
        self._members = 0
        self._start = b""

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        if not self._encoding:
            self._keep(piece)
            return
        if self._inflater is None:
            # What kind of stream it is shows in its first two bytes, which may come one by one.
            piece = self._start = self._start + piece
            if len(piece) < _STREAM_HEADER_BYTES:
                return
        while piece:
            if self._inflater is None or (self._inflater.eof and self._encoding == "gzip"):
                self._members += 1
                if self._members > _MOST_GZIP_MEMBERS:
                    raise self._garbled()
                self._inflater = zlib.decompressobj(self._window(piece))
            if self._inflater.eof:
                return
            try:
                self._keep(self._inflater.decompress(piece, self._left + 1))
            except zlib.error as error:
                raise self._garbled() from error
            # The end of one member may be followed by another.
            piece = self._inflater.unused_data

    def finish(self) -> bytes:
        """The whole body."""
        if self._encoding and (self._inflater is None or not self._inflater.eof):
            raise self._garbled()
        return b"".join(self._parts)

    def _keep(self, part: bytes) -> None:
        self._left -= len(part)
        if self._left < 0:
            raise MlflowError(ErrorCode.INVALID_PARAMETER_VALUE, "The request body is too large.", status=413)
        self._parts.append(part)

    def _window(self, start: bytes) -> int:
        if self._encoding == "gzip":
            return _GZIP_WINDOW
        # Some senders leave the zlib header out.
        has_header = start[0] & 0x0F == _ZLIB_METHOD and int.from_bytes(start[:2], "big") % 31 == 0
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS

    def _garbled(self) -> OtlpError:
        return OtlpError(400, f"Failed to decompress {self._encoding} payload")


def media_type_of(content_type: str | None) -> str:
    """The kind of body.

    Raises:
        OtlpError: it is none that is understood.
    """
    kind = (content_type or "").partition(";")[0].strip()
    if kind not in (PROTOBUF, JSON):
        raise OtlpError(
            400, f"Invalid Content-Type: {content_type}. Expected: application/x-protobuf or application/json"
        )
    return kind


# --- spans ----------------------------------------------------------------------------------


def decode_spans(body: bytes, media_type: str) -> list[Span]:
    """The spans of an export request. Takes a while: call it outside of the event loop.

    Raises:
        OtlpError: the body is not an export request, or a span in it is none.
        MlflowError: it holds too many things.
    """
    request = _parsed(body, media_type)
    if not request.resource_spans:
        raise OtlpError(400, "Invalid OpenTelemetry format - no spans found")
    spans: list[Span] = []
    for group in request.resource_spans:
        resource = _decoded_values(group.resource.attributes)
        for scope in group.scope_spans:
            for message in scope.spans:
                try:
                    spans.append(_span(message, resource))
                except (ValueError, OverflowError, RecursionError) as error:
                    raise OtlpError(422, "Cannot convert OpenTelemetry span to MLflow span") from error
    return spans


def _parsed(body: bytes, media_type: str) -> Any:
    service = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    json_format = importlib.import_module("google.protobuf.json_format")
    message = importlib.import_module("google.protobuf.message")
    request = service.ExportTraceServiceRequest()
    try:
        if media_type == JSON:
            check_json(body)
            json_format.ParseDict(_with_base64_ids(json.loads(body)), request, ignore_unknown_fields=True)
        else:
            check_protobuf(body, request.DESCRIPTOR)
            request.ParseFromString(body)
    except (
        message.DecodeError,
        json_format.Error,
        ValueError,
        AttributeError,
        TypeError,
        RecursionError,
    ) as error:
        raise OtlpError(400, "Invalid OpenTelemetry format") from error
    return request


def _with_base64_ids(request: Any) -> Any:
    """OTLP writes ids in hexadecimal where protobuf's JSON expects base64."""
    for group in request.get("resourceSpans", []):
        for scope in group.get("scopeSpans", []):
            for span in scope.get("spans", []):
                for holder in (span, *span.get("links", [])):
                    for name in _HEX_FIELDS:
                        if text := holder.get(name):
                            holder[name] = base64.b64encode(bytes.fromhex(text)).decode()
    return request


def _span(message: Any, resource: dict[str, Any]) -> Span:
    trace_id = TRACE_ID_PREFIX + _hex_id(message.trace_id, _LONGEST_TRACE_ID)
    parent_id = _hex_id(message.parent_span_id, _LONGEST_SPAN_ID) if message.parent_span_id else None
    attributes = {item.key: dumped(_decoded(item.value)) for item in message.attributes}
    attributes[TRACE_ID_ATTRIBUTE] = dumped(trace_id)
    service = resource.get("service.name")
    if parent_id is None and isinstance(service, str) and service in _KNOWN_SERVICES:
        attributes["service.name"] = dumped(service)
    return Span(
        trace_id=trace_id,
        span_id=_hex_id(message.span_id, _LONGEST_SPAN_ID),
        parent_id=parent_id,
        name=message.name,
        start_ns=_time(message.start_time_unix_nano),
        end_ns=_time(message.end_time_unix_nano) or None,
        status=_STATUSES.get(message.status.code, SpanStatus.UNSET),
        status_message=message.status.message,
        attributes=with_mlflow_attributes(attributes),
        events=[
            Event(event.name, _time(event.time_unix_nano), _decoded_values(event.attributes))
            for event in message.events
        ],
        links=[_link(link) for link in message.links],
        resource=resource,
    )


def _link(message: Any) -> Link:
    return Link(
        TRACE_ID_PREFIX + _hex_id(message.trace_id, _LONGEST_TRACE_ID),
        _hex_id(message.span_id, _LONGEST_SPAN_ID),
        _decoded_values(message.attributes) or None,
    )


def _hex_id(raw: bytes, length: int) -> str:
    if not 0 < len(raw) <= length:
        raise ValueError("an id is missing or too long")
    return raw.hex().rjust(2 * length, "0")


def _time(nanoseconds: int) -> int:
    if nanoseconds > _LARGEST_TIME:
        raise ValueError("a time lies too far in the future")
    return nanoseconds


def _decoded_values(items: Any) -> dict[str, Any]:
    return {item.key: _decoded(item.value) for item in items}


def _decoded(value: Any) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_decoded(item) for item in value.array_value.values]
        case "kvlist_value":
            return _decoded_values(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value":
            return _finite(value.double_value)
        case name:
            return getattr(value, name)


def _finite(number: float) -> float | str:
    """JSON has no word for NaN and the infinities: they become the text that protobuf writes."""
    if number != number:
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "Infinity" if number > 0 else "-Infinity"
    return number
