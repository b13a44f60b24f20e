"""The few calls that set up a measurement, on any server that speaks MLflow's REST interface."""

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

_TIMEOUT_SECONDS = 120.0
_API = "/api/2.0/mlflow"

JsonObject = dict[str, Any]


class ApiError(Exception):
    """A server refused a call."""


class TrackingApi:
    """Blocking calls, one connection each: for set-up, never for what is measured."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._headers = dict(headers)

    def ask(self, method: str, path: str, document: JsonObject | None = None) -> JsonObject:
        """The answer's document.

        Raises:
            ApiError: the server refused.
        """
        connection = http.client.HTTPConnection(*self._address, timeout=_TIMEOUT_SECONDS)
        headers = self._headers | ({"Content-Type": "application/json"} if document is not None else {})
        try:
            connection.request(method, path, None if document is None else json.dumps(document), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(f"{method} {path}: {answer.status} {body[:300].decode(errors='replace')}")
        return dict(json.loads(body or b"{}"))

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, made where there is none."""
        try:
            return str(self.ask("POST", f"{_API}/experiments/create", {"name": name})["experiment_id"])
        except ApiError:
            found = self.ask("GET", f"{_API}/experiments/get-by-name?experiment_name={quote(name)}")
            return str(found["experiment"]["experiment_id"])

    def create_run(self, experiment_id: str, name: str) -> JsonObject:
        """A new run's `info`."""
        document = {"experiment_id": experiment_id, "run_name": name, "start_time": 1_700_000_000_000}
        return dict(self.ask("POST", f"{_API}/runs/create", document)["run"]["info"])

    def create_runs(self, experiment_name: str, count: int) -> list[str]:
        """The ids of new runs in an experiment."""
        experiment_id = self.experiment(experiment_name)
        return [str(self.create_run(experiment_id, f"run-{index}")["run_id"]) for index in range(count)]
