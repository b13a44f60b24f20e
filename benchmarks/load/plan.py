"""What a load is, and what came of it: the two documents between the driver and the generator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Workload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """One load. `workload` names its kind and that kind's options (`workloads.KINDS`).

    It lasts `seconds` after the warm-up and at least until `least_operations` are done; or, without a
    warm-up, until exactly `operations` were begun. `per_second` paces the operations of all
    connections together; without it each connection begins the next operation when the last one is
    answered.
    """

    base_url: str
    workload: Workload
    connections: int = 8
    seconds: float = 0.0
    warm_up_seconds: float = 0.5
    least_operations: int = 1
    operations: int = 0
    per_second: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of a load. Times are of whole operations; those begun in the warm-up are not counted.

    `errors` counts answers of status 400 and above and connections that broke; an operation that
    met one is no operation.
    """

    operations: int
    requests: int
    errors: int
    first_error: str | None
    seconds: float
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    bytes_received: int
    client_cpu_seconds: float
