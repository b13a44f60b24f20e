"""What every handler is handed: the workspace, and one call to it."""

import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.requests import Request

from emulator.blob_store import BlobStore
from emulator.calls import Calls
from emulator.errors import JsonObject, ServiceError, invalid
from emulator.faults import Faults
from emulator.settings import Settings
from emulator.store import Store
from emulator.tokens import Tokens


@dataclass(slots=True)
class Workspace:
    """The emulated workspace; one per process."""

    store: Store
    blobs: BlobStore
    tokens: Tokens
    settings: Settings
    names: frozenset[str]
    faults: Faults = field(default_factory=Faults)
    calls: Calls = field(default_factory=Calls)

    def change_settings(self, changes: JsonObject) -> None:
        """Change and keep them; raises `KeyError` or `TypeError` for one that is not a setting."""
        self.settings = self.settings.changed(changes)
        self.store.put_fact("settings", json.dumps(self.settings.as_json()))


@dataclass(frozen=True, slots=True)
class Call:
    """One request, its addresses already read."""

    workspace: Workspace
    origin: str
    scope: str
    path: dict[str, str]
    arguments: JsonObject

    @property
    def store(self) -> Store:
        """The workspace's store."""
        return self.workspace.store

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self.workspace.settings

    def artifact_uri(self, experiment_id: str, run_id: str) -> str:
        """The v2.0 form [I]: the host the caller used, the experiment's GUID."""
        host = self.origin.partition("://")[2]
        return f"azureml://{host}/mlflow/v2.0{self.scope}/experiments/{experiment_id}/runs/{run_id}/artifacts"

    def text(self, name: str) -> str:
        """A required string."""
        value = self.arguments.get(name)
        if value is None or value == "":
            raise invalid(f"Missing value for required parameter '{name}'")
        return str(value)

    def find_text(self, name: str) -> str | None:
        """An optional string."""
        value = self.arguments.get(name)
        return None if value is None else str(value)

    def number(self, name: str, default: int) -> int:
        """An optional integer."""
        value = self.arguments.get(name)
        return default if value in (None, "") else as_int(value, name)

    def list(self, name: str) -> list[Any]:
        """A repeated argument; a single value is a list of one."""
        value = self.arguments.get(name) or []
        return value if isinstance(value, list) else [value]


async def read_call(workspace: Workspace, request: Request) -> Call:
    """The call behind a request; a body wins over the query string."""
    arguments: JsonObject = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        arguments[name] = values[0] if len(values) == 1 else values
    body = await request.body()
    if body:
        arguments |= parse_body(body)
    path = {name: str(value) for name, value in request.path_params.items()}
    path["_address"] = quote(request.scope["path"])
    return Call(workspace, origin_of(request), workspace_scope(path), path, arguments)


def parse_body(body: bytes) -> JsonObject:
    """The JSON object of a body; a bare array is found under the empty name."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise invalid(f"The request body is not JSON: {error}") from error
    if isinstance(document, list):
        return {"": document}
    if not isinstance(document, dict):
        raise invalid("The request body is not a JSON object.")
    return document


def origin_of(request: Request) -> str:
    """Scheme and host as the caller wrote them, so that addresses handed out work for the caller."""
    return f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"


def workspace_scope(path: dict[str, str]) -> str:
    """The workspace's ARM id, as the caller wrote it."""
    if "workspace" not in path:
        return ""
    return (
        f"/subscriptions/{path['subscription']}/resourceGroups/{path['group']}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{path['workspace']}"
    )


def as_int(value: Any, name: str) -> int:
    """int64 arrives as a number or as a string (protobuf JSON allows both)."""
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise ServiceError(400, f"Invalid value {value} for parameter '{name}' supplied.") from error


def as_float(value: Any, name: str) -> float:
    """A double; NaN and the infinities arrive as strings [W]."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ServiceError(400, f"Invalid value {value} for parameter '{name}' supplied.") from error


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
