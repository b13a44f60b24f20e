"""What a training loop feels: the stock Python client's `log_metric`, call after call."""

import json
import subprocess
from pathlib import Path

from benchmarks.bench import Bench, rotated
from benchmarks.results import Figures
from benchmarks.systems.kinds import FASTTRACKML, LIMIT, MLFLOW, PROXY, Mlflow, Running
from benchmarks.systems.process import clean_environment

STOCK_CLIENT = "stock client, log_metric"

_SCRIPT = Path(__file__).resolve().parent / "stock_client.py"
_PATIENCE_SECONDS = 900.0
# A peer's time per call is known after fewer calls; the target compares the proxy with the limit.
_PEERS_SHARE = 0.2


def measure_client(bench: Bench, kind: str) -> None:
    """The client against every system in turn. Without the peer `mlflow` there is no client."""
    mlflow = bench.systems.get(MLFLOW)
    if not isinstance(mlflow, Mlflow):
        bench.results.notes.append("the stock client was not measured: its environment was skipped")
        return
    with bench.all_running((PROXY, LIMIT, FASTTRACKML, MLFLOW), kind) as systems:
        for repeat in range(bench.options.repeats):
            for running in rotated(systems, repeat):
                share = 1.0 if running.system in (PROXY, LIMIT) else _PEERS_SHARE
                calls = max(int(bench.options.client_calls * share), 1)
                try:
                    figures = _run(mlflow.python, running, calls)
                except (subprocess.SubprocessError, ValueError) as error:
                    bench.record(STOCK_CLIENT, running, repeat, {}, failed=str(error))
                else:
                    bench.record(STOCK_CLIENT, running, repeat, figures)


def _run(python: Path, running: Running, calls: int) -> Figures:
    token = running.headers.get("Authorization", "").removeprefix("Bearer ")
    environment = clean_environment() | {"MLFLOW_TRACKING_URI": running.process.url}
    if token:
        environment["MLFLOW_TRACKING_TOKEN"] = token
    done = subprocess.run(
        [str(python), "-W", "ignore", str(_SCRIPT), str(calls)],
        cwd=running.place.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise ValueError(done.stderr.strip()[-300:] or f"exit code {done.returncode}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
