"""Figures for Prometheus."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Telemetry:
    """The process's counters, and how they are shown."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Histogram(
            "mlproxy_request_seconds",
            "Time to answer, by status.",
            ["status"],
            registry=self._registry,
            buckets=_FAST,
        )
        self.groups = Histogram(
            "mlproxy_commit_seconds", "Time to commit one group.", registry=self._registry, buckets=_FAST
        )
        self.group_jobs = Counter("mlproxy_committed_jobs", "Jobs committed.", registry=self._registry)
        self.deliveries = Counter(
            "mlproxy_deliveries",
            "Attempts to deliver, by what they ended in.",
            ["verdict"],
            registry=self._registry,
        )
        self.upstream = Histogram(
            "mlproxy_upstream_seconds",
            "Time of calls to the workspace.",
            ["route", "status"],
            registry=self._registry,
        )
        self._gauges = {
            name: Gauge(f"mlproxy_{name}", help_, registry=self._registry)
            for name, help_ in {
                "pending": "Entries not yet delivered.",
                "uncertain": "Entries sent without a known outcome.",
                "parked": "Entries set aside for an operator.",
                "overflow": "Entries beyond the workspace's limits.",
                "oldest_pending_age_seconds": "Age of the oldest entry not yet delivered.",
                "pending_bytes": "Bytes of entries not yet delivered.",
                "spool_bytes": "Bytes of artifacts not yet delivered.",
                "token_expiry_seconds": "Life left in the Azure token.",
                "token_refresh_failures_total": "Failed renewals of the Azure token.",
            }.items()
        }

    def observe_request(self, status: int | None, seconds: float) -> None:
        """One request was answered."""
        self.requests.labels(str(status or 0)).observe(seconds)

    def observe_group(self, jobs: int, seconds: float) -> None:
        """One group was committed."""
        self.groups.observe(seconds)
        self.group_jobs.inc(jobs)

    def observe_delivery(self, verdict: str, seconds: float) -> None:
        """One attempt to deliver ended."""
        self.deliveries.labels(verdict).inc()

    def observe_upstream(self, method: str, route: str, status: int, seconds: float) -> None:
        """One call to the workspace ended."""
        self.upstream.labels(f"{method} {route}", str(status)).observe(seconds)

    def render(self, gauges: Mapping[str, float | None]) -> bytes:
        """Everything, in Prometheus' text form."""
        for name, value in gauges.items():
            if value is not None:
                self._gauges[name].set(value)
        return generate_latest(self._registry)
