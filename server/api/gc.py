"""The route that removes deleted runs for good; `mlproxy gc` calls it, a page at a time."""

from server.api.endpoints import OWN, Call, Endpoint, json_routes
from server.domain.access import Permission
from server.protocol import gc as messages
from server.services.gc import GarbageCollection


class GarbageCollectionRoutes:
    """/api/2.0/mlproxy/gc."""

    def __init__(self, collection: GarbageCollection) -> None:
        self._collection = collection

    def routes(self) -> list[Endpoint]:
        """The route table."""
        return json_routes(
            "POST",
            "/gc",
            self._collect,
            permission=Permission.ADMIN,
            message=messages.CollectRequest,
            prefixes=OWN,
        )

    async def _collect(self, call: Call, request: messages.CollectRequest) -> messages.CollectAnswer:
        return await self._collection.collect(request, call.operator)
