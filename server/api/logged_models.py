"""Routes about logged models (MLflow 3)."""

from typing import Any

from server.api.endpoints import Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.protocol import logged_models as messages
from server.protocol.wire import missing_parameter, require
from server.services.logged_models import LoggedModels


class LoggedModelRoutes:
    """logged-models and logged-models/*."""

    def __init__(self, logged_models: LoggedModels) -> None:
        self._models = logged_models

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read, write = Permission.READ, Permission.WRITE
        table: list[tuple[str, str, Handler, Permission, type[Any] | None]] = [
            ("POST", "", self._create, write, messages.CreateLoggedModelRequest),
            ("POST", "/search", self._search, read, messages.SearchLoggedModelsRequest),
            ("GET", "/{model_id}", self._get, read, messages.GetLoggedModelRequest),
            ("PATCH", "/{model_id}", self._finalize, write, messages.FinalizeLoggedModelRequest),
            ("DELETE", "/{model_id}", self._delete, write, None),
            ("PATCH", "/{model_id}/tags", self._set_tags, write, messages.LoggedModelTagsRequest),
            # A tag's key may hold slashes.
            ("DELETE", "/{model_id}/tags/{tag_key:path}", self._delete_tag, write, None),
            ("POST", "/{model_id}/params", self._log_params, write, messages.LoggedModelParamsRequest),
        ]
        return [
            route
            for method, path, handler, permission, message in table
            for route in json_routes(
                method, f"/logged-models{path}", handler, permission=permission, message=message
            )
        ]

    async def _create(
        self, call: Call, request: messages.CreateLoggedModelRequest
    ) -> messages.LoggedModelAnswer:
        require("experiment_id", request.experiment_id)
        return messages.LoggedModelAnswer(await self._models.create(request, call.origin))

    async def _search(
        self, call: Call, request: messages.SearchLoggedModelsRequest
    ) -> messages.LoggedModelsAnswer:
        if not request.experiment_ids:
            raise missing_parameter("experiment_ids")
        found, token = await self._models.search(request)
        return messages.LoggedModelsAnswer(found, token)

    async def _get(self, call: Call, request: messages.GetLoggedModelRequest) -> messages.LoggedModelAnswer:
        model = await self._models.get(call.path_params["model_id"], allow_deleted=request.allow_deleted)
        return messages.LoggedModelAnswer(model)

    async def _finalize(
        self, call: Call, request: messages.FinalizeLoggedModelRequest
    ) -> messages.LoggedModelAnswer:
        model = await self._models.finalize(call.path_params["model_id"], request.status)
        return messages.LoggedModelAnswer(model)

    async def _delete(self, call: Call, request: None) -> None:
        await self._models.delete(call.path_params["model_id"])

    async def _set_tags(self, call: Call, request: messages.LoggedModelTagsRequest) -> None:
        await self._models.set_tags(call.path_params["model_id"], request.tags)

    async def _delete_tag(self, call: Call, request: None) -> None:
        await self._models.delete_tag(call.path_params["model_id"], call.path_params["tag_key"])

    async def _log_params(self, call: Call, request: messages.LoggedModelParamsRequest) -> None:
        await self._models.log_params(call.path_params["model_id"], request.params)
