"""The stock Python client, logging one metric after the other. Run by the interpreter that has it.

    MLFLOW_TRACKING_URI=… python stock_client.py CALLS

Prints one JSON object. Only `mlflow` is imported: this file stands alone.
"""

import json
import logging
import sys
import time

import mlflow  # type: ignore[import-not-found]


def main() -> None:
    """Log so many points and tell how long it took."""
    calls = int(sys.argv[1])
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_experiment("bench-client")
    times = []
    with mlflow.start_run():
        mlflow.log_metric("warm-up", 1.0)
        cpu, began = time.process_time(), time.perf_counter()
        for step in range(calls):
            call = time.perf_counter()
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
            times.append(time.perf_counter() - call)
        seconds = time.perf_counter() - began
        cpu = time.process_time() - cpu
    times.sort()
    print(
        json.dumps(
            {
                "calls": calls,
                "seconds": seconds,
                "ms_per_call": 1000 * seconds / calls,
                "p50_ms": 1000 * times[len(times) // 2],
                "p99_ms": 1000 * times[int(len(times) * 0.99)],
                "client_cpu_ms_per_call": 1000 * cpu / calls,
            }
        )
    )


if __name__ == "__main__":
    main()
