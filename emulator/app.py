"""The routes of every service, and the layers around them.

From the outside in: the log of calls, the faults, the gate (workspace name and token), the routes. A
route that is not here answers 404 with an empty body, as the service does [I].
"""

import re
from collections.abc import Callable
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from emulator import (
    arm,
    artifacts,
    blobs,
    experiments,
    identity,
    inspection,
    metric_service,
    metrics,
    registry,
    run_history,
    runs,
)
from emulator.blob_store import FileBlobs
from emulator.calls import CallRecorder
from emulator.errors import (
    EmptyAnswerError,
    JsonObject,
    ServiceError,
    StorageError,
    arm_response,
    facade_response,
    service_response,
    storage_response,
)
from emulator.faults import FaultInjector
from emulator.workspace import Call, Workspace, read_call

Operation = Callable[[Call], JsonObject]

SCOPE = (
    "/subscriptions/{subscription}/resourceGroups/{group}"
    "/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
)
GUARDED = re.compile(
    r"(?P<plane>/mlflow/v[12]\.0|/history/v1\.0|/artifact/v2\.0|/metric/v2\.0|)/subscriptions/[^/]+"
    r"(?:/resource[gG]roups/[^/]+(?:/providers/Microsoft\.MachineLearningServices/workspaces/(?P<name>[^/]+))?)?"
)

MLFLOW: dict[tuple[str, str], Operation] = {
    ("POST", "experiments/create"): experiments.create,
    ("GET", "experiments/get"): experiments.get,
    ("GET", "experiments/get-by-name"): experiments.get_by_name,
    ("GET", "experiments/search"): experiments.search_all,
    ("POST", "experiments/search"): experiments.search_all,
    ("GET", "experiments/list"): experiments.search_all,
    ("POST", "experiments/update"): experiments.update,
    ("POST", "experiments/delete"): experiments.delete,
    ("POST", "experiments/restore"): experiments.restore,
    ("POST", "experiments/set-experiment-tag"): experiments.set_tag,
    ("POST", "runs/create"): runs.create,
    ("GET", "runs/get"): runs.get,
    ("POST", "runs/update"): runs.update,
    ("POST", "runs/delete"): runs.delete,
    ("POST", "runs/restore"): runs.restore,
    ("POST", "runs/search"): runs.search_all,
    ("POST", "runs/log-metric"): runs.log_metric,
    ("POST", "runs/log-parameter"): runs.log_parameter,
    ("POST", "runs/log-batch"): runs.log_batch,
    ("POST", "runs/log-batch-async"): runs.log_batch_async,
    ("GET", "runs/get-run-data-status"): runs.data_status,
    ("POST", "runs/log-model"): runs.log_model,
    ("POST", "runs/log-inputs"): runs.log_inputs,
    ("POST", "runs/set-tag"): runs.set_tag,
    ("POST", "runs/delete-tag"): runs.delete_tag,
    ("GET", "metrics/get-history"): metrics.get_history,
    ("POST", "registered-models/create"): registry.create,
    ("GET", "registered-models/get"): registry.get,
    ("GET", "registered-models/search"): registry.search_all,
    ("GET", "registered-models/list"): registry.search_all,
    ("PATCH", "registered-models/update"): registry.update,
    ("POST", "registered-models/rename"): registry.rename,
    ("DELETE", "registered-models/delete"): registry.delete,
    ("POST", "registered-models/get-latest-versions"): registry.latest_versions,
    ("GET", "registered-models/get-latest-versions"): registry.latest_versions,
    ("POST", "registered-models/set-tag"): registry.set_tag,
    ("DELETE", "registered-models/delete-tag"): registry.delete_tag,
    ("POST", "registered-models/alias"): registry.set_alias,
    ("DELETE", "registered-models/alias"): registry.delete_alias,
    ("GET", "registered-models/alias"): registry.get_by_alias,
    ("POST", "model-versions/create"): registry.create_version,
    ("GET", "model-versions/get"): registry.get_one_version,
    ("PATCH", "model-versions/update"): registry.update_version,
    ("DELETE", "model-versions/delete"): registry.delete_version,
    ("GET", "model-versions/search"): registry.search_versions,
    ("GET", "model-versions/get-download-uri"): registry.download_uri,
    ("POST", "model-versions/transition-stage"): registry.transition,
    ("POST", "model-versions/set-tag"): registry.set_version_tag,
    ("DELETE", "model-versions/delete-tag"): registry.delete_version_tag,
}

