"""`/sync`: the operator's page, and what it asks for."""

from server.api.endpoints import OWN, Call, Endpoint, json_routes, stream_routes
from server.api.pages import send_page
from server.domain.access import Permission
from server.protocol import overview as messages
from server.services.delivery_history import DeliveryHistory
from server.services.delivery_overview import DeliveryOverview


class SyncRoutes:
    """/sync, and the two lists it shows."""

    def __init__(self, *, overview: DeliveryOverview, history: DeliveryHistory) -> None:
        self._overview = overview
        self._history = history

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read = Permission.READ
        return [
            *stream_routes("GET", ["/sync"], self._page, permission=read, is_page=True),
            *json_routes(
                "GET",
                "/runs",
                self._runs,
                permission=read,
                message=messages.ListDeliveriesRequest,
                prefixes=OWN,
            ),
            *json_routes("GET", "/history", self._samples, permission=read, prefixes=OWN),
        ]

    async def _page(self, call: Call) -> None:
        await send_page(call, "sync.html")

    async def _runs(self, call: Call, request: messages.ListDeliveriesRequest) -> messages.DeliveriesAnswer:
        return await self._overview.list_runs(request, call.principal.experiments)

    async def _samples(self, call: Call, _: None) -> messages.HistoryAnswer:
        return messages.HistoryAnswer(
            samples=[
                messages.SampleMessage(sample.time_ms, sample.lag_seconds, sample.pending, sample.parked)
                for sample in self._history.samples
            ]
        )
