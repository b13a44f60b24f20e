"""The shortest session: proves a way to authenticate.

Where a remote job's variables are set, the run is there already and the experiment is not touched.
"""

import os

import mlflow
from steps import finish, step


def main() -> None:
    """One run with a metric and a file."""
    if "MLFLOW_RUN_ID" not in os.environ:
        step("set_experiment", lambda: mlflow.set_experiment(os.environ["TEST_EXPERIMENT"]).experiment_id)
    step("start_run", lambda: mlflow.start_run().info.run_id)
    step("log_metric", lambda: mlflow.log_metric("m", 1.0))
    step("log_text", lambda: mlflow.log_text("text", "t.txt"))
    step("end_run", lambda: mlflow.end_run())
    finish()


if __name__ == "__main__":
    main()
