"""Messages behind the page `/sync`: runs with their delivery, and how the backlog went."""

import msgspec

from server.protocol.wire import Request


class ListDeliveriesRequest(Request, kw_only=True):
    """GET /api/2.0/mlproxy/runs. `state` is `undelivered` or `all`; `filter` matches run id and name."""

    state: str = "undelivered"
    filter: str = ""
    max_results: int = 50
    page_token: str | None = None


class RunDeliveryMessage(msgspec.Struct):
    """One run: what of it has still to arrive."""

    run_id: str
    run_name: str
    experiment_id: str
    experiment_name: str
    status: str
    pending: int
    uncertain: int
    parked: int
    overflow: int
    oldest_pending_seconds: float | None
    blocked_by: str | None
    last_failure: str | None
    studio_url: str | None


class DeliveriesAnswer(msgspec.Struct, omit_defaults=True):
    """A page of runs, the latest first."""

    runs: list[RunDeliveryMessage]
    next_page_token: str | None = None


class SampleMessage(msgspec.Struct):
    """The backlog at one moment. `time` is in milliseconds since the epoch."""

    time: int
    lag_seconds: float
    pending: int
    parked: int


class HistoryAnswer(msgspec.Struct):
    """GET /api/2.0/mlproxy/history: samples since this process started, at most a day of them."""

    samples: list[SampleMessage]
