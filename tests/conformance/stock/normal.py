"""Both records in the same words: what is chosen anew in every run gets a name by its place.

Ids are numbered in the order in which a flow first shows them, so the same id on one side has to be
the same id on the other. A moment within the run of the client becomes `<now>`; times that a flow
chose itself stay as they are. Bytes that were uploaded are named after the path they went to, so a
download has to give back what was uploaded there. Everything else is left alone.
"""

import json
import re
from collections import defaultdict
from datetime import datetime
from typing import Any
from urllib.parse import unquote

# The first character of the ids in image names is never a hexadecimal digit.
_UUID = r"[0-9a-z][0-9a-f]{7}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ID = re.compile(rf"(?<![0-9a-zA-Z])((?:[a-z]{{1,2}}-)?)([0-9a-f]{{40}}|[0-9a-f]{{32}}|{_UUID})(?![0-9a-f])")
_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d{1,4}")
_SCRATCH = re.compile(r"/tmp/tmp[a-z0-9_]{8}")
_SPAN_ID = re.compile(r"[A-Za-z0-9+/]{22}==|[A-Za-z0-9+/]{11}=")
_MILLISECONDS = re.compile(r"(?<!\d)1\d{12}(?!\d)")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.0-9]*(Z|\+00:00)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SLACK_MS = 5000

Record = dict[str, Any]


class _Names:
    """The names that one flow of one side has been given."""

    def __init__(self, record: Record) -> None:
        self._server = record["server"]
        self._folder = record["folder"]
        self._from_ms = record["started_ms"] - _SLACK_MS
        self._to_ms = record["ended_ms"] + _SLACK_MS
        self._ids: dict[str, str] = {}
        self._generated: dict[str, str] = {}
        self.uploads: dict[str, str] = {}

    def plain(self, value: Any) -> Any:
        """A JSON value with every such thing named."""
        if isinstance(value, dict):
            return {self.plain(key): self.plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return self._number(value)
        return value

    def _number(self, value: int) -> int | str:
        if self._is_now(value):
            return "<now in ms>"
        return "<now in ns>" if self._is_now(value // 1_000_000) else value

    def _text(self, text: str) -> str:
        if _SHA256.fullmatch(text):
            return self.uploads.get(text, text)
        if _GENERATED_NAME.fullmatch(text):
            return self._generated.setdefault(text, f"<name {len(self._generated) + 1}>")
        if _SPAN_ID.fullmatch(text):
            return self._ids.setdefault(text, f"<id {len(self._ids) + 1}>")
        text = text.replace(self._server, "<server>").replace(self._folder, "<folder>")
        text = _SCRATCH.sub("<scratch>", text)
        text = _MOMENT.sub(self._moment, text)
        text = _MILLISECONDS.sub(
            lambda match: "<now>" if self._is_now(int(match.group())) else match.group(), text
        )
        return _ID.sub(self._id, text)

    def _id(self, match: re.Match[str]) -> str:
        kind, own = match.groups()
        return kind + self._ids.setdefault(own, f"<id {len(self._ids) + 1}>")

    def _moment(self, match: re.Match[str]) -> str:
        moment = datetime.fromisoformat(match.group().replace("Z", "+00:00"))
        moment = moment.astimezone() if moment.tzinfo is None else moment
        return "<moment>" if self._is_now(int(moment.timestamp() * 1000)) else match.group()

    def _is_now(self, milliseconds: int) -> bool:
        return self._from_ms <= milliseconds <= self._to_ms


def normalised(record: Record) -> dict[str, Record]:
    """The record's flows in words that do not depend on the run."""
    return {name: _flow(record, flow) for name, flow in record["flows"].items()}


def _flow(record: Record, flow: Record) -> Record:
    names = _Names(record)
    calls = [{**call, "path": names.plain(unquote(call["path"]))} for call in flow["calls"]]
    for call in calls:
        _open_records(call.get("answer"))
    names.uploads = _uploads(calls)
    return {
        **flow,
        "calls": [names.plain(call) for call in calls],
        "results": [names.plain(result) for result in flow["results"]],
    }


def _open_records(answer: Any) -> None:
    """The records of an evaluation dataset come as JSON within a text."""
    if isinstance(answer, dict) and isinstance(answer.get("json"), dict):
        records = answer["json"].get("records")
        if isinstance(records, str):
            answer["json"]["records"] = json.loads(records)


def _uploads(calls: list[Record]) -> dict[str, str]:
    """For each upload's hash the first path, in the order of the alphabet, that it went to."""
    paths: dict[str, set[str]] = defaultdict(set)
    for call in calls:
        if call["method"] == "PUT" and isinstance(call["sent"], dict) and "sha256" in call["sent"]:
            paths[call["sent"]["sha256"]].add(call["path"])
    return {sha256: f"<upload to {min(found)}>" for sha256, found in paths.items()}
