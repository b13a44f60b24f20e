"""Routes about scorers (MLflow 3)."""

from typing import Any

from server.api.endpoints import MLFLOW_3, Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.domain.errors import ErrorCode, MlflowError
from server.protocol import scorers as messages
from server.protocol.wire import require
from server.services.scorers import Scorers


class ScorerRoutes:
    """scorers/*."""

    def __init__(self, scorers: Scorers) -> None:
        self._scorers = scorers

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read, write = Permission.READ, Permission.WRITE
        table: list[tuple[str, str, Handler, Permission, type[Any]]] = [
            ("POST", "register", self._register, write, messages.RegisterScorerRequest),
            ("GET", "list", self._list, read, messages.ListScorersRequest),
            ("GET", "versions", self._versions, read, messages.ScorerRequest),
            ("GET", "get", self._get, read, messages.ScorerRequest),
            ("DELETE", "delete", self._delete, write, messages.ScorerRequest),
            ("GET", "online-configs", self._online_configs, read, messages.OnlineConfigsRequest),
            ("PUT", "online-config", self._refuse_online, write, messages.ScorerRequest),
        ]
        return [
            route
            for method, name, handler, permission, message in table
            for route in json_routes(
                method,
                f"/scorers/{name}",
                handler,
                permission=permission,
                message=message,
                prefixes=MLFLOW_3,
            )
        ]

    async def _register(
        self, call: Call, request: messages.RegisterScorerRequest
    ) -> messages.RegisterScorerAnswer:
        require("experiment_id", request.experiment_id)
        require("name", request.name)
        require("serialized_scorer", request.serialized_scorer)
        return await self._scorers.register(request, call.user)

    async def _list(self, call: Call, request: messages.ListScorersRequest) -> messages.ScorersAnswer:
        return messages.ScorersAnswer(await self._scorers.list_latest(request))

    async def _versions(self, call: Call, request: messages.ScorerRequest) -> messages.ScorersAnswer:
        return messages.ScorersAnswer(await self._scorers.list_versions(_named(request)))

    async def _get(self, call: Call, request: messages.ScorerRequest) -> messages.ScorerAnswer:
        return messages.ScorerAnswer(await self._scorers.get(_named(request)))

    async def _delete(self, call: Call, request: messages.ScorerRequest) -> None:
        await self._scorers.delete(_named(request))

    async def _online_configs(
        self, call: Call, request: messages.OnlineConfigsRequest
    ) -> messages.OnlineConfigsAnswer:
        return messages.OnlineConfigsAnswer()

    async def _refuse_online(self, call: Call, request: messages.ScorerRequest) -> None:
        raise MlflowError(ErrorCode.NOT_IMPLEMENTED, "This server does not run scorers on traces.")


def _named(request: messages.ScorerRequest) -> messages.ScorerRequest:
    require("experiment_id", request.experiment_id)
    require("name", request.name)
    return request
