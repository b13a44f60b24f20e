"""Routes of parked entries: list, show, retry, drop."""

from server.api.endpoints import OWN, Call, Endpoint, json_routes
from server.domain.access import Permission
from server.domain.errors import does_not_exist
from server.protocol import parked as messages
from server.services.parked import Parked

_LARGEST_ID = 2**63 - 1


class ParkedRoutes:
    """/api/2.0/mlproxy/parked*."""

    def __init__(self, parked: Parked) -> None:
        self._parked = parked

    def routes(self) -> list[Endpoint]:
        """The route table."""
        admin = Permission.ADMIN
        decide = messages.DecideRequest
        return [
            *json_routes(
                "GET",
                "/parked",
                self._list,
                permission=admin,
                message=messages.ListParkedRequest,
                prefixes=OWN,
            ),
            *json_routes("GET", "/parked/{parked_id}", self._get, permission=admin, prefixes=OWN),
            *json_routes(
                "POST", "/parked/retry", self._retry, permission=admin, message=decide, prefixes=OWN
            ),
            *json_routes("POST", "/parked/drop", self._drop, permission=admin, message=decide, prefixes=OWN),
        ]

    async def _list(self, call: Call, request: messages.ListParkedRequest) -> messages.ParkedAnswer:
        return await self._parked.list_entries(request)

    async def _get(self, call: Call, _: None) -> messages.ParkedDetailAnswer:
        text = call.path_params["parked_id"]
        if not (text.isascii() and text.isdigit() and int(text) <= _LARGEST_ID):
            raise does_not_exist(f"There is no parked entry '{text}'.")
        return await self._parked.get(int(text))

    async def _retry(self, call: Call, request: messages.DecideRequest) -> messages.RetryAnswer:
        return await self._parked.retry(request, call.operator)

    async def _drop(self, call: Call, request: messages.DecideRequest) -> messages.DropAnswer:
        return await self._parked.drop(request, call.operator)
