"""Evaluation datasets, scorers and workspaces through MLflow's own client. Argument: the server's URL."""

import sys
from collections.abc import Callable
from typing import Literal

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.genai import datasets
from mlflow.genai.scorers import Correctness, delete_scorer, get_scorer, list_scorers
from mlflow.genai.scorers.registry import list_scorer_versions


def refused(action: Callable[[], object], part: str) -> None:
    """The action must fail with a message that holds this part."""
    message = ""
    try:
        action()
    except MlflowException as error:
        message = str(error)
    assert part in message, message


def use_datasets(experiment_id: str) -> None:
    """Make, fill, read, find, tag, move and delete datasets."""
    made = datasets.create_dataset(
        name="questions", experiment_id=[experiment_id], tags={"team": "search", "mlflow.user": "ann"}
    )
    assert made.dataset_id.startswith("d-")
    assert made.created_by == "ann"
    assert made.experiment_ids == [experiment_id]
    records = [
        {"inputs": {"question": f"{number}+1?"}, "expectations": {"answer": number + 1}}
        for number in range(1200)
    ]
    records[0]["source"] = {"source_type": "HUMAN", "source_data": {"source_id": "ann"}}
    made.merge_records(records)
    made.merge_records(
        [{"inputs": {"question": "0+1?"}, "expectations": {"note": "easy"}, "tags": {"a": "b"}}]
    )

    found = datasets.get_dataset(dataset_id=made.dataset_id)
    frame = found.to_df()
    assert len(frame) == 1200, len(frame)
    records_read = MlflowClient().get_dataset(made.dataset_id).records
    first = next(record for record in records_read if record.inputs == {"question": "0+1?"})
    assert first.expectations == {"answer": 1, "note": "easy"}
    assert first.tags["a"] == "b"
    assert first.source.source_data == {"source_id": "ann"}
    assert first.source_id == "ann"
    assert '"num_records": 1200' in found.profile
    assert '"question": "string"' in found.schema
    assert found.digest != made.digest

    for number in range(3):
        datasets.create_dataset(
            name=f"other {number}", experiment_id=[experiment_id], tags={"n": str(number)}
        )
    names = [item.name for item in datasets.search_datasets(order_by=["name ASC"])]
    assert names == ["other 0", "other 1", "other 2", "questions"], names
    found = datasets.search_datasets(
        experiment_ids=[experiment_id], filter_string="name LIKE 'other%' AND tags.n != '1'", max_results=2
    )
    assert sorted(item.name for item in found) == ["other 0", "other 2"]
    refused(lambda: list(datasets.search_datasets(filter_string="nothing = 'x'")), "Invalid attribute key")

    datasets.set_dataset_tags(dataset_id=made.dataset_id, tags={"team": "ranking", "more": "yes"})
    datasets.delete_dataset_tag(dataset_id=made.dataset_id, key="more")
    tags = datasets.get_dataset(dataset_id=made.dataset_id).tags
    assert tags == {"team": "ranking", "mlflow.user": "ann"}, tags

    second = mlflow.create_experiment("second")
    datasets.add_dataset_to_experiments(dataset_id=made.dataset_id, experiment_ids=[second])
    assert set(datasets.get_dataset(dataset_id=made.dataset_id).experiment_ids) == {experiment_id, second}
    datasets.remove_dataset_from_experiments(dataset_id=made.dataset_id, experiment_ids=[experiment_id])
    assert datasets.get_dataset(dataset_id=made.dataset_id).experiment_ids == [second]

    record_id = first.dataset_record_id
    assert datasets.get_dataset(dataset_id=made.dataset_id).delete_records([record_id]) == 1
    assert len(datasets.get_dataset(dataset_id=made.dataset_id).to_df()) == 1199
    datasets.delete_dataset(dataset_id=made.dataset_id)
    refused(lambda: datasets.get_dataset(dataset_id=made.dataset_id), "not found")


def use_scorers(experiment_id: str) -> None:
    """Register, list, read and delete scorers; those with code are refused."""
    judge = mlflow.genai.make_judge(
        name="polite",
        instructions="Is {{ outputs }} polite?",
        model="openai:/gpt-4o",
        feedback_value_type=Literal["yes", "no"],
    )
    for expected in (1, 2):
        judge.register(experiment_id=experiment_id)
        versions = list_scorer_versions(name="polite", experiment_id=experiment_id)
        assert len(versions) == expected
    Correctness(name="right").register(experiment_id=experiment_id)
    assert [item.name for item in list_scorers(experiment_id=experiment_id)] == ["polite", "right"]
    loaded = get_scorer(name="polite", experiment_id=experiment_id, version=1)
    assert loaded.instructions == judge.instructions
    delete_scorer(name="polite", experiment_id=experiment_id, version=1)
    assert len(list_scorer_versions(name="polite", experiment_id=experiment_id)) == 1
    delete_scorer(name="polite", experiment_id=experiment_id, version="all")
    refused(lambda: get_scorer(name="polite", experiment_id=experiment_id), "not found")


def main() -> None:
    """Run everything against the server named on the command line."""
    mlflow.set_tracking_uri(sys.argv[1])
    experiment_id = mlflow.set_experiment("evaluation").experiment_id
    use_datasets(experiment_id)
    use_scorers(experiment_id)
    assert [item.name for item in mlflow.list_workspaces()] == ["default"]
    assert mlflow.get_workspace("default").name == "default"
    refused(lambda: mlflow.get_workspace("other"), "not found")
    refused(lambda: mlflow.create_workspace("other"), "not enabled")
    print("done")


main()
