"""The table from failures to verdicts."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from server.domain.verdicts import Verdict
from server.upstream.failures import (
    LONGEST_MESSAGE,
    UpstreamFailure,
    classify_response,
    classify_transport,
    parse_retry_after,
    redact,
)

NOW_MS = 1_700_000_000_000
MLFLOW = {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "Experiment(name=x) already exists."}
PASCAL = {
    "Error": {"Code": "ValidationError", "Message": "A field of the entity is over the size limit."},
    "Correlation": {"operation": "x"},
    "ComponentName": "mlflow",
    "statusCode": 400,
    "error_code": "INVALID_PARAMETER_VALUE",
}
CAMEL = {"error": {"code": "UserError", "message": "Bearer token not provided."}, "componentName": "mlflow"}
SYSTEM_MANAGED = {
    "error": {
        "code": "UserError",
        "message": "client is not permitted to update status for run. Status for this run is system managed",
    }
}


def classify(
    status: int, body: object = None, *, is_repeatable: bool = False, **headers: str
) -> UpstreamFailure:
    """The failure that an answer becomes."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify_response(status, headers, content, now_ms=NOW_MS, is_repeatable=is_repeatable)


@pytest.mark.parametrize(
    ("status", "body", "verdict", "code"),
    [
        (400, MLFLOW, Verdict.ALREADY_APPLIED, "RESOURCE_ALREADY_EXISTS"),
        (
            400,
            {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "name taken"},
            Verdict.ALREADY_APPLIED,
            "RESOURCE_ALREADY_EXISTS",
        ),
        (
            409,
            {"error": {"code": "UserError", "message": "x already exists."}},
            Verdict.ALREADY_APPLIED,
            "UserError",
        ),
        (400, PASCAL, Verdict.PARK, "INVALID_PARAMETER_VALUE"),
        (401, CAMEL, Verdict.WAIT, "UserError"),
        (403, None, Verdict.WAIT, "FORBIDDEN"),
        (403, SYSTEM_MANAGED, Verdict.PARK, "UserError"),
        (400, SYSTEM_MANAGED, Verdict.PARK, "UserError"),
        (500, SYSTEM_MANAGED, Verdict.PARK, "UserError"),
        (
            404,
            {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"},
            Verdict.PARK,
            "RESOURCE_DOES_NOT_EXIST",
        ),
        (404, None, Verdict.PARK, "NOT_FOUND"),
        (405, None, Verdict.PARK, "METHOD_NOT_ALLOWED"),
        (407, None, Verdict.WAIT, "PROXY_AUTHENTICATION_REQUIRED"),
        (408, None, Verdict.RETRY, "REQUEST_TIMEOUT"),
        (409, {"error": {"code": "Conflict", "message": "no"}}, Verdict.PARK, "Conflict"),
        (413, b"<html>too large</html>", Verdict.PARK, "REQUEST_ENTITY_TOO_LARGE"),
        (429, {"error": {"code": "TooManyRequests", "message": "slow"}}, Verdict.RETRY, "TooManyRequests"),
        (302, None, Verdict.RETRY, "FOUND"),
        (500, None, Verdict.UNCERTAIN, "INTERNAL_SERVER_ERROR"),
        (501, None, Verdict.PARK, "NOT_IMPLEMENTED"),
        (502, b"<html>", Verdict.UNCERTAIN, "BAD_GATEWAY"),
        (
            503,
            {"Error": {"Code": "ServiceUnavailable", "Message": "x"}},
            Verdict.UNCERTAIN,
            "ServiceUnavailable",
        ),
        (599, None, Verdict.UNCERTAIN, "HTTP_599"),
    ],
)
def test_an_answer_has_its_verdict_and_code(status: int, body: object, verdict: Verdict, code: str) -> None:
    """Status, code and words of an answer decide together what it asks of us."""
    failure = classify(status, body)
    assert (failure.verdict, failure.code, failure.status) == (verdict, code, status)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_read_that_broke_upstream_is_only_repeated(status: int) -> None:
    """A read cannot have changed anything, so there is nothing to read back."""
    assert classify(status, is_repeatable=True).verdict is Verdict.RETRY


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (MLFLOW, "Experiment(name=x) already exists."),
        (PASCAL, "A field of the entity is over the size limit."),
        (CAMEL, "Bearer token not provided."),
        ({"error": "a plain text"}, "a plain text"),
        (b"<html>oh no</html>", "<html>oh no</html>"),
        ([1], "[1]"),
        (None, "HTTP 400 without words"),
    ],
)
def test_the_workspace_is_quoted_in_its_own_words(body: object, message: str) -> None:
    """The message is what the body says, whatever its form."""
    assert classify(400, body).message == message


