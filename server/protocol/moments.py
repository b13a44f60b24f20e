"""Moments and durations as the newer calls write them: RFC 3339 text, and seconds with an `s`."""

import re
from datetime import UTC, datetime, timedelta

from server.protocol.limits import invalid_value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST_MS = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")


def parse_moment(text: str | None, path: str) -> int:
    """The milliseconds since the epoch; no text is the epoch itself."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError) as error:
        raise invalid_value(path, text) from error


def check_moment(moment_ms: int, path: str) -> int:
    """A moment that has a date."""
    if not _FIRST_MS <= moment_ms <= _LAST_MS:
        raise invalid_value(path, moment_ms)
    return moment_ms


def format_moment(moment_ms: int) -> str:
    """The moment, with milliseconds where it has some."""
    moment = _EPOCH + min(max(moment_ms, _FIRST_MS), _LAST_MS) * _MILLISECOND
    text = moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{text.removesuffix('.000')}Z"


def parse_duration(text: str | None, path: str) -> int | None:
    """The milliseconds, cut off below."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise invalid_value(path, text)
    sign, seconds, fraction = match.groups()
    duration = int(seconds) * 1000 + int((fraction or "").ljust(3, "0")[:3])
    return -duration if sign else duration


def format_duration(duration_ms: int) -> str:
    """The duration in seconds, with milliseconds where it has some."""
    seconds, rest = divmod(abs(duration_ms), 1000)
    return f"{'-' if duration_ms < 0 else ''}{seconds}{f'.{rest:03}' if rest else ''}s"
