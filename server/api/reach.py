"""What each route reaches: the experiments, or what belongs to one, that its request names.

A key may be limited to some experiments. Such a key is let through only where this table says how to find
out what a request is about; a route that is not in it is closed to it. Both prefixes of a call, and the one
for clients of 1.x, share one entry.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from server.api import reach_rules as rules
from server.api.endpoints import Call, ReachCheck
from server.api.reach_rules import Reach
from server.domain.access import Permission
from server.domain.errors import ErrorCode, MlflowError
from server.domain.name_patterns import NamePatterns
from server.domain.named import Named

_PREFIX = re.compile(r"/(?:ajax-)?api/(?P<version>[23]\.0)/(?:preview/)?")


class Judge(Protocol):
    """Knows where things belong."""

    async def require_within(self, patterns: NamePatterns, named: Iterable[Named]) -> None:
        """Refuse what is in no experiment of such a name."""
        ...


class ExperimentLimits:
    """Holds limited keys to their experiments."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def check_of(self, method: str, path: str, patterns: NamePatterns) -> ReachCheck:
        """What a request to this route (its pattern, not its path) must pass before it is served.

        Raises:
            MlflowError: no limited key may use the route.
        """
        reach = find_reach(method, path)
        if reach is None:
            raise MlflowError(
                ErrorCode.PERMISSION_DENIED,
                f"Your key is limited to experiments named {patterns}; this call is not for such keys.",
            )
        return partial(self._check, reach, patterns)

    async def _check(self, reach: Reach, patterns: NamePatterns, call: Call, message: Any) -> None:
        await self._judge.require_within(patterns, reach(call, message))


def find_reach(method: str, path: str) -> Reach | None:
    """The table's entry for a route; None where limited keys have no business."""
    return _TABLE.get(route_key(method, path))


def route_key(method: str, path: str) -> str:
    """A route as the table names it: all spellings of one call are the same."""
    if method == "HEAD":
        method = "GET"
    return f"{method} {_PREFIX.sub(lambda found: found['version'] + '/', path, count=1)}"


# --- the table ------------------------------------------------------------------------------


def _under(prefix: str, entries: Mapping[str, Reach | None]) -> dict[str, Reach | None]:
    """Entries `METHOD path`, their paths below a prefix."""
    found = {}
    for entry, reach in entries.items():
        method, _, path = entry.partition(" ")
        found[f"{method} {prefix}{path}"] = reach
    return found


_CLOSED = None
"""Written down, so that a route that was forgotten can be told from one that is closed on purpose."""

