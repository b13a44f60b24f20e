"""Logs a run with the credential in the environment, and prints `run <id>` or `refused <what it was told>`.

Usage: credentialed.py EXPERIMENT. A run that the credential may not make ends the script with 3.
"""

import sys

import mlflow


def main(experiment: str) -> int:
    """Make a run with a point, a tag that is the client's own, and a file."""
    try:
        mlflow.set_experiment(experiment)
        with mlflow.start_run() as run:
            mlflow.log_metric("loss", 0.5)
            mlflow.set_tag("team", "a")
            mlflow.log_text("hello", "hello.txt")
    except mlflow.exceptions.MlflowException as error:
        print(f"refused {error}", flush=True)
        return 3
    print(f"run {run.info.run_id}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
