"""Routes about runs and what is logged to them."""

from typing import Any

from server.api.endpoints import MLFLOW_2, MLFLOW_AND_PREVIEW, Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.protocol import runs as messages
from server.services.runs import Runs
from server.services.studio import StudioLinks

_AJAX = MLFLOW_2[1]
"""Where the UI calls; clients call under `/api`."""


class RunRoutes:
    """runs/*."""

    def __init__(self, runs: Runs, studio: StudioLinks | None = None) -> None:
        self._runs = runs
        self._studio = studio

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read, write = Permission.READ, Permission.WRITE
        table: list[tuple[str, str, Handler, Permission, type[Any]]] = [
            ("POST", "log-metric", self._log_metric, write, messages.LogMetricRequest),
            ("POST", "log-batch", self._log_batch, write, messages.LogBatchRequest),
            ("POST", "log-parameter", self._log_param, write, messages.LogParamRequest),
            ("POST", "set-tag", self._set_tag, write, messages.SetTagRequest),
            ("POST", "delete-tag", self._delete_tag, write, messages.DeleteTagRequest),
            ("POST", "create", self._create, write, messages.CreateRunRequest),
            ("POST", "update", self._update, write, messages.UpdateRunRequest),
            ("GET", "get", self._get, read, messages.GetRunRequest),
            ("POST", "search", self._search, read, messages.SearchRunsRequest),
            ("POST", "delete", self._delete, write, messages.RunIdRequest),
            ("POST", "restore", self._restore, write, messages.RunIdRequest),
            ("POST", "log-model", self._log_model, write, messages.LogModelRequest),
            ("POST", "log-inputs", self._log_inputs, write, messages.LogInputsRequest),
            ("POST", "outputs", self._log_outputs, write, messages.LogOutputsRequest),
        ]
        return [
            route
            for method, name, handler, permission, message in table
            for route in json_routes(
                method,
                f"/runs/{name}",
                handler,
                permission=permission,
                message=message,
                prefixes=MLFLOW_AND_PREVIEW,
            )
        ]

    async def _create(self, call: Call, request: messages.CreateRunRequest) -> messages.RunAnswer:
        return messages.RunAnswer(await self._runs.create(request, call.origin))

    async def _get(self, call: Call, request: messages.GetRunRequest) -> messages.RunAnswer:
        run = await self._runs.get(request.named_run)
        if self._studio is not None and call.scope["path"].startswith(_AJAX):
            run = await self._studio.linked(run)
        return messages.RunAnswer(run)

    async def _search(self, call: Call, request: messages.SearchRunsRequest) -> bytearray:
        return await self._runs.search_json(request)

    async def _update(self, call: Call, request: messages.UpdateRunRequest) -> messages.UpdateRunAnswer:
        return messages.UpdateRunAnswer(
            messages.run_info_message(await self._runs.update(request, call.user))
        )

    async def _delete(self, call: Call, request: messages.RunIdRequest) -> None:
        await self._runs.delete(request.named_run, call.user)

    async def _restore(self, call: Call, request: messages.RunIdRequest) -> None:
        await self._runs.restore(request.named_run, call.user)

    async def _log_metric(self, call: Call, request: messages.LogMetricRequest) -> None:
        await self._runs.log_metric(request, call.user, call.size_bytes)

    async def _log_batch(self, call: Call, request: messages.LogBatchRequest) -> None:
        await self._runs.log_batch(request, call.user, call.size_bytes)

    async def _log_param(self, call: Call, request: messages.LogParamRequest) -> None:
        await self._runs.log_param(request, call.user)

    async def _set_tag(self, call: Call, request: messages.SetTagRequest) -> None:
        await self._runs.set_tag(request, call.user)

    async def _delete_tag(self, call: Call, request: messages.DeleteTagRequest) -> None:
        await self._runs.delete_tag(request, call.user)

    async def _log_model(self, call: Call, request: messages.LogModelRequest) -> None:
        await self._runs.log_model(request, call.user)

    async def _log_inputs(self, call: Call, request: messages.LogInputsRequest) -> None:
        await self._runs.log_inputs(request)

    async def _log_outputs(self, call: Call, request: messages.LogOutputsRequest) -> None:
        await self._runs.log_outputs(request)
