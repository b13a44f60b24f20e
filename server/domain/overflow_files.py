"""The overflow files of a run in the workspace: their names, and their lines, one value each, as JSON.

    {"kind":"metric","key":"loss","value":0.5,"timestamp":1700000000000,"step":7,"limit":"metric_names_per_run"}
    {"kind":"param","key":"rate","value":"0.1","timestamp":1700000000000,"limit":"params_per_run"}

`timestamp` is the point's own; for a param or a tag, when the proxy accepted it. NaN and the infinities are
the words "NaN", "Infinity" and "-Infinity", as in MLflow's own JSON. `docs/overflow.md` tells its readers.
"""

import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum

OWN_FOLDER = "mlproxy"
"""The folder in a run's folder in the workspace that is not for clients."""
OVERFLOW_TAG = "mlproxy.overflow"
"""On a run in the workspace: how many values its overflow files hold."""

_PATH = re.compile(rf"{OWN_FOLDER}/overflow-(\d{{1,9}})\.jsonl")


class OverflowKind(StrEnum):
    """What a line holds."""

    METRIC = "metric"
    PARAM = "param"
    TAG = "tag"


@dataclass(frozen=True, slots=True)
class OverflowLine:
    """One value. A metric's is a number (NaN included) and has a step; the others are text."""

    kind: OverflowKind
    key: str
    value: float | str
    timestamp_ms: int
    limit: str
    step: int | None = None


def path_of_file(file_number: int) -> str:
    """Where a run's overflow file lies in its folder in the workspace."""
    return f"{OWN_FOLDER}/overflow-{file_number}.jsonl"


def number_of_path(path: str) -> int | None:
    """The number of the overflow file of that path; None for any other file."""
    found = _PATH.fullmatch(path)
    return int(found[1]) if found else None


def encode_line(line: OverflowLine) -> bytes:
    """The line with its end. The same value always gives the same bytes."""
    fields: dict[str, object] = {
        "kind": line.kind.value,
        "key": line.key,
        "value": _worded(line.value) if isinstance(line.value, float) else line.value,
        "timestamp": line.timestamp_ms,
    }
    if line.step is not None:
        fields["step"] = line.step
    fields["limit"] = line.limit
    return f"{json.dumps(fields, ensure_ascii=False, separators=(',', ':'))}\n".encode()


def decode_line(text: bytes) -> OverflowLine:
    """The value that a line holds.

    Raises:
        ValueError: it is not a line of ours.
    """
    try:
        fields = json.loads(text)
        kind, value = OverflowKind(fields["kind"]), fields["value"]
        return OverflowLine(
            kind=kind,
            key=str(fields["key"]),
            value=float(value) if kind is OverflowKind.METRIC else str(value),
            timestamp_ms=int(fields["timestamp"]),
            limit=str(fields["limit"]),
            step=int(fields["step"]) if kind is OverflowKind.METRIC else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a line of an overflow file: {text[:200]!r}") from error


def _worded(number: float) -> float | str:
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number
