"""Routes about MLflow's workspaces."""

from server.api.endpoints import MLFLOW_3, Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.protocol import workspaces as messages
from server.services import workspaces


class WorkspaceRoutes:
    """workspaces and workspaces/*."""

    def routes(self) -> list[Endpoint]:
        """The route table."""
        one = "/{workspace_name}"
        table: list[tuple[str, str, Handler, Permission]] = [
            ("GET", "", self._list, Permission.READ),
            ("GET", one, self._get, Permission.READ),
            ("POST", "", self._refuse, Permission.ADMIN),
            ("PATCH", one, self._refuse, Permission.ADMIN),
            ("DELETE", one, self._refuse, Permission.ADMIN),
        ]
        return [
            route
            for method, path, handler, permission in table
            for route in json_routes(
                method, f"/workspaces{path}", handler, permission=permission, prefixes=MLFLOW_3
            )
        ]

    async def _list(self, call: Call, request: None) -> messages.WorkspacesAnswer:
        return messages.WorkspacesAnswer(workspaces.list_workspaces())

    async def _get(self, call: Call, request: None) -> messages.WorkspaceAnswer:
        return messages.WorkspaceAnswer(workspaces.get_workspace(call.path_params["workspace_name"]))

    async def _refuse(self, call: Call, request: None) -> None:
        raise workspaces.refuse()
