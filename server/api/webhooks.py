"""Routes about webhooks. They make the server send to other hosts, so they are for administrators.

Under MLflow's prefixes they speak of MLflow's events; under this server's own, of those about runs besides.
"""

from collections.abc import Sequence
from typing import Any

from server.api.endpoints import MLFLOW_2, Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.protocol import webhooks as messages
from server.protocol.wire import missing_parameter, require
from server.services.webhooks import Webhooks


class WebhookRoutes:
    """webhooks and webhooks/*, under MLflow's prefixes or this server's own."""

    def __init__(self, webhooks: Webhooks, *, prefixes: Sequence[str] = MLFLOW_2) -> None:
        self._webhooks = webhooks
        self._prefixes = prefixes

    def routes(self) -> list[Endpoint]:
        """The route table."""
        table: list[tuple[str, str, Handler, type[Any] | None]] = [
            ("POST", "", self._create, messages.CreateWebhookRequest),
            ("GET", "", self._list, messages.ListWebhooksRequest),
            ("GET", "/{webhook_id}", self._get, None),
            ("PATCH", "/{webhook_id}", self._update, messages.UpdateWebhookRequest),
            ("DELETE", "/{webhook_id}", self._delete, None),
            ("POST", "/{webhook_id}/test", self._test, messages.TestWebhookRequest),
        ]
        return [
            route
            for method, path, handler, message in table
            for route in json_routes(
                method,
                f"/webhooks{path}",
                handler,
                permission=Permission.ADMIN,
                message=message,
                prefixes=self._prefixes,
            )
        ]

    async def _create(self, call: Call, request: messages.CreateWebhookRequest) -> messages.WebhookAnswer:
        require("name", request.name)
        require("url", request.url)
        if not request.events:
            raise missing_parameter("events")
        return messages.WebhookAnswer(await self._webhooks.create(request, call.user))

    async def _list(self, call: Call, request: messages.ListWebhooksRequest) -> messages.WebhooksAnswer:
        found, token = await self._webhooks.list_page(request)
        return messages.WebhooksAnswer(found, token)

    async def _get(self, call: Call, request: None) -> messages.WebhookAnswer:
        return messages.WebhookAnswer(await self._webhooks.get(_webhook_id(call)))

    async def _update(self, call: Call, request: messages.UpdateWebhookRequest) -> messages.WebhookAnswer:
        return messages.WebhookAnswer(await self._webhooks.update(_webhook_id(call), request))

    async def _delete(self, call: Call, request: None) -> None:
        await self._webhooks.delete(_webhook_id(call))

    async def _test(self, call: Call, request: messages.TestWebhookRequest) -> messages.TestWebhookAnswer:
        return messages.TestWebhookAnswer(await self._webhooks.test(_webhook_id(call), request.event))


def _webhook_id(call: Call) -> str:
    return call.path_params["webhook_id"]
