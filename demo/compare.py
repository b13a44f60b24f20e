"""What the client logged, beside what the workspace holds.

The client's side is read back through MLflow's own REST routes of the proxy, files included; the
workspace's side from the emulator's inspection routes. Equal means: the same status, name, params and
metric points (each point once), every tag, and every file by its SHA-256. The workspace may hold tags
of its own (`WORKSPACE_TAGS`); anything else that only one side has is a difference.
"""

import hashlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any

JsonObject = dict[str, Any]
Point = tuple[str, str, int, int]

WORKSPACE_TAGS = ("azureml.", "mlproxy.", "mlflow.rootRunId")
MODEL_FILE = "MLmodel"
PAGE_SIZE = 1000
TIMEOUT_SECONDS = 60.0


class ReadError(Exception):
    """One side refused to show what it holds."""


@dataclass(frozen=True, slots=True)
class RunContent:
    """Everything one side holds about one run. Files are path → SHA-256."""

    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    points: Counter[Point]
    files: dict[str, str]
    model_files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a count or a word from either side, and what differs."""

    what: str
    client: str
    workspace: str
    differences: list[str]


class JsonClient:
    """GET and POST on one server, with its headers."""

    def __init__(self, base_url: str, headers: dict[str, str] | None = None) -> None:
        self._base_url = base_url
        self._headers = headers or {}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, /, **query: str) -> JsonObject:
        """Fetch a JSON object."""
        return self._read_json(urllib.request.Request(self._url(path, query), headers=self._headers))

    def post(self, path: str, body: JsonObject) -> JsonObject:
        """Send a JSON object, fetch another."""
        headers = {**self._headers, "Content-Type": "application/json"}
        request = urllib.request.Request(self._url(path), data=json.dumps(body).encode(), headers=headers)
        return self._read_json(request)

    def sha256(self, path: str) -> str:
        """Download a file and return the hash of its bytes."""
        digest = hashlib.sha256()
        request = urllib.request.Request(self._url(path), headers=self._headers)
        with self._answer(request) as answer:
            while block := answer.read(1 << 16):
                digest.update(block)
        return digest.hexdigest()

    def _url(self, path: str, query: dict[str, str] | None = None) -> str:
        return (
            self._base_url + urllib.parse.quote(path) + ("?" + urllib.parse.urlencode(query) if query else "")
        )

    def _read_json(self, request: urllib.request.Request) -> JsonObject:
        with self._answer(request) as answer:
            return dict(json.load(answer))

    @contextmanager
    def _answer(self, request: urllib.request.Request) -> Iterator[HTTPResponse]:
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            raise ReadError(f"{request.get_method()} {request.full_url}: {error.code} {said}") from error


class ClientSide:
    """Reads what the client logged, through MLflow's REST routes of the proxy."""

    def __init__(self, proxy: JsonClient) -> None:
        self._proxy = proxy

    def runs(self, experiment: str) -> dict[str, RunContent]:
        """All runs of an experiment, by run id, the first one started first."""
        found = self._proxy.get("/api/2.0/mlflow/experiments/get-by-name", experiment_name=experiment)
        experiment_id = str(found["experiment"]["experiment_id"])
        query = {"experiment_ids": [experiment_id], "order_by": ["attributes.start_time ASC"]}
        runs = list(self._pages("/api/2.0/mlflow/runs/search", query, "runs"))
        models = list(
            self._pages("/api/2.0/mlflow/logged-models/search", {"experiment_ids": [experiment_id]}, "models")
        )
        return {run["info"]["run_id"]: self._content(run, models) for run in runs}

    def model_versions(self) -> set[tuple[str, str]]:
        """Name and version of every registered model version."""
        listed = self._proxy.get("/api/2.0/mlflow/model-versions/search")
        return {(version["name"], str(version["version"])) for version in listed.get("model_versions", [])}

    def _content(self, run: JsonObject, models: list[JsonObject]) -> RunContent:
        info, data = run["info"], run.get("data", {})
        own_models = [
            model["info"] for model in models if model["info"].get("source_run_id") == info["run_id"]
        ]
        return RunContent(
            name=info["run_name"],
            status=info["status"],
            params={each["key"]: each.get("value", "") for each in data.get("params", [])},
            tags={each["key"]: each.get("value", "") for each in data.get("tags", [])},
            points=self._points(info["run_id"], [each["key"] for each in data.get("metrics", [])]),
            files=self._hashes(info["artifact_uri"]),
            model_files={
                path: digest
                for model in own_models
                for path, digest in self._hashes(model["artifact_uri"]).items()
            },
        )

    def _points(self, run_id: str, keys: list[str]) -> Counter[Point]:
        points: Counter[Point] = Counter()
        for key in keys:
            query = {"run_id": run_id, "metric_key": key, "max_results": str(PAGE_SIZE)}
            while True:
                page = self._proxy.get("/api/2.0/mlflow/metrics/get-history", **query)
                points.update(point_of(metric) for metric in page.get("metrics", []))
                if not page.get("next_page_token"):
                    break
                query["page_token"] = page["next_page_token"]
        return points

    def _hashes(self, artifact_uri: str) -> dict[str, str]:
        root = urllib.parse.urlparse(artifact_uri).path.strip("/")
        return {
            path: self._proxy.sha256(f"/api/2.0/mlflow-artifacts/artifacts/{root}/{path}")
            for path in self._files_below(root, "")
        }

    def _files_below(self, root: str, folder: str) -> Iterator[str]:
        place = f"{root}/{folder}" if folder else root
        listed = self._proxy.get("/api/2.0/mlflow-artifacts/artifacts", path=place)
        for entry in listed.get("files", []):
            path = f"{folder}/{entry['path']}" if folder else entry["path"]
            if entry.get("is_dir"):
                yield from self._files_below(root, path)
            else:
                yield path

    def _pages(self, path: str, query: JsonObject, noun: str) -> Iterator[JsonObject]:
        while True:
            page = self._proxy.post(path, query)
            yield from page.get(noun, [])
            if not page.get("next_page_token"):
                return
            query = {**query, "page_token": page["next_page_token"]}


