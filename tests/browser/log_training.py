"""Trainings for the pages of the browser tests, logged with the stock MLflow client.

Usage: log_training.py IDS.json. Writes the ids of what it made.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

mpl.use("Agg")

STEPS = 200
WORDS = "A text that the artifact viewer shows."
PAGE = "<h1>A page</h1><p id='word'>static</p><script>word.innerText = 'live'</script>"


def train(rate: float) -> str:
    """A run with everything a run can have; its child; its id."""
    with mlflow.start_run(run_name=f"rate {rate}", tags={"team": "vision"}) as run:
        mlflow.log_params({"rate": rate, "optimizer": "adam", "layers": 3})
        for step in range(STEPS):
            mlflow.log_metrics(
                {"loss": math.exp(-rate * step / 20), "accuracy": 1 - math.exp(-rate * step / 30)}, step=step
            )
        mlflow.log_metric("never", float("nan"))
        mlflow.log_text(WORDS, "notes/readme.txt")
        mlflow.log_text(PAGE, "page.html")
        mlflow.log_dict({"rate": rate}, "settings.json")
        mlflow.log_table(pd.DataFrame({"question": ["a", "b"], "answer": ["c", "d"]}), "eval.json")
        figure = Figure()
        figure.subplots().plot(np.cumsum(np.ones(10)))
        mlflow.log_figure(figure, "figure.png")
        for step in range(3):
            image = np.full((24, 24, 3), 80 * step, dtype=np.uint8)
            mlflow.log_image(image, key="sample", step=step)
        frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [0, 0, 1, 1]})
        mlflow.log_input(mlflow.data.from_pandas(frame, name="points", targets="y"), context="training")
        model = LogisticRegression().fit(frame[["x"]], frame["y"])
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(frame[["x"]], frame["y"]),
            registered_model_name="threshold",
        )
        with mlflow.start_run(run_name=f"fold of {rate}", nested=True):
            mlflow.log_metric("accuracy", 0.5)
    return str(run.info.run_id)


def describe(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    """Descriptions, tags and aliases, as people set them in the UI."""
    client.set_experiment_tag(experiment_id, "mlflow.note.content", "# Digits\nAll about digits.")
    client.set_tag(run_id, "mlflow.note.content", "The **best** run.")
    client.update_registered_model("threshold", description="Finds a threshold.")
    client.set_registered_model_alias("threshold", "champion", "1")
    client.set_model_version_tag("threshold", "1", "checked", "yes")


def main() -> None:
    """Log everything, write the ids."""
    experiment_id = mlflow.set_experiment("digits").experiment_id
    runs = [train(rate) for rate in (0.3, 1.0)]
    client = MlflowClient()
    describe(client, experiment_id, runs[0])
    prompts = [mlflow.genai.register_prompt("greeting", f"Hello {{{{name}}}}{'!' * n}") for n in (1, 2)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "log.txt").write_text("late\n")
        client.log_artifacts(runs[1], folder, "logs")
    ids = {
        "experiment": experiment_id,
        "runs": runs,
        "model": client.search_logged_models([experiment_id])[0].model_id,
        "prompt_versions": len(prompts),
    }
    Path(sys.argv[1]).write_text(json.dumps(ids))


if __name__ == "__main__":
    main()
