"""Structured logs on stderr, as lines for people or as JSON. Secrets are taken out on the way."""

import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

_SECRETS = re.compile(
    r"(?i)(sig=|bearer\s+|basic\s+|sharedaccesssignature[="
    r" ]|accountkey=|mlp_[0-9a-f]{12}_)[A-Za-z0-9%+/=._\-~]+"
)


def configure_logs(*, as_json: bool, level: str) -> None:
    """Set up logging for the process."""
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if as_json else _keep,
            renderer,
            _redact,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
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


def redact(text: str) -> str:
    """The text without signatures, tokens and keys."""
    return _SECRETS.sub(r"\1[redacted]", text)


def _redact(_logger: Any, _method: str, line: Any) -> str:
    # After rendering: fields inside fields and tracebacks are text only then.
    return redact(str(line))


def _keep(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return event
