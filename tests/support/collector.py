"""An OpenTelemetry collector: it takes traces over HTTP, as protobuf, and keeps their spans."""

import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_GZIP_WINDOW = zlib.MAX_WBITS | 16


@dataclass(frozen=True)
class CollectedSpan:
    """One span, its ids in hexadecimal; `links` are the span ids that it points to."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: frozenset[str]
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    is_error: bool


@dataclass
class Collector:
    """A running collector on a free loopback port. `bodies` are the requests as they came."""

    spans: list[CollectedSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    services: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def await_spans(
        self, wanted: Callable[[CollectedSpan], bool], *, within: float = 120.0
    ) -> list[CollectedSpan]:
        """The spans that are wanted, once there is one at least."""
        deadline = time.monotonic() + within
        while not (found := [span for span in list(self.spans) if wanted(span)]):
            assert time.monotonic() < deadline, sorted({span.name for span in self.spans})
            time.sleep(0.1)
        return found

    def take(self, headers: dict[str, str], body: bytes) -> None:
        """Keep what one request brought."""
        self.headers.append(headers)
        if headers.get("content-encoding") == "gzip":
            body = zlib.decompress(body, _GZIP_WINDOW)
        self.bodies.append(body)
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        for group in request.resource_spans:
            self.services.add(_values(group.resource.attributes)["service.name"])
            for scope in group.scope_spans:
                self.spans += [_collected(span) for span in scope.spans]

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _collected(span: Any) -> CollectedSpan:
    return CollectedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=frozenset(link.span_id.hex() for link in span.links),
        attributes=_values(span.attributes),
        events=[{"name": event.name, **_values(event.attributes)} for event in span.events],
        is_error=span.status.code == 2,
    )


def _values(items: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in items}


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            collector.take(headers, body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
