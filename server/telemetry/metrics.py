"""Figures for Prometheus."""

from collections.abc import Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.domain.verdicts import Verdict

_BACKPRESSURE = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INSUFFICIENT_STORAGE)
_AGAIN = (Verdict.RETRY, Verdict.WAIT, Verdict.UNCERTAIN)
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Figures that are looked up when somebody asks for them.
_LABELLED = {
    "pending": ("Entries not yet delivered, by the kind of lane.", ("workspace", "kind")),
    "parked": ("Entries set aside for an operator.", ("reason",)),
    "last_success_timestamp_seconds": (
        "When an exchange with the workspace last went well.",
        ("workspace",),
    ),
}
_GAUGES = {
    "uncertain": "Entries sent without a known outcome.",
    "overflow": "Entries beyond the workspace's limits.",
    "dropped": "Parked entries that an operator has decided never to deliver.",
    "oldest_pending_age_seconds": "Age of the oldest entry not yet delivered.",
    "pending_bytes": "Bytes of entries not yet delivered.",
    "pending_limit_bytes": "Most bytes of entries not yet delivered; 429 from 85 % on.",
    "spool_bytes": "Bytes of artifacts not yet delivered.",
    "spool_limit_bytes": "Most bytes of artifacts not yet delivered.",
    "wal_bytes": "Size of SQLite's write-ahead log.",
    "store_bytes": "Size of the database and of the spool.",
    "disk_free_bytes": "Free bytes of the data folder's disk.",
    "disk_total_bytes": "Size of the data folder's disk.",
    "disk_headroom_bytes": "Bytes that must stay free; below, /health/ready says no.",
    "disk_days_until_full": "Days until the headroom begins, at the growth of late; +Inf: never.",
    "workspace_reachable": "1 if the last exchange with the workspace went well, else 0.",
    "token_expiry_seconds": "Life left in the Azure token.",
    "token_refresh_failures_total": "Failed renewals of the Azure token.",
}


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
        self._by_status: dict[int | None, Histogram] = {}
        self.groups = Histogram(
            "mlproxy_commit_seconds", "Time to commit one group.", registry=self._registry, buckets=_FAST
        )
        self.group_jobs = Counter("mlproxy_committed_jobs", "Jobs committed.", registry=self._registry)
        self.replayed = Counter(
            "mlproxy_replayed",
            "Attempts to deliver, by what they ended in.",
            ["outcome"],
            registry=self._registry,
        )
        self.retries = Counter(
            "mlproxy_retries",
            "Attempts to deliver that must be made again, by the trouble they met.",
            ["class"],
            registry=self._registry,
        )
        self.leases_lost = Counter(
            "mlproxy_lease_lost",
            "Lanes given up in the middle of their delivery, their lease having passed to another replica.",
            registry=self._registry,
        )
        self.resends = Counter(
            "mlproxy_resends",
            "Creates that were asked for again and answered with what the first one made.",
            ["kind"],
            registry=self._registry,
        )
        self.upstream = Histogram(
            "mlproxy_upstream_latency_seconds",
            "Time of calls to the workspace.",
            ["route", "status"],
            registry=self._registry,
        )
        self.throttled = Counter(
            "mlproxy_upstream_429", "Calls that the workspace throttled.", registry=self._registry
        )
        self.pace = Gauge(
            "mlproxy_upstream_calls_per_second_allowed",
            "Calls to the workspace that the rate limit lets through; a 429 halves it.",
            registry=self._registry,
        )
        self.backpressure = Counter(
            "mlproxy_backpressure",
            "Requests that were asked to come again (429) or refused for lack of room (507).",
            ["code"],
            registry=self._registry,
        )
        self._labelled = {
            name: Gauge(f"mlproxy_{name}", help_, labels, registry=self._registry)
            for name, (help_, labels) in _LABELLED.items()
        }
        self._gauges = {
            name: Gauge(f"mlproxy_{name}", help_, registry=self._registry) for name, help_ in _GAUGES.items()
        }

    def observe_request(self, status: int | None, seconds: float) -> None:
        """One request was answered."""
        # Finding the figure by its label costs more than adding to it.
        answered = self._by_status.get(status)
        if answered is None:
            answered = self._by_status[status] = self.requests.labels(str(status or 0))
        answered.observe(seconds)
        if status in _BACKPRESSURE:
            self.backpressure.labels(str(status)).inc()

    def observe_group(self, jobs: int, seconds: float) -> None:
        """One group was committed."""
        self.groups.observe(seconds)
        self.group_jobs.inc(jobs)

    def observe_attempt(self, outcome: str, failure_class: str | None = None) -> None:
        """One attempt to deliver ended."""
        self.replayed.labels(outcome).inc()
        if outcome in _AGAIN:
            self.retries.labels(failure_class).inc()

    def observe_lease_lost(self) -> None:
        """A lane was given up in the middle of its delivery."""
        self.leases_lost.inc()

    def observe_resend(self, kind: str) -> None:
        """One create was answered with what an earlier one had made."""
        self.resends.labels(kind).inc()

    def observe_upstream(self, method: str, route: str, status: int, seconds: float) -> None:
        """One call to the workspace ended."""
        self.upstream.labels(f"{method} {route}", str(status)).observe(seconds)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self.throttled.inc()

    def observe_pace(self, rate: float) -> None:
        """So many calls a second may go to the workspace."""
        self.pace.set(rate)

    def render(
        self,
        gauges: Mapping[str, float | None],
        labelled: Mapping[str, Mapping[tuple[str, ...], float]],
    ) -> bytes:
        """Everything, in Prometheus' text form. `labelled` has a value for each combination of labels."""
        for name, values in labelled.items():
            self._labelled[name].clear()
            for labels, figure in values.items():
                self._labelled[name].labels(*labels).set(figure)
        for name, value in gauges.items():
            if value is not None:
                self._gauges[name].set(value)
        return generate_latest(self._registry)
