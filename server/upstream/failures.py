"""What can go wrong with a call to the workspace, and what each failure asks of us.

One question decides a verdict: can the write have taken effect? Nothing sent, or a definite "not now",
is RETRY. Sent and no readable answer is UNCERTAIN. A refusal that will be the same tomorrow is PARK. A
refusal of us, not of the write, is WAIT. A call that does no harm when repeated (every read) is RETRY where a
write would be UNCERTAIN.

The workspace's own words are kept for the operator, cut and free of secrets.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from server.domain import redaction
from server.domain.verdicts import Verdict
from server.domain.workspace_limits import LimitRefusal
from server.upstream.limit_refusals import recognise_limit

LONGEST_MESSAGE = 2_000
LONGEST_RETRY_AFTER = timedelta(minutes=5)

ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
DOES_NOT_EXIST = "RESOURCE_DOES_NOT_EXIST"

_REFUSED_FOR_GOOD = ("system managed", "not permitted to update status")
"""What the workspace says, under changing statuses, about a run that its own job service owns."""

_NOT_NOW = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_OUR_STANDING = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}
)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_NEVER_SENDABLE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class UpstreamFailure(Exception):  # noqa: N818 - the project's word: a failure carries a verdict
    """A call that did not end well. `status` is `None` when there was no HTTP answer."""

    def __init__(
        self,
        verdict: Verdict,
        code: str,
        message: str,
        *,
        status: int | None = None,
        retry_after: timedelta | None = None,
        is_unsupported_route: bool = False,
        limit: LimitRefusal | None = None,
    ) -> None:
        self.verdict = verdict
        self.code = code
        self.message = redact(message)
        self.status = status
        self.retry_after = retry_after
        self.is_unsupported_route = is_unsupported_route
        """The workspace has no such call at all (as opposed to no such thing)."""
        self.limit = limit
        """The limit by which the workspace refuses, where its words speak of one."""
        super().__init__(f"{code}: {self.message}")

    @property
    def failure_class(self) -> str:
        """What kind of trouble this is, in a word that an operator can count by."""
        match self.status:
            case None:
                return "connection" if self.verdict in (Verdict.RETRY, Verdict.UNCERTAIN) else "refused_here"
            case HTTPStatus.TOO_MANY_REQUESTS:
                return "throttled"
            case status if status in _OUR_STANDING:
                return "credential"
            case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return "server_error"
            case status if status in _NOT_NOW:
                return "not_now"
            case status if status < HTTPStatus.BAD_REQUEST:
                return "unreadable"
            case _:
                return "refused"

    @property
    def is_missing(self) -> bool:
        """Whether the workspace knows the call and says that the named thing is not there."""
        if self.is_unsupported_route or self.verdict is not Verdict.PARK:
            return False
        return self.code == DOES_NOT_EXIST or self.status == HTTPStatus.NOT_FOUND

    @property
    def is_definite_refusal(self) -> bool:
        """Whether the workspace refused the call for good, so that it took no effect."""
        return self.verdict is Verdict.PARK and self.status is not None


def refused_here(message: str, code: str = "REFUSED_BY_PROXY") -> UpstreamFailure:
    """A call that we do not make, because it could not be made safely. It will never be right."""
    return UpstreamFailure(Verdict.PARK, code, message)


def unreadable_answer(message: str, *, is_repeatable: bool, status: int | None = None) -> UpstreamFailure:
    """A success that we cannot read: a write in it may have taken effect."""
    return UpstreamFailure(_unknown(is_repeatable=is_repeatable), "UNREADABLE_ANSWER", message, status=status)


def classify_transport(error: httpx.HTTPError, *, is_repeatable: bool = False) -> UpstreamFailure:
    """What a call that got no whole answer asks of us."""
    words = f"{type(error).__name__}: {error}".rstrip(": ")
    match error:
        case httpx.PoolTimeout() | httpx.ConnectTimeout():
            return UpstreamFailure(Verdict.RETRY, "CONNECT_TIMEOUT", words)
        case _ if isinstance(error, _NOT_SENT):
            return UpstreamFailure(Verdict.RETRY, "CONNECTION_FAILED", words)
        case _ if isinstance(error, _NEVER_SENDABLE):
            return UpstreamFailure(Verdict.PARK, "NOT_SENDABLE", words)
        case httpx.TimeoutException():
            return UpstreamFailure(_unknown(is_repeatable=is_repeatable), "TIMEOUT", words)
        case _:
            return UpstreamFailure(_unknown(is_repeatable=is_repeatable), "CONNECTION_LOST", words)


def classify_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_ms: int,
    is_repeatable: bool = False,
) -> UpstreamFailure:
    """What an answer that is not a success asks of us. 401 means: also after a renewed token."""
    words = read_error_body(body)
    code = words.code or _code_for(status)
    verdict = verdict_for(status, code, words.message, is_repeatable=is_repeatable)
    return UpstreamFailure(
        verdict,
        code,
        words.message or words.code or f"HTTP {status} without words",
        status=status,
        retry_after=parse_retry_after(headers.get("retry-after"), now_ms=now_ms),
        is_unsupported_route=_is_unsupported_route(status, code, body),
        limit=recognise_limit(words.message) if verdict is Verdict.PARK else None,
    )


def verdict_for(status: int, code: str, message: str, *, is_repeatable: bool = False) -> Verdict:
    """The table. Status alone is not enough: "already exists" comes as 400, 409 and 200."""
    lowered = message.lower()
    if any(words in lowered for words in _REFUSED_FOR_GOOD):
        return Verdict.PARK
    if code == ALREADY_EXISTS or (status in (400, 409) and "already exists" in lowered):
        return Verdict.ALREADY_APPLIED
    if status in _OUR_STANDING:
        return Verdict.WAIT
    if status in _NOT_NOW or HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return Verdict.RETRY
    if status == HTTPStatus.NOT_IMPLEMENTED:
        return Verdict.PARK
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unknown(is_repeatable=is_repeatable)
    return Verdict.PARK


@dataclass(frozen=True, slots=True)
class ErrorWords:
    """What an error body says; both empty when it says nothing."""

    code: str
    message: str


def read_error_body(body: bytes) -> ErrorWords:
    """The code and words of an error body, in MLflow's form or any of the workspace's.

    MLflow: `{"error_code", "message"}`. The workspace: `{"error": {"code", "message", …}}`, in camelCase
    or PascalCase, with or without `error_code` beside it. A body that is not JSON is quoted as it is.
    """
    try:
        parsed = json.loads(body) if body.strip() else None
    except ValueError:
        return ErrorWords("", body[:LONGEST_MESSAGE].decode(errors="replace"))
    if not isinstance(parsed, dict):
        return ErrorWords("", "" if parsed is None else str(parsed)[:LONGEST_MESSAGE])
    outer = _lower_keys(parsed)
    error = outer.get("error")
    inner = _lower_keys(error) if isinstance(error, dict) else {}
    code = outer.get("error_code") or inner.get("code") or outer.get("code") or ""
    message = outer.get("message") or inner.get("message") or (error if isinstance(error, str) else "")
    return ErrorWords(str(code), str(message))


def parse_retry_after(value: str | None, *, now_ms: int) -> timedelta | None:
    """The wait that a `Retry-After` header asks for, in seconds or as a date, at most five minutes."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, now_ms)
    if not 0 <= seconds < float("inf"):
        return None
    return min(timedelta(seconds=min(seconds, 1e6)), LONGEST_RETRY_AFTER)


def redact(text: str) -> str:
    """`text` without signatures, tokens and passwords, cut to a length that can be stored and shown."""
    text = redaction.redact(text[: 4 * LONGEST_MESSAGE])
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


def _unknown(*, is_repeatable: bool) -> Verdict:
    return Verdict.RETRY if is_repeatable else Verdict.UNCERTAIN


def _seconds_until(date: str, now_ms: int) -> float:
    try:
        instant = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return -1.0
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return max((instant - datetime.fromtimestamp(now_ms / 1000, UTC)).total_seconds(), 0.0)


def _is_unsupported_route(status: int, code: str, body: bytes) -> bool:
    if status == HTTPStatus.NOT_FOUND:
        return not body.strip() or code == "ENDPOINT_NOT_FOUND"
    return status in (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)


def _code_for(status: int) -> str:
    try:
        return HTTPStatus(status).name
    except ValueError:
        return f"HTTP_{status}"


def _lower_keys(mapping: dict[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in mapping.items()}
