"""Messages of the proxy's own routes (`/api/2.0/mlproxy/*`)."""

import msgspec

from server.protocol.wire import Request


class WorkspaceStatus(msgspec.Struct):
    """Where deliveries go."""

    configured: bool
    reachable: bool | None
    address: str | None = None
    last_failure: str | None = None
    last_success: int | None = None


class PaceStatus(msgspec.Struct):
    """How often the workspace may be called now. After a 429 it is less than the most, for about a minute.

    `waits_seconds`: until the next call may go, after a failure or for as long as a `Retry-After` asked.
    """

    calls_per_second: float
    most_calls_per_second: float
    is_throttled: bool
    waits_seconds: float


class DiskStatus(msgspec.Struct):
    """The data folder's disk, and what the store holds. `days_until_full` is missing until growth is known.

    Full is the disk when only `least_free_bytes` (MLPROXY_MIN_FREE_BYTES) are free.
    """

    free_bytes: int
    total_bytes: int
    least_free_bytes: int
    has_headroom: bool
    store_bytes: int
    database_bytes: int
    spool_bytes: int
    growth_bytes_per_day: float | None
    days_until_full: float | None


class TokenStatus(msgspec.Struct):
    """The Azure token held now. Never the token itself."""

    expires_in_seconds: float | None
    failures: int
    last_error: str | None


class StatusAnswer(msgspec.Struct):
    """status. Fullness is `has_room`, `soft_full` (writes get 429) or `hard_full` (507).

    A restore begins a new `generation` of the journal; `being_read_back` counts the entries from before it.
    """

    pending: int
    uncertain: int
    parked: int
    overflow: int
    dropped: int
    lag_seconds: float
    pending_bytes: int
    pending_limit_bytes: int
    pending_fullness: str
    spool_bytes: int
    spool_limit_bytes: int
    spool_fullness: str
    pending_by_kind: dict[str, int]
    parked_by_reason: dict[str, int]
    workspace: WorkspaceStatus
    token: TokenStatus | None
    pace: PaceStatus | None
    disk: DiskStatus
    version: str
    generation: int
    being_read_back: int


class MeAnswer(msgspec.Struct):
    """me, GET: who asks. `can_log_out` where a login of a browser says so, not a key in the request."""

    name: str | None
    role: str
    can_log_out: bool


class RunStatusAnswer(msgspec.Struct):
    """runs/{run_id}."""

    run_id: str
    upstream_run_id: str | None
    pending: int
    uncertain: int
    parked: int
    overflow: int
    dropped: int
    blocked_by: str | None
    studio_url: str | None


class VersionStatusMessage(msgspec.Struct):
    """A model version here and there; no number there yet while its delivery is pending."""

    version: str
    upstream_version: str | None


class ModelStatusAnswer(msgspec.Struct):
    """models/{name}."""

    name: str
    upstream_name: str
    pending: int
    uncertain: int
    parked: int
    overflow: int
    dropped: int
    versions: list[VersionStatusMessage]


class CreateKeyRequest(Request):
    """keys, POST."""

    name: str
    role: str = "write"
    expires_in_days: int | None = None
    experiments: list[str] = []


class RevokeKeyRequest(Request):
    """keys/revoke, POST."""

    name: str


class CreateKeyAnswer(msgspec.Struct):
    """A new key, shown once."""

    name: str
    role: str
    key: str


class KeyMessage(msgspec.Struct):
    """A key without its secret."""

    name: str
    prefix: str
    role: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used: int | None
    experiments: list[str] | None


class KeysAnswer(msgspec.Struct):
    """keys, GET."""

    keys: list[KeyMessage]


class DrainAnswer(msgspec.Struct):
    """drain, POST: what was left."""

    pending: int
    uncertain: int
    parked: int


class DrainRequest(Request):
    """drain."""

    timeout_seconds: float = 60.0


class VerifyDifference(msgspec.Struct):
    """One thing that is not the same here and in the workspace."""

    what: str
    here: str
    there: str


class VerifyAnswer(msgspec.Struct):
    """verify/{run_id}, GET."""

    run_id: str
    upstream_run_id: str | None
    equal: bool
    points: int
    params: int
    tags: int
    artifacts: int
    overflow: int
    differences: list[VerifyDifference]
