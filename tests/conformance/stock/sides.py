"""One client version, run once against the proxy and once against a stock server, side by side."""

import json
import time
from pathlib import Path
from typing import Any

from tests.conformance.stock.stock_server import StockServer
from tests.support.interpreters import client_python, start_client
from tests.support.server import ServerProcess

CLIENT_TIMEOUT_SECONDS = 900.0
_SCRIPT = "flows/run.py"
_CLIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # Clients write sets down as they come: in the same order on both sides.
    "PYTHONHASHSEED": "0",
}

Record = dict[str, Any]


def run_both(client: str, folder: Path, flows: list[str] | None = None) -> tuple[Record, Record]:
    """What the client recorded against the proxy, and against the stock server."""
    python = client_python(client)
    started_ms = int(time.time() * 1000)
    with StockServer(folder / "stock-server") as stock, ServerProcess.start(folder / "proxy-server") as proxy:
        started = []
        try:
            for side, url in (("proxy", proxy.url), ("stock", stock.url)):
                if side == "stock":
                    stock.wait_until_ready()
                environment = {**_CLIENT, "MLFLOW_TRACKING_URI": url}
                arguments = [str(folder / f"{side}.json"), *(flows or [])]
                started.append(start_client(python, _SCRIPT, *arguments, folder=folder / side, **environment))
            deadline = time.monotonic() + CLIENT_TIMEOUT_SECONDS
            codes = [process.wait(max(1.0, deadline - time.monotonic())) for process in started]
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
    for side, code in zip(("proxy", "stock"), codes, strict=True):
        said = (folder / side / "client.log").read_text()[-4000:]
        assert code == 0, f"the client of the {side} ended with {code}:\n{said}"
    proxy_record, stock_record = (
        json.loads((folder / f"{side}.json").read_text()) for side in ("proxy", "stock")
    )
    # Both servers made their first experiment before the clients started.
    return proxy_record | {"started_ms": started_ms}, stock_record | {"started_ms": started_ms}
