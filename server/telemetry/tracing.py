"""Whether this process is traced, by OpenTelemetry's own variables.

Nothing of OpenTelemetry is imported, and nothing is done, unless an endpoint is named:
`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, in the way that
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ tells. The other standard variables (headers,
sampler, service name, resource attributes, timeouts) are read by the SDK.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

if TYPE_CHECKING:
    from server.telemetry.spans import Tracing

log = structlog.get_logger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"


@dataclass(frozen=True, slots=True)
class Committed:
    """One job of a committed group: the request it came from (None: from none), and where its entries are.

    A write to a run tells the run's id, any other job the lanes that it added to.
    """

    request: Any
    run_id: str | None
    lanes: frozenset[int]


class CommitTrace(Protocol):
    """Hears of commits. Told in the writer's thread, but for `here`."""

    def here(self) -> Any:
        """What the running task's request is known by; None outside of a traced one."""
        ...

    def committed(self, jobs: list[Committed], *, accepted_at_ms: int, seconds: float) -> None:
        """These jobs were committed together, in so many seconds that end now."""
        ...


def open_tracing(environment: Mapping[str, str], *, version: str) -> "Tracing | None":
    """What spans are made with, where an endpoint is named; None otherwise.

    A process that cannot trace serves all the same: the log says what is missing.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "otlp":
        return None
    if not any(environment.get(name) for name in _ENDPOINTS):
        return None
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _SPOKEN)
    if protocol != _SPOKEN:
        log.warning("tracing_not_possible", why=f"only {_SPOKEN} is spoken, not {protocol}")
        return None
    try:
        from server.telemetry.spans import Tracing
    except ImportError as error:
        log.warning(
            "tracing_not_possible", why=f"{error.name} is missing: install mlflow-azureml-proxy[otel]"
        )
        return None
    return Tracing.exporting(version=version)
