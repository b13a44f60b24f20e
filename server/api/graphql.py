"""/graphql, as far as the stock UI asks it: four queries, each known by its name.

The query's text is never interpreted, so that no query can ask for more work than these do; each is
answered with all the fields that the UI has a use for.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from server.api.endpoints import Call, Endpoint, read_body, stream_routes
from server.api.errors import send_json
from server.domain.access import Permission
from server.domain.errors import MlflowError
from server.protocol import graphql as messages
from server.protocol.experiments import experiment_message
from server.protocol.graphql import GraphQLRequest, JsonObject
from server.protocol.metrics import MetricHistoryBulkIntervalRequest
from server.protocol.registry import ModelVersionMessage
from server.protocol.registry import SearchRegistryRequest as SearchVersionsRequest
from server.protocol.runs import RunMessage, SearchRunsRequest
from server.protocol.wire import Decoder, RunRequest, encode
from server.services.experiments import Experiments
from server.services.metrics import Metrics
from server.services.registry import Registry
from server.services.runs import Runs
from server.services.studio import StudioLinks

Operation = Callable[[GraphQLRequest], Awaitable[JsonObject]]

_LARGEST_REQUEST = 256 * 1024
_MOST_RUNS = 100
_MOST_VERSIONS = 1_000


class GraphQLRoutes:
    """POST /graphql."""

    def __init__(
        self,
        *,
        runs: Runs,
        experiments: Experiments,
        registry: Registry,
        metrics: Metrics,
        studio: StudioLinks,
    ) -> None:
        self._runs = runs
        self._experiments = experiments
        self._registry = registry
        self._metrics = metrics
        self._studio = studio
        self._decoder = Decoder(GraphQLRequest)
        self._operations: dict[str, Operation] = {
            "MlflowGetExperimentQuery": self._get_experiment,
            "GetRun": self._get_run,
            "SearchRuns": self._search_runs,
            "GetMetricHistoryBulkInterval": self._get_metric_history,
        }

    def routes(self) -> list[Endpoint]:
        """The route table."""
        return stream_routes("POST", ["/graphql"], self._answer, permission=Permission.READ)

    async def _answer(self, call: Call) -> None:
        request: GraphQLRequest = self._decoder.from_body(await read_body(call, _LARGEST_REQUEST))
        operation = self._operations.get(request.named_operation)
        if operation is None:
            await _refuse(call, f"The server does not know the operation '{request.named_operation}'.")
            return
        try:
            await call.check_reach(request)
            data = await operation(request)
        except msgspec.ValidationError as error:
            await _refuse(call, f"The variables do not fit: {error}")
            return
        await send_json(call.send, encode({"data": data, "errors": None}))

    # --- operations ---

    async def _get_experiment(self, request: GraphQLRequest) -> JsonObject:
        wanted: messages.ExperimentInput = messages.parse_input(request, "input", messages.ExperimentInput)
        found = failure = None
        try:
            found = await self._experiment(wanted.experiment_id)
        except MlflowError as error:
            failure = error
        content = {"experiment": found}
        return {"mlflowGetExperiment": messages.response("MlflowGetExperimentResponse", content, failure)}

    async def _get_run(self, request: GraphQLRequest) -> JsonObject:
        wanted: messages.RunInput = messages.parse_input(request, "data", messages.RunInput)
        named = RunRequest(run_id=wanted.run_id, run_uuid=wanted.run_uuid)
        found = failure = None
        try:
            message = await self._studio.linked(await self._runs.get(named.named_run))
            [found] = await self._with_relatives([message])
        except MlflowError as error:
            failure = error
        return {"mlflowGetRun": messages.response("MlflowGetRunResponse", {"run": found}, failure)}

    async def _search_runs(self, request: GraphQLRequest) -> JsonObject:
        wanted: messages.SearchRunsInput = messages.parse_input(request, "data", messages.SearchRunsInput)
        limit = _MOST_RUNS if wanted.max_results is None else min(wanted.max_results, _MOST_RUNS)
        content: JsonObject = {"runs": [], "nextPageToken": None}
        failure = None
        try:
            found, token = await self._runs.search(
                SearchRunsRequest(
                    experiment_ids=wanted.experiment_ids or [],
                    filter=wanted.filter,
                    run_view_type=wanted.run_view_type,
                    max_results=limit,
                    order_by=wanted.order_by or [],
                    page_token=wanted.page_token,
                )
            )
            content = {"runs": await self._with_relatives(found), "nextPageToken": token}
        except MlflowError as error:
            failure = error
        return {"mlflowSearchRuns": messages.response("MlflowSearchRunsResponse", content, failure)}

    async def _get_metric_history(self, request: GraphQLRequest) -> JsonObject:
        wanted: messages.MetricHistoryInput = messages.parse_input(
            request, "data", messages.MetricHistoryInput
        )
        points: list[JsonObject] = []
        failure = None
        try:
            found = await self._metrics.history_bulk_interval(
                MetricHistoryBulkIntervalRequest(
                    run_ids=wanted.run_ids or [],
                    metric_key=wanted.metric_key or "",
                    start_step=wanted.start_step,
                    end_step=wanted.end_step,
                    max_results=wanted.max_results,
                )
            )
            points = [messages.metric_with_run(point) for point in found.metrics]
        except MlflowError as error:
            failure = error
        answer = messages.response("MlflowGetMetricHistoryBulkIntervalResponse", {"metrics": points}, failure)
        return {"mlflowGetMetricHistoryBulkInterval": answer}

    # --- what belongs to a run ---

    async def _with_relatives(self, found: Sequence[RunMessage]) -> list[JsonObject]:
        """The runs, each with its experiment and its model versions."""
        if not found:
            return []
        experiments = {id_: await self._experiment(id_) for id_ in {run.info.experiment_id for run in found}}
        versions = await self._versions_by_run([run.info.run_id for run in found])
        return [
            messages.run(run, experiments[run.info.experiment_id], versions.get(run.info.run_id, ()))
            for run in found
        ]

    async def _experiment(self, experiment_id: str) -> JsonObject:
        return messages.experiment(experiment_message(await self._experiments.get(experiment_id)))

    async def _versions_by_run(self, run_ids: Sequence[str]) -> dict[str, list[ModelVersionMessage]]:
        names = ", ".join(f"'{run_id}'" for run_id in run_ids)
        wanted = SearchVersionsRequest(filter=f"run_id IN ({names})", max_results=_MOST_VERSIONS)
        found, _ = await self._registry.search_versions(wanted)
        versions: dict[str, list[ModelVersionMessage]] = {}
        for version in found:
            versions.setdefault(version.run_id or "", []).append(version)
        return versions


async def _refuse(call: Call, message: str) -> None:
    await send_json(call.send, encode({"data": None, "errors": [{"message": message}]}), status=400)
