"""A whole small training with the stock client, whose answers may get lost on the way.

Usage: resending.py NAME. Logs a run with a model and registers the model, all under that name.
"""

import sys

import mlflow
import numpy as np
from sklearn.linear_model import LogisticRegression


def main(name: str) -> None:
    """Train, log, register."""
    mlflow.set_experiment(name)
    model = LogisticRegression().fit(np.array([[0.0], [1.0]]), np.array([0, 1]))
    place = {"name": "model"} if int(mlflow.__version__.split(".")[0]) >= 3 else {"artifact_path": "model"}
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_param("rate", "0.1")
        mlflow.sklearn.log_model(model, **place, pip_requirements=["scikit-learn"])
    mlflow.register_model(f"runs:/{run.info.run_id}/model", name)


if __name__ == "__main__":
    main(sys.argv[1])
