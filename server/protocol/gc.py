"""Messages about removing deleted runs for good (`/api/2.0/mlproxy/gc`)."""

import msgspec

from server.protocol.wire import Request


class CollectRequest(Request):
    """gc, POST: the page after run number `after` of what was deleted at least so long ago."""

    older_than_seconds: int
    run_ids: list[str] | None = None
    experiment_ids: list[str] | None = None
    discard_undelivered: bool = False
    with_models: bool = False
    dry_run: bool = False
    after: int = 0


class KeptMessage(msgspec.Struct):
    """A deleted run or experiment that stays, and why."""

    kind: str
    id: str
    why: str


class CollectAnswer(msgspec.Struct):
    """gc, POST. `kept` counts by reason what stays, `kept_ids` names the first of it."""

    runs: int
    experiments: int
    discarded_entries: int
    kept: dict[str, int]
    kept_ids: list[KeptMessage]
    next_after: int | None = None
