"""The judge of a soak: holds what clients were told against what the workspace has.

Five properties, in this order:

- *conservation*: what was acknowledged is in the workspace, once, or is parked;
- *integrity*: with the value, the bytes, the status it was acknowledged with;
- *nothing invented*: what is there was sent by some client;
- *order*: the points of a metric are in the order of their steps, and a run's end comes after all the rest;
- *liveness*: after the faults everything is delivered within a bounded time, and a fresh write too (that part
  is the driver's).
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.durability.tracking import BASE_MS
from tests.support.emulator import EmulatorProcess
from tests.support.workspace import Point, WorkspaceRun, point, steps_by_key

JsonObject = dict[str, Any]


@dataclass(slots=True)
class Told:
    """One run, as its client knows it."""

    run_id: str
    name: str
    sent_points: set[Point] = field(default_factory=set)
    points: set[Point] = field(default_factory=set)
    params: dict[str, str] = field(default_factory=dict)
    sent_params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    undecided_tags: set[str] = field(default_factory=set)
    """Tags whose last change was sent and not acknowledged."""
    files: dict[str, int] = field(default_factory=dict)
    sent_files: dict[str, int] = field(default_factory=dict)
    status: str | None = None
    sent_status: str | None = None


@dataclass(slots=True)
class Ledgers:
    """All that the clients noted."""

    runs: dict[str, Told] = field(default_factory=dict)
    creates_sent: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    complaints: list[str] = field(default_factory=list)


def read_ledgers(files: Iterable[Path]) -> Ledgers:
    """Everything noted so far."""
    ledgers = Ledgers()
    for file in files:
        for line in file.read_text().splitlines():
            _take_in(ledgers, json.loads(line))
    return ledgers


def _take_in(ledgers: Ledgers, note: JsonObject) -> None:
    match note["what"]:
        case "made":
            ledgers.runs[note["run"]] = Told(note["run"], note["name"])
        case "sent" if note["kind"] == "run":
            ledgers.creates_sent[note["name"]] += 1
        case "sent":
            _sent(ledgers.runs[note["run"]], note)
        case "acked":
            ledgers.acknowledged += 1
            if note["kind"] != "run":
                _acknowledged(ledgers.runs[note["run"]], note)
        case what:
            ledgers.complaints.append(f"{what}: {note}")


def _points(note: JsonObject) -> set[Point]:
    return {point(key, step, BASE_MS + step, step / 7) for key, step in note["points"]}


def _sent(run: Told, note: JsonObject) -> None:
    match note["kind"]:
        case "points":
            run.sent_points |= _points(note)
        case "param":
            run.sent_params[note["key"]] = note["value"]
        case "tag" | "untag":
            run.undecided_tags.add(note["key"])
        case "file":
            run.sent_files[note["path"]] = note["size"]
        case "end":
            run.sent_status = note["status"]


def _acknowledged(run: Told, note: JsonObject) -> None:
    match note["kind"]:
        case "points":
            run.points |= _points(note)
        case "param":
            run.params[note["key"]] = note["value"]
        case "tag":
            run.tags[note["key"]] = note["value"]
            run.undecided_tags.discard(note["key"])
        case "untag":
            run.tags.pop(note["key"], None)
            run.undecided_tags.discard(note["key"])
        case "file":
            run.files[note["path"]] = note["size"]
        case "end":
            run.status = note["status"]


def judge(ledgers: Ledgers, emulator: EmulatorProcess, experiments: set[str], parked: int) -> list[str]:
    """Every breach, in words; none when all properties hold. What is parked may be missing."""
    held = {
        run["run_id"]: WorkspaceRun(run) for run in emulator.runs() if run["experiment_name"] in experiments
    }
    breaches = list(ledgers.complaints)
    missing = 0
    for told in ledgers.runs.values():
        if told.run_id not in held:
            breaches.append(f"{told.name}: the run is not there")
            continue
        found, lacking = _judge_run(told, held[told.run_id])
        breaches += [f"{told.name} ({told.run_id}): {words}" for words in found]
        missing += lacking
    if missing > parked:
        breaches.append(f"{missing} acknowledged things are missing, and only {parked} are parked")
    # A create whose answer was lost may have made a run that its client does not know.
    extra = Counter(run.document["name"] for run in held.values() if run.run_id not in ledgers.runs)
    unknown = [name for name in extra if name not in ledgers.creates_sent]
    breaches += [f"nobody made a run {name!r}" for name in unknown]
    return breaches


def _judge_run(told: Told, held: WorkspaceRun) -> tuple[list[str], int]:
    """What is wrong with a run, and how much of it is missing."""
    breaches = []
    doubled = [logged for logged, count in held.points.items() if count > 1]
    invented = set(held.points) - told.sent_points
    if doubled:
        breaches.append(f"{len(doubled)} points are there twice, as {doubled[0]}")
    if invented:
        breaches.append(f"{len(invented)} points were never sent, as {next(iter(invented))}")
    for key, steps in steps_by_key(held.points_in_order).items():
        if steps != sorted(steps):
            breaches.append(f"the points of {key} are out of order")
    missing = len(told.points - set(held.points))
    missing += sum(held.params.get(key) != value for key, value in told.params.items())
    breaches += [
        f"param {key} is {value!r}"
        for key, value in held.params.items()
        if told.sent_params.get(key) != value
    ]
    for key in told.tags.keys() | {key for key in held.tags if key.startswith("t")}:
        if key not in told.undecided_tags and held.tags.get(key) != told.tags.get(key):
            missing += 1
    sizes = {artifact["path"]: artifact["size"] for artifact in held.document["artifacts"]}
    missing += sum(sizes.get(path) != size for path, size in told.files.items())
    breaches += [f"file {path} was never sent" for path in sizes if path not in told.sent_files]
    if told.status is not None:
        if held.status != told.status:
            missing += 1
        elif not held.ended_last:
            breaches.append("something arrived after its end")
    elif held.status not in ("RUNNING", told.sent_status):
        breaches.append(f"its status is {held.status}")
    return breaches, missing