class WorkspaceSide:
    """Reads what the workspace holds, from the emulator's inspection routes."""

    def __init__(self, emulator: JsonClient) -> None:
        self._emulator = emulator

    def run(self, run_id: str) -> RunContent:
        """One run as the workspace holds it."""
        held = self._emulator.get(f"/emulator/runs/{run_id}")
        return RunContent(
            name=held["name"],
            status=held["status"],
            params=held["params"],
            tags=held["tags"],
            points=Counter(point_of(metric) for metric in held["metrics"]),
            files={artifact["path"]: artifact["sha256"] for artifact in held["artifacts"]},
        )

    def model_versions(self) -> set[tuple[str, str]]:
        """Name and version of every registered model version."""
        listed = self._emulator.get("/emulator/registered-models")["registered_models"]
        return {(model["name"], str(version["version"])) for model in listed for version in model["versions"]}


def point_of(metric: JsonObject) -> Point:
    """A metric point as a value that can be compared; numbers by their shortest exact text."""
    return metric["key"], repr(float(metric["value"])), int(metric["timestamp"]), int(metric.get("step", 0))


def compare_runs(client: RunContent, workspace: RunContent) -> list[Row]:
    """The lines of the table for one run."""
    return [
        Row("name", client.name, workspace.name, changed("name", client.name, workspace.name)),
        Row("status", client.status, workspace.status, changed("status", client.status, workspace.status)),
        counted("params", client.params, workspace.params),
        counted("tags", client.tags, without_workspace_tags(client.tags, workspace.tags)),
        Row(
            "metric points",
            str(client.points.total()),
            str(workspace.points.total()),
            [f"point only at the client: {point}" for point in (client.points - workspace.points).elements()]
            + [
                f"point only in the workspace: {point}"
                for point in (workspace.points - client.points).elements()
            ],
        ),
        counted("files by hash", place_model_files(client, workspace.files), workspace.files),
    ]


def counted(what: str, client: dict[str, str], workspace: dict[str, str]) -> Row:
    """A line for two mappings that have to be the same."""
    differences = [
        f"{what}: {key!r} is {client.get(key, '(absent)')!r} at the client"
        f" and {workspace.get(key, '(absent)')!r} in the workspace"
        for key in sorted(client.keys() | workspace.keys())
        if client.get(key) != workspace.get(key)
    ]
    return Row(what, str(len(client)), str(len(workspace)), differences)


def changed(what: str, client: str, workspace: str) -> list[str]:
    """The difference between two words, if there is one."""
    return (
        [] if client == workspace else [f"{what}: {client!r} at the client, {workspace!r} in the workspace"]
    )


def without_workspace_tags(client: dict[str, str], workspace: dict[str, str]) -> dict[str, str]:
    """The workspace's tags, less those that it or the proxy sets for itself."""
    return {
        key: value for key, value in workspace.items() if key in client or not key.startswith(WORKSPACE_TAGS)
    }


def place_model_files(client: RunContent, workspace_files: dict[str, str]) -> dict[str, str]:
    """All files of the client at the paths where the workspace has to hold them.

    MLflow 3 keeps a logged model beside its run; a workspace knows only files under runs. The folder it
    went to is the one that holds the model's `MLmodel` file.
    """
    if not client.model_files:
        return client.files
    digest = client.model_files[MODEL_FILE]
    homes = [path.removesuffix(MODEL_FILE) for path, held in workspace_files.items() if held == digest]
    home = homes[0] if homes else "(model)/"
    return client.files | {home + path: held for path, held in client.model_files.items()}


def table(title: str, rows: list[Row]) -> str:
    """A heading and the lines below it, side by side."""
    lines = [f"{title:<46} {'client':>18} {'workspace':>18}"]
    for row in rows:
        verdict = "DIFFERENT" if row.differences else "equal"
        lines.append(f"  {row.what:<44} {row.client:>18} {row.workspace:>18}   {verdict}")
    return "\n".join(lines)
