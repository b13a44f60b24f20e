"""Secrets never reach a log line."""

import json
import logging

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from server.domain.redaction import hide_values, redact
from server.telemetry.logs import configure_logs

_PASSWORD = "hunter2correcthorse"
_SECRET = "s3cr3t-Va.lue~x%2B/="


@pytest.mark.parametrize(
    "text",
    [
        f"https://x.blob.core.windows.net/c/b?sv=2024&sig={_SECRET}&se=1",
        f"https://x/?SIG={_SECRET}",
        f"Authorization: Bearer {_SECRET}",
        f"authorization=basic {_SECRET}",
        f"SharedAccessSignature={_SECRET}",
        f"DefaultEndpointsProtocol=https;AccountKey={_SECRET}",
        f"the key mlp_0123456789ab_{_SECRET} was used",
    ],
)
def test_signatures_tokens_and_keys_are_taken_out(text: str) -> None:
    """What remains says that something was there."""
    assert _SECRET not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://mlproxy:{_PASSWORD}@db.example.org:5432/mlproxy",
        f"password={_PASSWORD} host=db",
        f'{{"client_secret": "{_PASSWORD}"}}',
        f"Cookie: mlproxy_session={_PASSWORD}; other=1",
        f"token eyJhbGciOiJSUzI1NiJ9.{_PASSWORD}.x",
    ],
)
def test_passwords_and_cookies_are_taken_out(text: str) -> None:
    """By the form in which they are written."""
    assert _PASSWORD not in redact(text)


def test_the_secrets_of_this_process_are_taken_out_in_any_form() -> None:
    """A foreign answer that repeats one needs no name before it; a short word is no secret."""
    hide_values("never-to-be-seen", "", None, "short")
    assert redact("is 'never-to-be-seen' right, or short?") == "is '[redacted]' right, or short?"


@given(st.text(st.sampled_from("abc xyz 0123 /:.,-"), max_size=60))
def test_other_text_stays_as_it_is(text: str) -> None:
    """A log line without secrets is not touched."""
    assert redact(text) == text


@pytest.fixture
def _logging_as_before() -> object:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize("as_json", [True, False])
def test_a_logged_event_carries_no_secret(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """In fields and in tracebacks alike, and nothing is written to stdout."""
    configure_logs(as_json=as_json, level="info")
    log = structlog.get_logger("test")
    try:
        raise RuntimeError(f"failed at https://x/?sig={_SECRET}")
    except RuntimeError as error:
        log.error("upload_failed", url=f"https://x/?sig={_SECRET}", exc_info=error)
    written = capsys.readouterr()
    assert written.out == ""
    assert "upload_failed" in written.err
    assert _SECRET not in written.err


@pytest.mark.usefixtures("_logging_as_before")
def test_a_json_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Event, level, time and fields."""
    configure_logs(as_json=True, level="info")
    structlog.get_logger("test").info("entry_delivered", position=3)
    structlog.get_logger("test").debug("not_shown")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["position"]) == ("entry_delivered", "info", 3)
    assert line["timestamp"].endswith("Z")


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize("as_json", [True, False])
def test_what_libraries_log_goes_the_same_way(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """Without secrets, on lines of our own form."""
    configure_logs(as_json=as_json, level="info")
    logging.getLogger("some.library").error("failed at https://x/?sig=%s\nand forged a line", _SECRET)
    said = capsys.readouterr().err
    assert _SECRET not in said
    assert said.count("\n") == 1
    assert "some.library" in said


@pytest.mark.usefixtures("_logging_as_before")
def test_a_traceback_begins_no_line_as_an_event_does(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the error's message holds, each line of it is set back."""
    configure_logs(as_json=False, level="info")
    try:
        raise RuntimeError("first\n2026-01-01T00:00:00Z [warning] forged\x1b[2J")
    except RuntimeError as error:
        structlog.get_logger("test").error("request_failed", exc_info=error)
    first, *others = capsys.readouterr().err.splitlines()
    assert "request_failed" in first
    assert all(line.startswith("    ") for line in others)
    assert not any("\x1b" in line for line in others)