RUN_HISTORY: tuple[tuple[str, str, Operation], ...] = (
    ("GET", "", run_history.get_run),
    ("PATCH", "", run_history.patch_run),
    ("GET", "/details", run_history.get_run_details),
    ("GET", "/children", run_history.list_children),
    ("GET", "/token", run_history.run_token),
    ("DELETE", "/tags", run_history.delete_tags),
    ("POST", "/events", run_history.post_event),
    ("POST", "/batch/metrics", metric_service.post_batch),
    ("GET", "/metricsingest/wait", run_history.ingest_wait),
    ("POST", "/artifacts/batch/metadata", artifacts.create_many),
    ("GET", "/artifacts/metadata", artifacts.metadata),
    ("GET", "/artifacts/metadata/{path:path}", artifacts.metadata),
    ("GET", "/artifacts/contentinfo", artifacts.content),
    ("GET", "/artifacts/contentinfo/{path:path}", artifacts.content),
    ("GET", "/artifacts/prefix/contentinfo", artifacts.list_contents),
    ("GET", "/artifacts/prefix/contentinfo/{path:path}", artifacts.list_contents),
    ("GET", "/artifacts/path", artifacts.list_all),
    ("GET", "/artifacts/path/{path:path}", artifacts.list_all),
    ("GET", "/artifacts", artifacts.list_all),
)

ARTIFACT_SERVICE: tuple[tuple[str, str, Operation], ...] = (
    ("POST", "/metadata", artifacts.create),
    ("POST", "/register", artifacts.create),
    ("POST", "/batch/metadata", artifacts.describe_many),
    ("GET", "/metadata/{origin}/{container}/{path:path}", artifacts.metadata),
    ("GET", "/contentinfo/{origin}/{container}/{path:path}", artifacts.content),
    ("GET", "/write/{origin}/{container}/{path:path}", artifacts.content_to_write),
    ("GET", "/prefix/contentinfo/{origin}/{container}/{path:path}", artifacts.list_contents),
    ("POST", "/batch/metadata/{origin}/{container}", artifacts.create_many),
    ("POST", "/batch/ingest/containersas/{origin}/{container}", artifacts.ingest),
    ("POST", "/{origin}/{container}/batch/metadata", artifacts.create_many),
    ("POST", "/{origin}/{container}/batch/ingest/containersas", artifacts.ingest),
    ("GET", "/{origin}/{container}/metadata", artifacts.metadata),
    ("GET", "/{origin}/{container}/contentinfo", artifacts.content),
    ("GET", "/{origin}/{container}/write", artifacts.content_to_write),
    ("GET", "/{origin}/{container}/prefix/contentinfo", artifacts.list_contents),
    ("GET", "/{origin}/{container}", artifacts.list_all),
)


def create_app(workspace: Workspace) -> ASGIApp:
    """The emulator, ready for a server."""
    storage: list[BaseRoute] = []
    if isinstance(workspace.blobs, FileBlobs):
        storage = [*blobs.routes(workspace.store, workspace.blobs)]
    routed = Starlette(
        routes=[
            *inspection.routes(workspace),
            *arm.routes(workspace),
            *storage,
            *_mlflow_routes(workspace),
            Mount(f"/history/v1.0{SCOPE}", routes=_history_routes(workspace)),
            Mount(f"/metric/v2.0{SCOPE}", routes=_metric_routes(workspace)),
            Mount(f"/artifact/v2.0{SCOPE}/artifacts", routes=_artifact_routes(workspace)),
            *identity.routes(workspace),
        ],
        exception_handlers={
            ServiceError: _refuse,
            StorageError: _refuse,
            EmptyAnswerError: _refuse,
            HTTPException: _no_route,
        },
    )
    gated = Gate(routed, workspace=workspace)
    faulty = FaultInjector(gated, faults=workspace.faults)
    return CallRecorder(faulty, calls=workspace.calls, next_seq=workspace.store.next_seq)


class Gate:
    """Only a known workspace, only with a good token."""

    def __init__(self, app: ASGIApp, *, workspace: Workspace) -> None:
        self._app = app
        self._workspace = workspace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        guarded = GUARDED.match(scope["path"]) if scope["type"] == "http" else None
        if guarded is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            self._workspace.tokens.check(request.headers.get("authorization"), for_arm=not guarded["plane"])
            self._check_name(guarded)
        except ServiceError as error:
            await _drain(receive)
            response = error_response(error, scope["path"])
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_name(self, guarded: re.Match[str]) -> None:
        name = guarded["name"]
        if name is not None and name not in self._workspace.names:
            raise ServiceError(404, f"Workspace '{name}' was not found.", code="ResourceNotFound")


def error_response(error: Exception, path: str) -> Response:
    """The body of the service that the path belongs to."""
    match error:
        case StorageError():
            return storage_response(error)
        case EmptyAnswerError():
            return Response(status_code=error.status)
        case ServiceError() if path.startswith("/subscriptions"):
            return arm_response(error)
        case ServiceError() if path.startswith("/mlflow") and error.status != HTTPStatus.UNAUTHORIZED:
            return facade_response(error)
        case ServiceError():
            return service_response(error, path.split("/")[1])
    raise error