_TABLE: dict[str, Reach | None] = {
    **_under(
        "2.0/mlflow/runs/",
        {
            "POST log-metric": rules.run_and_model,
            "POST log-batch": rules.run_and_models_of_metrics,
            "POST log-parameter": rules.run,
            "POST set-tag": rules.run,
            "POST delete-tag": rules.run,
            "POST create": rules.new_run,
            "POST update": rules.run,
            "GET get": rules.run,
            "POST search": rules.searched_experiments,
            "POST delete": rules.run,
            "POST restore": rules.run,
            "POST log-model": rules.run,
            "POST log-inputs": rules.run_and_linked_models,
            "POST outputs": rules.run_and_linked_models,
        },
    ),
    **_under(
        "2.0/mlflow/metrics/",
        {
            "GET get-history": rules.run,
            "GET get-history-bulk": rules.runs_of_bulk,
            "GET get-history-bulk-interval": rules.runs_of_interval,
        },
    ),
    **_under(
        "2.0/mlflow/experiments/",
        {
            "POST search-datasets": rules.some_experiments,
            "POST create": rules.new_experiment,
            "GET get": rules.experiment,
            "GET get-by-name": rules.experiment_name,
            "POST search": rules.nothing,  # filtered
            "GET search": rules.nothing,
            "GET list": rules.nothing,
            "POST update": rules.renamed_experiment,
            "POST delete": rules.experiment,
            "POST restore": rules.experiment,
            "POST set-experiment-tag": rules.experiment,
            "POST delete-experiment-tag": rules.experiment,
        },
    ),
    **_under(
        "2.0/mlflow-artifacts/",
        {
            "GET artifacts": rules.folder,
            "GET artifacts/{artifact_path:path}": rules.artifact,
            "PUT artifacts/{artifact_path:path}": rules.artifact,
            "DELETE artifacts/{artifact_path:path}": rules.artifact,
            "POST mpu/create/{artifact_path:path}": rules.uploaded_to("mpu/create"),
            "POST mpu/complete/{artifact_path:path}": rules.uploaded_to("mpu/complete"),
            "POST mpu/abort/{artifact_path:path}": rules.uploaded_to("mpu/abort"),
            "GET presigned/{artifact_path:path}": rules.presigned_artifact,
        },
    ),
    **_under(
        "2.0/mlflow/",
        {
            "GET artifacts/list": rules.run,
            "GET get-artifact": rules.run_of_file,
            "POST upload-artifact": rules.run_of_file,
            "GET model-versions/get-artifact": rules.version_of_file,
            "POST artifacts/presigned-download-url": rules.run,
            "POST artifacts/presigned-upload-url": _CLOSED,
        },
    ),
    "GET /get-artifact": rules.run_of_file,
    "GET /model-versions/get-artifact": rules.version_of_file,
    # The registry is a catalogue that everyone reads; its files belong to their experiments.
    **_under(
        "2.0/mlflow/registered-models/",
        {
            "GET get": rules.nothing,
            "GET search": rules.nothing,
            "POST search": rules.nothing,
            "GET list": rules.nothing,
            "GET get-latest-versions": rules.nothing,
            "POST get-latest-versions": rules.nothing,
            "GET alias": rules.nothing,
            "POST create": rules.nothing,
            "POST rename": _CLOSED,
            "PATCH update": _CLOSED,
            "DELETE delete": _CLOSED,
            "POST set-tag": _CLOSED,
            "DELETE delete-tag": _CLOSED,
            "POST alias": _CLOSED,
            "DELETE alias": _CLOSED,
        },
    ),
    **_under(
        "2.0/mlflow/model-versions/",
        {
            "GET get": rules.nothing,
            "GET search": rules.nothing,
            "GET get-download-uri": rules.nothing,
            "POST create": rules.new_version,
            "PATCH update": rules.version,
            "DELETE delete": rules.version,
            "POST set-tag": rules.version,
            "DELETE delete-tag": rules.version,
            "POST transition-stage": _CLOSED,  # it archives the versions of others
        },
    ),
    **_under(
        "2.0/mlflow/logged-models",
        {
            "POST ": rules.new_logged_model,
            "POST /search": rules.some_experiments,
            "GET /{model_id}": rules.logged_model,
            "PATCH /{model_id}": rules.logged_model,
            "DELETE /{model_id}": rules.logged_model,
            "PATCH /{model_id}/tags": rules.logged_model,
            "DELETE /{model_id}/tags/{tag_key:path}": rules.logged_model,
            "POST /{model_id}/params": rules.logged_model,
            "GET /{model_id}/artifacts/directories": rules.logged_model,
            "GET /{model_id}/artifacts/files": rules.logged_model,
        },
    ),
    "POST /v1/traces": rules.spans,
    **_under(
        "3.0/mlflow/traces",
        {
            "POST ": rules.new_trace,
            "POST /search": rules.trace_locations,
            "GET /get": rules.trace,
            "GET /batchGet": rules.traces,
            "POST /batchGetInfos": rules.traces,
            "POST /metrics": rules.some_experiments,
            "POST /calculate-filter-correlation": rules.some_experiments,
            "GET /{trace_id}": rules.trace_in_path,
            "POST /{trace_id}/assessments": rules.trace_in_path,
            "GET /{trace_id}/assessments/{assessment_id}": rules.trace_in_path,
            "PATCH /{trace_id}/assessments/{assessment_id}": rules.trace_in_path,
            "DELETE /{trace_id}/assessments/{assessment_id}": rules.trace_in_path,
            "POST /delete-traces": rules.experiment,
            "PATCH /{trace_id}/tags": rules.trace_in_path,
            "DELETE /{trace_id}/tags": rules.trace_in_path,
        },
    ),
    **_under(
        "2.0/mlflow/traces",
        {
            "POST ": rules.experiment,
            "GET ": rules.some_experiments,
            "POST /link-to-run": rules.traces_and_run,
            "POST /link-prompts": rules.trace,
            "PATCH /{trace_id}": rules.trace_in_path,
            "GET /{trace_id}/info": rules.trace_in_path,
            "POST /delete-traces": rules.experiment,
            "PATCH /{trace_id}/tags": rules.trace_in_path,
            "DELETE /{trace_id}/tags": rules.trace_in_path,
        },
    ),
    "GET 2.0/mlflow/get-trace-artifact": rules.trace_of_file,
    "GET 3.0/mlflow/get-trace-artifact": rules.trace_of_file,
    **_under(
        "3.0/mlflow/datasets/",
        {
            "POST create": rules.some_experiments,
            "POST search": rules.some_experiments,
            "GET search": rules.some_experiments,
            "GET {dataset_id}": rules.dataset,
            "DELETE {dataset_id}": rules.dataset,
            "PATCH {dataset_id}/tags": rules.dataset,
            "DELETE {dataset_id}/tags/{tag_key:path}": rules.dataset,
            "POST {dataset_id}/records": rules.dataset,
            "GET {dataset_id}/records": rules.dataset,
            "DELETE {dataset_id}/records": rules.dataset,
            "GET {dataset_id}/experiment-ids": rules.dataset,
            "POST {dataset_id}/add-experiments": rules.dataset_and_experiments,
            "POST {dataset_id}/remove-experiments": rules.dataset_and_experiments,
        },
    ),
    **_under(
        "3.0/mlflow/scorers/",
        {
            "POST register": rules.experiment,
            "GET list": rules.scorers,
            "GET versions": rules.experiment,
            "GET get": rules.experiment,
            "DELETE delete": rules.experiment,
            "GET online-configs": rules.nothing,
            "PUT online-config": rules.experiment,
        },
    ),
    **_under(
        "2.0/mlproxy/",
        {
            "GET status": rules.nothing,
            "GET me": rules.nothing,
            "GET history": rules.nothing,
            "GET runs": rules.nothing,  # filtered
            "GET runs/{run_id}": rules.run_in_path,
            "GET verify/{run_id}": rules.run_in_path,
            "GET models/{name}": rules.nothing,
        },
    ),
    "POST /graphql": rules.graphql,
    # What shows nothing of any experiment.
    "GET /": rules.nothing,
    "GET /static-files/{name:path}": rules.nothing,
    "GET /sync": rules.nothing,
    "GET /metrics": rules.nothing,
    "GET /openapi.json": rules.nothing,
    "GET /health/upstream": rules.nothing,
    "POST /logout": rules.nothing,
    "GET 2.0/mlflow/gateway-proxy": rules.nothing,
    "POST 2.0/mlflow/gateway-proxy": rules.nothing,
    **_under(
        "3.0/mlflow/",
        {
            "GET server-info": rules.nothing,
            "GET workspaces": rules.nothing,
            "GET workspaces/{workspace_name}": rules.nothing,
            "GET ui-telemetry": rules.nothing,
            "POST ui-telemetry": rules.nothing,
            "POST issues/search": rules.nothing,
            "GET label-schemas/list": rules.nothing,
            "GET mcp-servers": rules.nothing,
            "GET review-queues/list": rules.nothing,
            "GET skills": rules.nothing,
        },
    ),
}


def is_declared(method: str, path: str, permission: Permission) -> bool:
    """Whether the table knows the route. Limited keys are never an admin's; who is unknown has no limit."""
    return permission in (Permission.ADMIN, Permission.PUBLIC) or route_key(method, path) in _TABLE
