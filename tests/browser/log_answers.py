"""Traces and evaluations for the pages of the browser tests, logged with the stock MLflow client.

Usage: log_answers.py IDS.json. Writes the ids of what it made.
"""

import json
import sys
from pathlib import Path

import mlflow


def ask() -> str:
    """A trace with a span inside a span; its id."""

    @mlflow.trace
    def look_up(question: str) -> str:
        return question[::-1]

    @mlflow.trace
    def answer(question: str) -> str:
        return look_up(question)

    answer("why?")
    mlflow.flush_trace_async_logging()
    return str(mlflow.get_last_active_trace_id())


def evaluate(experiment_id: str) -> str:
    """An evaluation dataset and an evaluation of its records; the evaluation's run id."""

    @mlflow.genai.scorer
    def is_short(outputs: str) -> bool:
        return len(outputs) < 5

    records = [{"inputs": {"question": text}, "outputs": text[::-1]} for text in ("why", "because")]
    dataset = mlflow.genai.datasets.create_dataset(name="questions", experiment_id=experiment_id)
    dataset.merge_records([{"inputs": record["inputs"]} for record in records])
    result = mlflow.genai.evaluate(data=records, scorers=[is_short])
    return str(result.run_id)


def main() -> None:
    """Log everything, write the ids."""
    experiment_id = mlflow.set_experiment("answers").experiment_id
    ids = {"experiment": experiment_id, "trace": ask(), "evaluation": evaluate(experiment_id)}
    Path(sys.argv[1]).write_text(json.dumps(ids))


if __name__ == "__main__":
    main()