def _mlflow_routes(workspace: Workspace) -> list[BaseRoute]:
    async def serve(request: Request) -> Response:
        operation = MLFLOW.get((request.method, request.path_params["operation"]))
        if operation is None:
            await request.body()
            return Response(status_code=404)
        return await _answer(workspace, operation, request)

    methods = ["GET", "POST", "PATCH", "DELETE"]
    return [
        Route(f"/mlflow/{version}{SCOPE}/api/2.0/{prefix}mlflow/{{operation:path}}", serve, methods=methods)
        for version in ("v1.0", "v2.0")
        for prefix in ("", "preview/")
    ]


def _history_routes(workspace: Workspace) -> list[BaseRoute]:
    contents = artifacts.Contents(workspace)
    plain: list[tuple[str, str, Operation]] = [
        ("GET", "/experiments/{experiment_name}", run_history.get_experiment),
        ("POST", "/experiments/{experiment_name}", run_history.create_experiment),
        ("GET", "/experimentids/{experiment_id}", run_history.get_experiment),
        ("PATCH", "/experimentids/{experiment_id}", run_history.update_experiment),
        ("POST", "/experiments:query", run_history.query_experiments),
    ]
    for place in ("/experiments/{experiment_name}", "/experimentids/{experiment_id}"):
        plain += [
            ("PATCH", f"{place}/batch/runs", run_history.patch_runs),
            ("POST", f"{place}/batch/events", run_history.post_events),
            ("POST", f"{place}/runs:query", run_history.query_runs),
        ]
    routes: list[BaseRoute] = []
    for place in ("/experiments/{experiment_name}", "/experimentids/{experiment_id}", ""):
        run = f"{place}/runs/{{run_id}}"
        plain += [(method, f"{run}{rest}", operation) for method, rest, operation in RUN_HISTORY]
        routes += [
            Route(f"{run}/artifacts/artifacturi", contents.address),
            Route(f"{run}/artifacts/artifacturi/{{path:path}}", contents.address),
        ]
    return [*_plain_routes(workspace, plain), *routes]


def _metric_routes(workspace: Workspace) -> list[BaseRoute]:
    return _plain_routes(
        workspace,
        [
            ("POST", "/runs/{run_id}/batch", metric_service.post_batch),
            ("POST", "/runs/{run_id}/list", metric_service.list_names),
            ("POST", "/runs/{run_id}/full", metric_service.read_full),
        ],
    )


def _artifact_routes(workspace: Workspace) -> list[BaseRoute]:
    contents = artifacts.Contents(workspace)
    return [
        Route("/content/{origin}/{container}/{path:path}", contents.upload, methods=["POST"]),
        Route("/content/{origin}/{container}/{path:path}", contents.download),
        Route("/metadata/{origin}/{container}/{path:path}", contents.delete, methods=["DELETE"]),
        Route("/batch/{origin}/{container}", contents.delete_many, methods=["DELETE"]),
        Route("/{origin}/{container}/content", contents.upload, methods=["POST"]),
        Route("/{origin}/{container}/content", contents.download),
        Route("/{origin}/{container}/metadata", contents.delete, methods=["DELETE"]),
        Route("/{origin}/{container}/batch", contents.delete_many, methods=["DELETE"]),
        Route("/{origin}/{container}/batch/metadata:delete", contents.delete_many, methods=["POST"]),
        Route("/{origin}/{container}/contentinfo/storageuri", contents.address),
        *_plain_routes(workspace, list(ARTIFACT_SERVICE)),
    ]


def _plain_routes(workspace: Workspace, operations: list[tuple[str, str, Operation]]) -> list[BaseRoute]:
    """Operations that read a JSON body, work in one transaction and answer JSON."""

    def endpoint(operation: Operation) -> Callable[[Request], object]:
        async def serve(request: Request) -> Response:
            return await _answer(workspace, operation, request)

        return serve

    return [Route(path, endpoint(operation), methods=[method]) for method, path, operation in operations]


async def _answer(workspace: Workspace, operation: Operation, request: Request) -> Response:
    call = await read_call(workspace, request)
    with workspace.store.transaction():
        result = operation(call)
    return JSONResponse(result)


async def _drain(receive: Receive) -> None:
    """Read a body nobody wants, so that the caller gets to read the answer."""
    while (await receive()).get("more_body"):
        pass


async def _refuse(request: Request, error: Exception) -> Response:
    return error_response(error, request.url.path)


async def _no_route(request: Request, error: Exception) -> Response:
    """An unknown route, and a known one with another method: empty body, whatever the status [I]."""
    assert isinstance(error, HTTPException)
    return Response(status_code=error.status_code)
