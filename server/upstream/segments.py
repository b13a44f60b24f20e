"""Names and ids on their way into a URL: checked, then encoded, so that none of them can change its shape."""

import re
from urllib.parse import quote

from server.upstream.failures import UpstreamFailure, refused_here

_LONGEST_SEGMENT = 1_024
_LONGEST_ARTIFACT_PATH = 5_000
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,255}")


def path_segment(value: str) -> str:
    """`value` as one segment of a path. Names that would be read as another path are refused."""
    if not value or value in {".", ".."} or len(value) > _LONGEST_SEGMENT or _has_control(value):
        raise _refusal("name or id", value)
    return quote(value, safe="")


def run_segment(run_id: str) -> str:
    """A run id as one segment of a path."""
    return path_segment(checked_run_id(run_id))


def checked_run_id(run_id: str) -> str:
    """`run_id`, if it looks like one."""
    if not _RUN_ID.fullmatch(run_id):
        raise _refusal("run id", run_id)
    return run_id


def checked_artifact_path(path: str) -> str:
    """An artifact's path, if it stays under its run: relative, no empty, `.` or `..` part, no backslash."""
    parts = path.split("/")
    if (
        len(path) > _LONGEST_ARTIFACT_PATH
        or _has_control(path)
        or "\\" in path
        or any(part in {"", ".", ".."} for part in parts)
    ):
        raise _refusal("artifact path", path)
    return path


def _has_control(text: str) -> bool:
    return any(ord(character) < 0x20 or ord(character) == 0x7F for character in text)


def _refusal(what: str, value: str) -> UpstreamFailure:
    return refused_here(f"not a usable {what}: {value[:200]!r}", "INVALID_PARAMETER_VALUE")
