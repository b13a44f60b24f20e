"""Plain calls to an emulator, for what no Microsoft client would send."""

from typing import Any

import httpx

from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess

JsonObject = dict[str, Any]


class Api:
    """Speaks to the workspace with a fresh token; returns answers as they are."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        self.emulator = emulator
        self.http = httpx.Client(base_url=emulator.http_url, timeout=30, trust_env=False)
        self.sign_in()

    def sign_in(self) -> None:
        self.http.headers["Authorization"] = f"Bearer {self.emulator.token()}"

    def mlflow(self, method: str, operation: str, **arguments: Any) -> httpx.Response:
        path = f"/mlflow/v2.0{WORKSPACE_PATH}/api/2.0/mlflow/{operation}"
        if method == "GET":
            return self.http.get(path, params=arguments)
        return self.http.request(method, path, json=arguments)

    def post(self, operation: str, **arguments: Any) -> httpx.Response:
        return self.mlflow("POST", operation, **arguments)

    def get(self, operation: str, **arguments: Any) -> httpx.Response:
        return self.mlflow("GET", operation, **arguments)

    def history(
        self, method: str, path: str, body: JsonObject | None = None, /, **query: Any
    ) -> httpx.Response:
        return self.http.request(method, f"/history/v1.0{WORKSPACE_PATH}{path}", json=body, params=query)

    def metric(self, path: str, body: JsonObject) -> httpx.Response:
        return self.http.post(f"/metric/v2.0{WORKSPACE_PATH}{path}", json=body)

    def artifact(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.http.request(method, f"/artifact/v2.0{WORKSPACE_PATH}/artifacts{path}", **options)

    def experiment(self, name: str) -> str:
        return str(self.post("experiments/create", name=name).json()["experiment_id"])

    def run(self, experiment_id: str, **arguments: Any) -> str:
        answer = self.post("runs/create", experiment_id=experiment_id, **arguments)
        return str(answer.json()["run"]["info"]["run_id"])

    def reserve(self, run_id: str, *paths: str) -> JsonObject:
        """Reserve artifact paths of a run; returns the answer of `batch/metadata`."""
        body = {"paths": [{"path": path} for path in paths]}
        answer = self.history("POST", f"/runs/{run_id}/artifacts/batch/metadata", body)
        return dict(answer.json())

    def content_uri(self, run_id: str, path: str) -> str:
        """A write address for a new artifact."""
        return str(self.reserve(run_id, path)["artifactContentInformation"][path]["contentUri"])

    def read_uri(self, run_id: str, path: str) -> str:
        answer = self.history("GET", f"/runs/{run_id}/artifacts/contentinfo", path=path)
        return str(answer.json()["contentUri"])


def point(key: str, value: float | str = 1.0, timestamp: int = 1, step: int = 0) -> JsonObject:
    """A metric point as MLflow's REST has it."""
    return {"key": key, "value": value, "timestamp": timestamp, "step": step}


def message_of(answer: httpx.Response) -> str:
    """The text of a refusal by the MLflow facade."""
    return str(answer.json()["Error"]["Message"])
