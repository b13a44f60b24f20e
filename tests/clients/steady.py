"""Logs one point after another with the stock client, and writes down each that was acknowledged.

Usage: steady.py FILE POINTS [PAUSE]. The first line of the file is the run's id, each further one a step.
The slowest call, in seconds, is printed at the end.
"""

import sys
import time

import mlflow


def main(path: str, points: int, pause: float) -> None:
    """Log that many points, `pause` seconds apart."""
    slowest = 0.0
    mlflow.set_experiment("steady")
    client = mlflow.MlflowClient()
    with open(path, "w", buffering=1) as acknowledged, mlflow.start_run() as run:
        acknowledged.write(f"{run.info.run_id}\n")
        for step in range(points):
            started = time.monotonic()
            # Its own timestamp, or a point logged again would be another point.
            timestamp_ms = int(time.time() * 1000)
            try:
                client.log_metric(run.info.run_id, "loss", step / 8, timestamp_ms, step)
            except mlflow.exceptions.MlflowException as error:
                # The client repeats every call but one whose answer broke off behind its headers.
                if "IncompleteRead" not in str(error):
                    raise
                client.log_metric(run.info.run_id, "loss", step / 8, timestamp_ms, step)
            slowest = max(slowest, time.monotonic() - started)
            acknowledged.write(f"{step}\n")
            time.sleep(pause)
    print(f"slowest {slowest:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
