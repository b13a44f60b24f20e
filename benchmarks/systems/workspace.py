"""The workspace emulator, for measurements with delivery running."""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT
from benchmarks.systems.process import ServerProcess, free_port

_WORKSPACE = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/emulator"
    "/providers/Microsoft.MachineLearningServices/workspaces/emulator"
)
_TIMEOUT_SECONDS = 60.0


class Workspace:
    """One running emulator. Leave it with `stop`."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = [sys.executable, "-m", "emulator", "--host", "127.0.0.1", "--port", str(port)]
        self.process = ServerProcess(
            name="emulator",
            command=[*command, "--data-dir", str(folder / "data")],
            folder=folder,
            port=port,
            environment={"PYTHONPATH": str(ROOT)},
            health="/emulator/settings",
        )
        self.process.start()

    def settings(self) -> dict[str, str]:
        """What makes a proxy deliver to it."""
        return {
            "MLPROXY_WORKSPACE": f"azureml://127.0.0.1:{self.process.port}/mlflow/v1.0{_WORKSPACE}",
            "MLPROXY_CREDENTIAL": "managed-identity",
            "IDENTITY_ENDPOINT": f"{self.process.url}/msi/token",
            "IDENTITY_HEADER": "emulator",
        }

    def delay_answers(self, seconds: float) -> None:
        """Make every answer late, as that of a workspace far away."""
        self._ask("POST", "/emulator/faults", {"match": ".*", "effect": "delay", "delay_seconds": seconds})

    def lift_limits(self) -> None:
        """Let runs hold more tags and metrics than the service allows: the load is not to meet refusals."""
        limits = {"metric_names_per_run": 10_000, "tags_per_run": 10_000, "params_per_run": 10_000}
        self._ask("POST", "/emulator/settings", {"limits": limits | {"metric_rows_per_name": 10**9}})

    def calls(self) -> int:
        """How many calls have come so far."""
        counts: dict[str, int] = self._ask("GET", "/emulator/calls/summary")["counts"]
        return sum(counts.values())

    def forget_calls(self) -> None:
        """Count anew."""
        self._ask("DELETE", "/emulator/calls")

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def _ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.process.url}{path}",
            method=method,
            data=None if document is None else json.dumps(document).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            return dict(json.loads(answer.read() or b"{}"))
