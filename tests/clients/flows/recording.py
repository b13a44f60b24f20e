"""What a client was told: every HTTP exchange with its server, and every entity its API returned.

The exchanges are seen where `requests` sends them, so the client itself is not changed. Bodies that
are not JSON are kept as their hash and size.
"""

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import mlflow
import pandas as pd
import requests
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList

VERSION = tuple(int(part) for part in mlflow.__version__.split(".")[:2])
_KEPT_HEADERS = ("content-type", "content-disposition")
_DEEPEST = 12


@dataclass
class Flow:
    """One thing that people do with MLflow."""

    name: str
    run: Callable[["Recorder"], None]
    since: tuple[int, int]
    until: tuple[int, int]


FLOWS: list[Flow] = []


def flow(
    function: Callable[["Recorder"], None] | None = None,
    *,
    since: tuple[int, int] = (0, 0),
    until: tuple[int, int] = (99, 0),
) -> Any:
    """Adds a flow, for clients of the versions `since` (included) to `until` (excluded)."""

    def add(decorated: Callable[["Recorder"], None]) -> Callable[["Recorder"], None]:
        FLOWS.append(Flow(decorated.__name__, decorated, since, until))
        return decorated

    return add if function is None else add(function)


class FlowSkippedError(Exception):
    """The flow cannot be had with what is installed; the message says why."""


def _await_prompt_links() -> None:
    """The client links a prompt to its experiment in a thread, whose requests would come at any moment."""
    for thread in threading.enumerate():
        if thread.name.startswith("link_prompt_to_experiment"):
            thread.join(120)


@dataclass
class Recorder:
    """Everything one client process saw, by flow."""

    server: str
    flows: dict[str, dict[str, Any]] = field(default_factory=dict)
    current: str = ""
    started_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int | None = None

    def note(self, label: str, value: Any) -> Any:
        """Keep what the API returned, and hand it on."""
        _await_prompt_links()
        self.flows[self.current]["results"].append(
            {"label": label, "kind": type(value).__name__, "value": plain(value)}
        )
        return value

    def error(self, label: str, function: Callable[[], Any]) -> None:
        """Keep what the API raised; a call that succeeds is kept as what it returned."""
        try:
            value = function()
        except MlflowException as error:
            self.note(label, {"raised": error.error_code, "message": _first_line(error.message)})
        except Exception as error:
            self.note(label, {"raised": type(error).__name__, "message": _first_line(str(error))})
        else:
            self.note(label, value)

    def run(self, chosen: Flow) -> None:
        """Run one flow to its end, whatever happens in it."""
        self.current = chosen.name
        record: dict[str, Any] = {"calls": [], "results": []}
        self.flows[chosen.name] = record
        began = time.monotonic()
        try:
            chosen.run(self)
        except FlowSkippedError as reason:
            record["skipped"] = str(reason)
        except Exception as error:
            record["broke"] = f"{type(error).__name__}: {error}"
        finally:
            while mlflow.active_run() is not None:
                mlflow.end_run("FAILED")
            record["seconds"] = round(time.monotonic() - began, 2)

    def listen(self) -> None:
        """From now on, keep every exchange with the server."""
        send = requests.Session.send

        def recording_send(
            session: requests.Session, request: requests.PreparedRequest, **options: Any
        ) -> Any:
            if not str(request.url).startswith(self.server) or threading.get_ident() == self.waiting:
                return send(session, request, **options)
            sent_body = _request_body(request)
            try:
                response = send(session, request, **options)
            except requests.RequestException as error:
                self._keep(request, sent_body, {"status": f"raised {type(error).__name__}"})
                raise
            self._keep(request, sent_body, _answer(response))
            return response

        requests.Session.send = recording_send  # type: ignore[method-assign]

    def write(self, file: Path) -> None:
        """Write the record down."""
        document = {
            "mlflow": mlflow.__version__,
            "server": self.server,
            "folder": str(Path.cwd()),
            "started_ms": self.started_ms,
            "ended_ms": int(time.time() * 1000),
            "flows": self.flows,
        }
        file.write_text(json.dumps(document))

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait for what happens in the background; how often this asks is not recorded."""
        deadline = time.monotonic() + seconds
        self.waiting = threading.get_ident()
        try:
            while not condition() and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            self.waiting = None

    def _keep(self, request: requests.PreparedRequest, sent_body: Any, answer: dict[str, Any]) -> None:
        parts = urlsplit(str(request.url))
        call = {
            "method": request.method,
            "path": parts.path,
            "query": sorted(parse_qsl(parts.query, keep_blank_values=True)),
            "sent": sent_body,
            **answer,
        }
        with self.lock:
            self.flows[self.current]["calls"].append(call)


def digest(content: bytes) -> dict[str, Any]:
    """What is kept of bytes."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def files_below(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The files of a folder by path; of a file, itself."""
    root = Path(folder)
    if root.is_file():
        return {root.name: digest(root.read_bytes())}
    return {
        str(path.relative_to(root)): digest(path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def plain(value: Any, depth: int = 0) -> Any:
    """An entity, or anything that holds some, as JSON."""
    if depth > _DEEPEST:
        return "…"
    if value is None or isinstance(value, bool | int | str):
        return value.name if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return digest(value)
    if isinstance(value, PagedList):
        return {"items": [plain(item, depth + 1) for item in value], "token": plain(value.token)}
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, pd.DataFrame):
        columns = value.reindex(sorted(value.columns), axis=1)
        return json.loads(columns.to_json(orient="split", date_unit="ms"))
    if isinstance(value, Iterable) and not hasattr(value, "__dict__"):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, list | tuple | set):
        return [plain(item, depth + 1) for item in value]
    return _entity(value, depth)


def _entity(value: Any, depth: int) -> Any:
    """An entity's public properties."""
    names = {name for name in dir(type(value)) if isinstance(getattr(type(value), name, None), property)}
    names |= set(vars(value)) if hasattr(value, "__dict__") else set()
    found: dict[str, Any] = {}
    for name in sorted(names):
        if name.startswith("_"):
            continue
        try:
            attribute = getattr(value, name)
        except Exception as error:
            attribute = f"raised {type(error).__name__}"
        if not callable(attribute):
            found[name] = plain(attribute, depth + 1)
    return found or repr(value)


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]


def _answer(response: requests.Response) -> dict[str, Any]:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    body = _body(response.content, headers.get("content-type", ""))
    return {"status": response.status_code, "headers": headers, "answer": body}


def _request_body(request: requests.PreparedRequest) -> Any:
    body = request.body
    if body is None:
        return None
    if hasattr(body, "read") and hasattr(body, "seek"):
        content = body.read()
        body.seek(0)
        return digest(content if isinstance(content, bytes) else content.encode())
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, bytes):
        return _body(body, str(request.headers.get("content-type", "")))
    return "streamed"


def _body(content: bytes, content_type: str) -> Any:
    if "json" in content_type:
        try:
            return {"json": json.loads(content)}
        except ValueError:
            pass
    return digest(content)
