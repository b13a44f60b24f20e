"""Runs that hold more than the workspace takes, and where every value of them has ended up."""

import json
from collections import Counter
from typing import Any

import httpx

from tests.durability.tracking import LoggedRun
from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess, JsonObject
from tests.support.workspace import Point, WorkspaceRun, point, run_of

FOLDER = "mlproxy/"
OVERFLOW_TAG = "mlproxy.overflow"


def read_file(emulator: EmulatorProcess, run_id: str, path: str) -> bytes:
    """A file of a run, as the workspace gives it out."""
    return _artifact(emulator, "GET", run_id, "content", path=path).content


def remove_file(emulator: EmulatorProcess, run_id: str, path: str) -> None:
    """Someone removes a file of a run from the workspace."""
    _artifact(emulator, "DELETE", run_id, "metadata", path=path, hardDelete="true")


def _artifact(emulator: EmulatorProcess, method: str, run_id: str, what: str, **query: str) -> httpx.Response:
    answer = httpx.request(
        method,
        f"{emulator.http_url}/artifact/v2.0{WORKSPACE_PATH}/artifacts/ExperimentRun/dcid.{run_id}/{what}",
        params=query,
        headers={"Authorization": f"Bearer {emulator.token()}"},
        trust_env=False,
        timeout=30,
    )
    assert answer.is_success, answer.text
    return answer


def overflow_files(emulator: EmulatorProcess, held: WorkspaceRun) -> dict[str, list[JsonObject]]:
    """The run's overflow files in their order, line by line."""
    numbers = sorted(int(path[len("mlproxy/overflow-") : -len(".jsonl")]) for path in _own_paths(held))
    paths = [f"mlproxy/overflow-{number}.jsonl" for number in numbers]
    return {
        path: [json.loads(line) for line in read_file(emulator, held.run_id, path).splitlines()]
        for path in paths
    }


def _own_paths(held: WorkspaceRun) -> list[str]:
    return [path for path in held.files if path.startswith(FOLDER)]


def point_of_line(line: JsonObject) -> Point:
    """A metric's line as a point."""
    return point(line["key"], line["step"], line["timestamp"], line["value"])


def assert_nothing_lost(
    emulator: EmulatorProcess, run: LoggedRun, *, files_in_order: bool = True
) -> list[JsonObject]:
    """All that was acknowledged is in the run or in its overflow files, once; gives the files' lines."""
    held = run_of(emulator, run.run_id)
    files = overflow_files(emulator, held)
    assert list(files) == [f"mlproxy/overflow-{number}.jsonl" for number in range(1, len(files) + 1)]
    lines = [line for content in files.values() for line in content]
    by_kind: dict[str, list[JsonObject]] = {"metric": [], "param": [], "tag": []}
    for line in lines:
        by_kind[line["kind"]].append(line)
    assert held.points + Counter(map(point_of_line, by_kind["metric"])) == Counter(run.points)
    _assert_in_order(run.points, held.points_in_order)
    if files_in_order:
        _assert_in_order(run.points, list(map(point_of_line, by_kind["metric"])))
    in_files = {line["key"]: line["value"] for line in by_kind["param"]}
    assert len(in_files) == len(by_kind["param"])
    assert not in_files.keys() & held.params.keys()
    assert held.params | in_files == run.params
    _assert_tags(run, held, {line["key"]: line["value"] for line in by_kind["tag"]})
    own_files = {path: content for path, content in held.files.items() if not path.startswith(FOLDER)}
    assert own_files == run.files
    assert held.status == run.status
    if run.status != "RUNNING":
        assert held.ended_last
    return lines


def _assert_in_order(logged: list[Point], arrived: list[Point]) -> None:
    positions: dict[Point, int] = {}
    for position, item in enumerate(logged):
        positions.setdefault(item, position)
    order = [positions[item] for item in arrived]
    assert order == sorted(order)


def _assert_tags(run: LoggedRun, held: WorkspaceRun, in_files: dict[str, Any]) -> None:
    """Every tag's last value is there, in the run or, if it was too much for that, last in the files."""
    shown = {key: value for key, value in held.tags.items() if not key.startswith(("mlflow.", "mlproxy."))}
    assert shown.keys() <= run.tags.keys()
    missing = {key for key, value in run.tags.items() if value not in (shown.get(key), in_files.get(key))}
    assert missing == set()


def refused_calls(emulator: EmulatorProcess, since: int = 0) -> list[JsonObject]:
    """The writes to runs that the workspace refused."""
    return [
        call
        for call in emulator.calls(since)
        if call["status"] >= 400 and call["method"] != "GET" and "/mlflow/" in call["path"]
    ]


def last_call(emulator: EmulatorProcess) -> int:
    """The number of the last call so far."""
    return max((call["seq"] for call in emulator.calls()), default=0)
