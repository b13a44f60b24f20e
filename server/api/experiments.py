"""Routes about experiments."""

from typing import Any

from server.api.endpoints import MLFLOW_AND_PREVIEW, Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.protocol import experiments as messages
from server.protocol import paging
from server.protocol.wire import require
from server.services.experiments import Experiments
from server.services.runs import parse_view


class ExperimentRoutes:
    """experiments/*."""

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read, write = Permission.READ, Permission.WRITE
        table: list[tuple[str, str, Handler, Permission, type[Any]]] = [
            ("POST", "create", self._create, write, messages.CreateExperimentRequest),
            ("GET", "get", self._get, read, messages.ExperimentRequest),
            ("GET", "get-by-name", self._get_by_name, read, messages.ExperimentByNameRequest),
            ("POST", "search", self._search, read, messages.SearchExperimentsRequest),
            ("GET", "search", self._search, read, messages.SearchExperimentsRequest),
            ("GET", "list", self._search, read, messages.SearchExperimentsRequest),
            ("POST", "update", self._update, write, messages.UpdateExperimentRequest),
            ("POST", "delete", self._delete, write, messages.ExperimentRequest),
            ("POST", "restore", self._restore, write, messages.ExperimentRequest),
            ("POST", "set-experiment-tag", self._set_tag, write, messages.SetExperimentTagRequest),
            ("POST", "delete-experiment-tag", self._delete_tag, write, messages.DeleteExperimentTagRequest),
        ]
        return [
            route
            for method, name, handler, permission, message in table
            for route in json_routes(
                method,
                f"/experiments/{name}",
                handler,
                permission=permission,
                message=message,
                prefixes=MLFLOW_AND_PREVIEW,
            )
        ]

    async def _create(
        self, call: Call, request: messages.CreateExperimentRequest
    ) -> messages.CreateExperimentAnswer:
        tags = [(tag.key, tag.value) for tag in request.tags]
        name = require("name", request.name)
        experiment_id = await self._experiments.create(name, request.artifact_location, tags, call.origin)
        return messages.CreateExperimentAnswer(str(experiment_id))

    async def _get(self, call: Call, request: messages.ExperimentRequest) -> messages.ExperimentAnswer:
        experiment = await self._experiments.get(require("experiment_id", request.experiment_id))
        return messages.ExperimentAnswer(messages.experiment_message(experiment))

    async def _get_by_name(
        self, call: Call, request: messages.ExperimentByNameRequest
    ) -> messages.ExperimentAnswer:
        experiment = await self._experiments.get_by_name(require("experiment_name", request.experiment_name))
        return messages.ExperimentAnswer(messages.experiment_message(experiment))

    async def _search(
        self, call: Call, request: messages.SearchExperimentsRequest
    ) -> messages.ExperimentsAnswer:
        page = await self._experiments.search(
            filter_text=request.filter,
            order_by=request.order_by,
            view=parse_view(request.view_type),
            max_results=request.max_results,
            page_token=request.page_token,
            visible=call.principal.experiments,
        )
        token = None if page.next_offset is None else paging.encode_offset(page.next_offset)
        return messages.ExperimentsAnswer([messages.experiment_message(item) for item in page.items], token)

    async def _update(self, call: Call, request: messages.UpdateExperimentRequest) -> None:
        experiment_id = require("experiment_id", request.experiment_id)
        await self._experiments.rename(experiment_id, require("new_name", request.new_name))

    async def _delete(self, call: Call, request: messages.ExperimentRequest) -> None:
        await self._experiments.delete(require("experiment_id", request.experiment_id), call.user)

    async def _restore(self, call: Call, request: messages.ExperimentRequest) -> None:
        await self._experiments.restore(require("experiment_id", request.experiment_id), call.user)

    async def _set_tag(self, call: Call, request: messages.SetExperimentTagRequest) -> None:
        await self._experiments.set_tag(
            require("experiment_id", request.experiment_id),
            require("key", request.key),
            request.value or "",
            call.user,
        )

    async def _delete_tag(self, call: Call, request: messages.DeleteExperimentTagRequest) -> None:
        await self._experiments.delete_tag(
            require("experiment_id", request.experiment_id), require("key", request.key)
        )
