"""Structured logs on stderr, as lines for people or as JSON.

Everything goes the same way, what libraries say too. Secrets are taken out on the way, and what comes from
outside can neither begin a line of its own nor tell a terminal what to do.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from io import StringIO
from textwrap import indent
from typing import Any, TextIO, cast

import structlog

from server.domain.redaction import redact

# Control characters, C1 and the Unicode line ends included, that a terminal or a reader of lines would obey.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_UNPRINTABLE_IN_TRACES = re.compile(_UNPRINTABLE.pattern.replace(r"\x00-\x1f", r"\x00-\x09\x0b-\x1f"))
_INDENT = "    "


def configure_logs(*, as_json: bool, level: str) -> None:
    """Set up logging for the process."""
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=_write_indented_trace
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,  # which request, which lane
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if as_json else _escape_values,
            renderer,
            _redact,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forwarder()], force=True)
    # Both log every request with its URL, and a URL can carry a signature.
    for name in ("httpx", "azure"):
        logging.getLogger(name).setLevel(logging.ERROR)


class _Unfailing:
    """A file whose lines may be lost: a full disk under the log must not take down what it tells of."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write the text, if that is possible."""
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with suppress(OSError):
            self._file.flush()


def _redact(_logger: Any, _method: str, line: Any) -> str:
    # After rendering: fields inside fields and tracebacks are text only then.
    return redact(str(line))


def _escape_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The event with its texts on one line each. JSON does this by itself."""
    for name, value in event.items():
        if isinstance(value, str) and _UNPRINTABLE.search(value):
            event[name] = _UNPRINTABLE.sub(_escape, value)
    return event


def _write_indented_trace(file: TextIO, exc_info: Any) -> None:
    """A traceback none of whose lines looks like the beginning of an event, whatever the error quotes."""
    buffer = StringIO()
    structlog.dev.plain_traceback(buffer, exc_info)
    file.write(indent(_UNPRINTABLE_IN_TRACES.sub(_escape, buffer.getvalue()), _INDENT))


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()


class _Forwarder(logging.Handler):
    """Hands what libraries log to our own way of logging."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as an event."""
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )
