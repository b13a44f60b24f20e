"""Spans, made with OpenTelemetry's SDK. Imported only by a process that is traced (`telemetry.tracing`).

Three kinds: a request, the commit of a group of them, and a batch's delivery. Each is short and complete in
itself; what led to what is told by links, since one group commits many requests and one batch delivers what
many wrote. Which request wrote what is remembered in memory, for the latest only: after a restart, or an
outage longer than that, a delivery has fewer links.

Spans hold names, ids, counts and states. Neither headers, bodies, query strings nor values that clients
logged ever get into one.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.telemetry.tracing import Committed

_NAME = "mlproxy"
_MOMENTS_KEPT = 20_000
_MOST_LINKS = 100
_NS = 1_000_000_000


class Tracing:
    """Makes spans and gives them to an exporter, in batches, from a thread of the SDK's own."""

    def __init__(self, exporter: SpanExporter, *, version: str) -> None:
        # What the environment names wins over our own name.
        resource = Resource({SERVICE_NAME: _NAME, SERVICE_VERSION: version}).merge(
            OTELResourceDetector().detect()
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(_NAME, version)
        self._propagator = TraceContextTextMapPropagator()
        self._writes = _RecentWrites()

    @classmethod
    def exporting(cls, *, version: str) -> "Tracing":
        """To where OpenTelemetry's variables say."""
        # A collector that is away is its operator's business; without this, each batch logs a traceback.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        return cls(OTLPSpanExporter(), version=version)

    def close(self) -> None:
        """Export what is left; takes up to the exporter's own time limit."""
        self._provider.shutdown()

    # --- requests ---

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """A span for one request, below the caller's own where it sent a W3C `traceparent`."""
        parent = self._propagator.extract(headers, context=Context())
        with self._tracer.start_as_current_span(
            method,
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method},
            record_exception=False,
        ) as span:
            yield span

    def here(self) -> SpanContext | None:
        """The running request's span; None outside of one, or where it is not sampled."""
        span = trace.get_current_span()
        return span.get_span_context() if span.is_recording() else None

    # --- commits ---

    def committed(self, jobs: list[Committed], *, accepted_at_ms: int, seconds: float) -> None:
        """A span for the group, with a link to each request in it."""
        requests = [job.request for job in jobs if job.request is not None]
        if not requests:
            return
        self._writes.note(jobs, accepted_at_ms)
        ended = time.time_ns()
        span = self._tracer.start_span(
            "commit group",
            context=Context(),
            kind=SpanKind.INTERNAL,
            links=_links(requests),
            start_time=ended - int(seconds * _NS),
            attributes={"mlproxy.jobs": len(jobs), "mlproxy.accepted_at_ms": accepted_at_ms},
        )
        span.end(ended)

    # --- deliveries ---

    @contextmanager
    def delivery(
        self,
        name: str,
        *,
        lane_id: int,
        run_id: str | None,
        accepted_at_ms: Iterable[int],
        attributes: Mapping[str, str | int],
    ) -> Iterator[Span]:
        """A span for one call that carries a batch, with links to the requests that wrote what is in it."""
        requests = self._writes.find(lane_id, run_id, accepted_at_ms)
        with self._tracer.start_as_current_span(
            name,
            context=Context(),
            kind=SpanKind.CLIENT,
            links=_links(requests),
            attributes={
                "mlproxy.lane_id": lane_id,
                **({"mlproxy.run_id": run_id} if run_id else {}),
                **attributes,
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                # Its message may quote what a client logged: the log has it, redacted.
                span.set_status(StatusCode.ERROR, type(error).__name__)
                raise

    def headers(self) -> dict[str, str]:
        """What tells the workspace which span its call belongs to; nothing outside of one."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def note_call(self, method: str, path: str, request_id: str) -> None:
        """The running span called the workspace, under this `x-ms-client-request-id`."""
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(
                "workspace called",
                {"http.request.method": method, "url.path": path, "x-ms-client-request-id": request_id},
            )


class _RecentWrites:
    """Which requests wrote the entries of a lane that were accepted at a moment; of the latest moments."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_moment: OrderedDict[int, list[Committed]] = OrderedDict()

    def note(self, jobs: Iterable[Committed], accepted_at_ms: int) -> None:
        traced = [job for job in jobs if job.request is not None]
        with self._lock:
            self._by_moment.setdefault(accepted_at_ms, []).extend(traced)
            while len(self._by_moment) > _MOMENTS_KEPT:
                self._by_moment.popitem(last=False)

    def find(self, lane_id: int, run_id: str | None, accepted_at_ms: Iterable[int]) -> list[SpanContext]:
        found: dict[tuple[int, int], SpanContext] = {}
        with self._lock:
            for moment in dict.fromkeys(accepted_at_ms):
                for job in self._by_moment.get(moment, ()):
                    if lane_id in job.lanes or (run_id is not None and job.run_id == run_id):
                        found[job.request.trace_id, job.request.span_id] = job.request
        return list(found.values())


def _links(requests: list[SpanContext]) -> list[Link]:
    return [Link(request) for request in requests[:_MOST_LINKS]]
