"""Train a digit classifier and track it with stock MLflow.

Nothing here knows Azure or the proxy: the only settings are MLflow's own variables,
MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN. One parent run holds the chosen model, its plot and
its report; three nested runs hold one hyper-parameter setting each, with metrics for every epoch.
"""

import csv
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import mlflow
import numpy as np
from matplotlib.figure import Figure
from mlflow.models import infer_signature
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import classification_report, confusion_matrix, log_loss
from sklearn.model_selection import train_test_split

mpl.use("Agg")

EXPERIMENT = "digits"
MODEL_NAME = "digits-classifier"
EPOCHS = 30


@dataclass(frozen=True, slots=True)
class Settings:
    """The hyper-parameters of one nested run."""

    learning_rate: float
    alpha: float
    penalty: str


@dataclass(frozen=True, slots=True)
class Digits:
    """The digits that ship with scikit-learn, split and scaled to 0…1."""

    train_images: np.ndarray
    test_images: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Trained:
    """What one nested run ended with."""

    settings: Settings
    model: SGDClassifier
    losses: list[float]
    accuracies: list[float]


CANDIDATES = (
    Settings(learning_rate=0.0001, alpha=0.01, penalty="l2"),
    Settings(learning_rate=0.001, alpha=0.001, penalty="l2"),
    Settings(learning_rate=0.01, alpha=0.0001, penalty="elasticnet"),
)


def main() -> None:
    """Train the candidates, keep the best, and check that its registered model predicts the same."""
    digits = read_digits()
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="choose-settings") as parent:
        say(f"run {parent.info.run_id} in experiment {EXPERIMENT!r}")
        mlflow.set_tags(
            {"team": "demo", "data": "scikit-learn digits", "note": "ünïcode, “quotes” and\na new line"}
        )
        mlflow.log_params(
            {"epochs": EPOCHS, "candidates": len(CANDIDATES), "train_rows": len(digits.train_labels)}
        )
        best = max((train(settings, digits) for settings in CANDIDATES), key=lambda each: each.accuracies[-1])
        mlflow.log_params({f"best_{name}": value for name, value in asdict(best.settings).items()})
        mlflow.log_metric("best_test_accuracy", best.accuracies[-1])
        mlflow.log_figure(learning_curves(best), "plots/learning-curves.png")
        log_report(best, digits)
        version = log_model(best, digits)
        mlflow.set_tag("model_version", version)
    check_registered_model(version, best, digits)


def read_digits() -> Digits:
    """Load and split the images, the same way every time."""
    images, labels = load_digits(return_X_y=True)
    return Digits(*train_test_split(images / 16.0, labels, test_size=0.25, random_state=7, stratify=labels))


def train(settings: Settings, digits: Digits) -> Trained:
    """Train one candidate in a nested run of its own, logging every epoch."""
    trained = Trained(settings, new_model(settings), losses=[], accuracies=[])
    name = f"lr-{settings.learning_rate:g}"
    with mlflow.start_run(run_name=name, nested=True):
        mlflow.log_params(asdict(settings))
        mlflow.set_tag("stage", "candidate")
        for epoch in range(EPOCHS):
            trained.model.partial_fit(digits.train_images, digits.train_labels, classes=range(10))
            log_epoch(epoch, trained, digits)
        mlflow.set_tag("stage", "trained")
    say(f"  {name}: {EPOCHS} epochs, accuracy {trained.accuracies[0]:.3f} → {trained.accuracies[-1]:.3f}")
    return trained


def new_model(settings: Settings) -> SGDClassifier:
    """A linear classifier with these settings and a fixed seed."""
    return SGDClassifier(
        loss="log_loss",
        learning_rate="constant",
        eta0=settings.learning_rate,
        alpha=settings.alpha,
        penalty=settings.penalty,
        random_state=7,
    )


def log_epoch(epoch: int, trained: Trained, digits: Digits) -> None:
    """Log the losses in one call and the accuracy in another, as training loops do."""
    train_loss = log_loss(digits.train_labels, trained.model.predict_proba(digits.train_images))
    test_loss = log_loss(digits.test_labels, trained.model.predict_proba(digits.test_images))
    trained.losses.append(float(test_loss))
    trained.accuracies.append(float(trained.model.score(digits.test_images, digits.test_labels)))
    mlflow.log_metrics({"train_loss": float(train_loss), "test_loss": float(test_loss)}, step=epoch)
    mlflow.log_metric("test_accuracy", trained.accuracies[-1], step=epoch)


def learning_curves(best: Trained) -> Figure:
    """Loss and accuracy over the epochs."""
    figure = Figure(figsize=(8, 4), layout="tight")
    left, right = figure.subplots(1, 2)
    left.plot(best.losses)
    left.set(title="Loss", xlabel="epoch")
    right.plot(best.accuracies)
    right.set(title="Accuracy", xlabel="epoch")
    return figure


def log_report(best: Trained, digits: Digits) -> None:
    """Upload a directory: text, JSON, CSV, a binary file and a file in a folder below."""
    predicted = best.model.predict(digits.test_images)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder)
        by_class = classification_report(digits.test_labels, predicted, output_dict=True)
        (report / "by-class.json").write_text(json.dumps(by_class, indent=2))
        (report / "summary.txt").write_text(classification_report(digits.test_labels, predicted))
        (report / "empty.txt").touch()
        with (report / "confusion.csv").open("w", newline="") as file:
            csv.writer(file).writerows(confusion_matrix(digits.test_labels, predicted))
        (report / "weights").mkdir()
        np.save(report / "weights" / "linear layer.npy", best.model.coef_)
        mlflow.log_artifacts(str(report), artifact_path="report")


def log_model(best: Trained, digits: Digits) -> str:
    """Log the model with its signature and an input example, register it, return the version."""
    say("logging and registering the model")
    logged = mlflow.sklearn.log_model(
        best.model,
        name="model",
        signature=infer_signature(digits.test_images, best.model.predict(digits.test_images)),
        input_example=digits.test_images[:3],
        registered_model_name=MODEL_NAME,
    )
    return str(logged.registered_model_version)


def check_registered_model(version: str, best: Trained, digits: Digits) -> None:
    """Load the registered version back and compare its predictions with the model in memory."""
    loaded = mlflow.pyfunc.load_model(f"models:/{MODEL_NAME}/{version}")
    expected = best.model.predict(digits.test_images)
    if not np.array_equal(loaded.predict(digits.test_images), expected):
        raise SystemExit(
            f"{MODEL_NAME} version {version} predicts something else than the model that was logged"
        )
    say(f"{MODEL_NAME} version {version} loaded back: {len(expected)} predictions, all as before")


def say(text: str) -> None:
    """Show progress at once, also when the output is a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
