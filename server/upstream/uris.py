"""The workspace's `azureml://` addresses of run artifacts, made and read."""

import re
from urllib.parse import unquote

from server.upstream.segments import checked_artifact_path, checked_run_id

_SCHEME = "azureml://"
_RUN = r"(?P<run>[^/]+)"
_PATH = r"(?:/(?P<path>.*))?"
_FORMS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"artifacts/ExperimentRun/dcid\.{_RUN}{_PATH}",
        rf"(?:.+?/)?experiments/[^/]+/runs/{_RUN}(?:/artifacts{_PATH})?",
        rf"jobs/{_RUN}/outputs/artifacts(?:/paths)?{_PATH}",
        rf"(?:.+?/)?datastores/workspaceartifactstore/paths/ExperimentRun/dcid\.{_RUN}{_PATH}",
    )
)


def run_artifact_source(run_id: str, path: str) -> str:
    """Where the workspace finds an artifact of a run (or, with an empty path, all of them)."""
    source = f"azureml://artifacts/ExperimentRun/dcid.{checked_run_id(run_id)}"
    return f"{source}/{checked_artifact_path(path)}" if path else source


def parse_run_artifact(uri: str) -> tuple[str, str] | None:
    """The run id and path that an `azureml://` address means; `None` when it is not a run's artifact.

    Read are: a run's `artifact_uri` in its v1 and v2 forms (with or without host), `artifacts/ExperimentRun`,
    a job's `outputs/artifacts`, and the artifact datastore. The path may be empty.
    """
    if not uri.lower().startswith(_SCHEME):
        return None
    rest = uri[len(_SCHEME) :].partition("?")[0].rstrip("/")
    for form in _FORMS:
        match = form.fullmatch(rest)
        if match is not None:
            return unquote(match.group("run")), (match.group("path") or "").strip("/")
    return None