@pytest.mark.parametrize(
    ("status", "body", "unsupported"),
    [
        (404, None, True),
        (404, b"  ", True),
        (404, {"error_code": "ENDPOINT_NOT_FOUND", "message": "?"}, True),
        (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "?"}, False),
        (405, None, True),
        (400, None, False),
    ],
)
def test_a_route_that_is_not_there_differs_from_a_thing_that_is_not_there(
    status: int, body: object, unsupported: bool
) -> None:
    """An empty 404 means that the workspace has no such call; one with words means no such thing."""
    failure = classify(status, body)
    assert failure.is_unsupported_route is unsupported
    assert failure.is_missing is (status == 404 and not unsupported)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (httpx.ConnectError("refused"), Verdict.RETRY),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), Verdict.RETRY),
        (httpx.ConnectTimeout(""), Verdict.RETRY),
        (httpx.PoolTimeout(""), Verdict.RETRY),
        (httpx.ProxyError("407"), Verdict.RETRY),
        (httpx.ReadTimeout(""), Verdict.UNCERTAIN),
        (httpx.WriteTimeout(""), Verdict.UNCERTAIN),
        (httpx.ReadError("reset"), Verdict.UNCERTAIN),
        (httpx.WriteError("reset"), Verdict.UNCERTAIN),
        (httpx.RemoteProtocolError("cut"), Verdict.UNCERTAIN),
        (httpx.DecodingError("gzip"), Verdict.UNCERTAIN),
        (httpx.LocalProtocolError("header"), Verdict.PARK),
    ],
)
def test_a_broken_call_is_uncertain_only_when_it_may_have_been_sent(
    error: httpx.HTTPError, verdict: Verdict
) -> None:
    """What failed before anything was sent is simply sent again."""
    assert classify_transport(error).verdict is verdict
    as_read = classify_transport(error, is_repeatable=True).verdict
    assert as_read is (Verdict.RETRY if verdict is Verdict.UNCERTAIN else verdict)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (None, None),
        ("7", timedelta(seconds=7)),
        ("0", timedelta(0)),
        ("1.5", timedelta(seconds=1.5)),
        ("86400", timedelta(minutes=5)),
        ("1e400", None),
        ("-3", None),
        ("nan", None),
        ("soon", None),
        (
            format_datetime(datetime.fromtimestamp(NOW_MS / 1000 + 30, UTC), usegmt=True),
            timedelta(seconds=30),
        ),
        (format_datetime(datetime.fromtimestamp(NOW_MS / 1000 - 30, UTC), usegmt=True), timedelta(0)),
        ("Wed, 21 Oct 2065 07:28:00 GMT", timedelta(minutes=5)),
    ],
)
def test_retry_after_is_read_and_capped(value: str | None, wait: timedelta | None) -> None:
    """Seconds or a date, never more than five minutes, and nonsense is no wait."""
    assert parse_retry_after(value, now_ms=NOW_MS) == wait


def test_a_throttled_call_carries_the_wait_that_was_asked_for() -> None:
    """The `Retry-After` of a 429 is on the failure."""
    assert classify(429, None, **{"retry-after": "11"}).retry_after == timedelta(seconds=11)


@pytest.mark.parametrize(
    "text",
    [
        "GET https://acct.blob.core.windows.net/c/b?sv=2020&sig=CANARY%2Bab%3D&se=1",
        "sig=CANARY",
        "Authorization: Bearer CANARY",
        "Authorization: Basic CANARY",
        '{"authorization": "Bearer CANARY"}',
        "token was bearer CANARY.x.y",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=CANARY==;EndpointSuffix=x",
        "client_secret=CANARY&grant_type=x",
        '{"access_token": "CANARY", "expires_in": 1}',
        "jwt eyJhbGciCANARY.eyJzdWIiCANARY.CANARY end",
        "X-IDENTITY-HEADER: CANARY",
    ],
)
def test_secrets_do_not_survive_in_messages(text: str) -> None:
    """Whatever an error quotes, signatures, tokens and keys are struck out."""
    assert "CANARY" not in redact(text)
    assert "CANARY" not in str(classify(400, {"error_code": "X", "message": text}))
    assert "CANARY" not in str(classify(502, text.encode()))
    assert "CANARY" not in str(classify_transport(httpx.ConnectError(text)))


def test_a_long_message_is_cut() -> None:
    """What is stored and shown has a bound."""
    assert len(classify(400, {"message": "x" * 100_000}).message) == LONGEST_MESSAGE
