"""Messages about parked entries (`/api/2.0/mlproxy/parked*`)."""

from typing import Any

import msgspec

from server.protocol.wire import Request


class ListParkedRequest(Request):
    """parked, GET: a page of what waits for a decision."""

    run_id: str | None = None
    reason: str | None = None
    max_results: int | None = None
    page_token: str | None = None


class ParkedMessage(msgspec.Struct):
    """An entry that was set aside. `what` is its operation in a few words, `subject` what it is about."""

    parked_id: int
    run_id: str | None
    subject: str
    kind: str
    what: str
    reason: str
    message: str
    parked_at: int
    decision: str | None


class ParkedAnswer(msgspec.Struct):
    """parked, GET. `total` counts the entries on all pages."""

    parked: list[ParkedMessage]
    total: int
    next_page_token: str | None = None


class ParkedDetailAnswer(msgspec.Struct):
    """parked/{id}, GET: everything that is known of one entry, the operation in readable form."""

    parked_id: int
    run_id: str | None
    subject: str
    kind: str
    payload: dict[str, Any]
    reason: str
    message: str
    principal: str | None
    accepted_at: int
    parked_at: int
    decision: str | None
    decided_by: str | None
    decided_at: int | None
    decision_reason: str | None


class DecideRequest(Request):
    """parked/retry and parked/drop, POST: which entries. Exactly one of the first three is given."""

    ids: list[int] = []
    run_id: str | None = None
    all: bool = False
    reason: str | None = None


class KeptMessage(msgspec.Struct):
    """An entry that was not retried, and why."""

    parked_id: int
    why: str


class RetryAnswer(msgspec.Struct):
    """parked/retry, POST.

    `superseded` are decided: what came later has taken their place. `kept` are still parked. `followers` are
    parked entries that waited for a create among those retried; `suggestion` is the command for them.
    """

    retried: int
    superseded: list[KeptMessage]
    kept: list[KeptMessage]
    followers: list[int]
    suggestion: str | None


class DropAnswer(msgspec.Struct):
    """parked/drop, POST."""

    dropped: int
    freed_bytes: int
