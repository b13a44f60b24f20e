"""Routes about evaluation datasets (MLflow 3)."""

from typing import Any

from server.api.endpoints import MLFLOW_3, Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.protocol import evaluation as messages
from server.protocol.wire import require
from server.services.evaluation import EvaluationDatasets


class EvaluationRoutes:
    """datasets/*."""

    def __init__(self, datasets: EvaluationDatasets) -> None:
        self._datasets = datasets

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read, write = Permission.READ, Permission.WRITE
        one, search = "/{dataset_id}", messages.SearchEvaluationDatasetsRequest
        experiments = messages.DatasetExperimentsRequest
        table: list[tuple[str, str, Handler, Permission, type[Any] | None]] = [
            ("POST", "/create", self._create, write, messages.CreateDatasetRequest),
            ("POST", "/search", self._search, read, search),
            ("GET", "/search", self._search, read, search),
            ("GET", one, self._get, read, None),
            ("DELETE", one, self._delete, write, None),
            ("PATCH", f"{one}/tags", self._set_tags, write, messages.DatasetTagsRequest),
            ("DELETE", f"{one}/tags/{{tag_key:path}}", self._delete_tag, write, None),
            ("POST", f"{one}/records", self._upsert_records, write, messages.UpsertRecordsRequest),
            ("GET", f"{one}/records", self._list_records, read, messages.ListRecordsRequest),
            ("DELETE", f"{one}/records", self._delete_records, write, messages.DeleteRecordsRequest),
            ("GET", f"{one}/experiment-ids", self._experiment_ids, read, None),
            ("POST", f"{one}/add-experiments", self._add_experiments, write, experiments),
            ("POST", f"{one}/remove-experiments", self._remove_experiments, write, experiments),
        ]
        return [
            route
            for method, path, handler, permission, message in table
            for route in json_routes(
                method,
                f"/datasets{path}",
                handler,
                permission=permission,
                message=message,
                prefixes=MLFLOW_3,
            )
        ]

    async def _create(self, call: Call, request: messages.CreateDatasetRequest) -> messages.DatasetAnswer:
        return messages.DatasetAnswer(await self._datasets.create(request, call.user))

    async def _get(self, call: Call, request: None) -> messages.DatasetAnswer:
        return messages.DatasetAnswer(await self._datasets.get(_dataset_id(call)))

    async def _delete(self, call: Call, request: None) -> None:
        await self._datasets.delete(_dataset_id(call))

    async def _search(
        self, call: Call, request: messages.SearchEvaluationDatasetsRequest
    ) -> messages.DatasetsAnswer:
        found, token = await self._datasets.search(request)
        return messages.DatasetsAnswer(found, token)

    async def _set_tags(self, call: Call, request: messages.DatasetTagsRequest) -> None:
        await self._datasets.set_tags(_dataset_id(call), require("tags", request.tags))

    async def _delete_tag(self, call: Call, request: None) -> None:
        await self._datasets.delete_tag(_dataset_id(call), call.path_params["tag_key"])

    async def _upsert_records(
        self, call: Call, request: messages.UpsertRecordsRequest
    ) -> messages.UpsertRecordsAnswer:
        return await self._datasets.upsert_records(_dataset_id(call), request.records, call.size_bytes)

    async def _list_records(self, call: Call, request: messages.ListRecordsRequest) -> messages.RecordsAnswer:
        return await self._datasets.list_records(_dataset_id(call), request)

    async def _delete_records(
        self, call: Call, request: messages.DeleteRecordsRequest
    ) -> messages.DeleteRecordsAnswer:
        deleted = await self._datasets.delete_records(_dataset_id(call), request.dataset_record_ids)
        return messages.DeleteRecordsAnswer(deleted)

    async def _experiment_ids(self, call: Call, request: None) -> messages.ExperimentIdsAnswer:
        return messages.ExperimentIdsAnswer(await self._datasets.experiment_ids(_dataset_id(call)))

    async def _add_experiments(
        self, call: Call, request: messages.DatasetExperimentsRequest
    ) -> messages.DatasetAnswer:
        return messages.DatasetAnswer(
            await self._datasets.add_experiments(_dataset_id(call), request.experiment_ids)
        )

    async def _remove_experiments(
        self, call: Call, request: messages.DatasetExperimentsRequest
    ) -> messages.DatasetAnswer:
        return messages.DatasetAnswer(
            await self._datasets.remove_experiments(_dataset_id(call), request.experiment_ids)
        )


def _dataset_id(call: Call) -> str:
    return call.path_params["dataset_id"]
