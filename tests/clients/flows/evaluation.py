"""Flows about what generative applications are judged by: evaluation datasets, scorers, `genai.evaluate`."""

import time
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow import MlflowClient
from recording import Recorder, flow
from tracking import experiment


@flow(since=(3, 4))
def evaluation_datasets(record: Recorder) -> None:
    """Evaluation datasets are made, filled, searched, tagged and deleted."""
    from mlflow.genai import datasets

    own = experiment("flows/datasets")
    made = datasets.create_dataset(name="questions", experiment_id=[own], tags={"k": "v"})
    record.note("made", _of_dataset(made))
    for row in (
        {"inputs": {"q": "why"}, "expectations": {"a": "because"}, "tags": {"t": "1"}},
        {"inputs": {"q": "what"}, "expectations": {"a": "that"}, "outputs": {"said": "this"}},
        {"inputs": {"q": "why"}, "expectations": {"b": 2}},
    ):
        made.merge_records([row])
        time.sleep(0.01)
    found = datasets.get_dataset(dataset_id=made.dataset_id)
    record.note("found", _of_dataset(found))
    rows = found.to_df()
    record.note("rows", sorted(map(str, zip(rows["inputs"], rows["expectations"], strict=True))))
    datasets.set_dataset_tags(dataset_id=made.dataset_id, tags={"k": "w", "m": "n"})
    datasets.delete_dataset_tag(dataset_id=made.dataset_id, key="m")
    record.note("tags", datasets.get_dataset(dataset_id=made.dataset_id).tags)
    datasets.create_dataset(name="others", experiment_id=[own])
    for text in ("name = 'questions'", "name LIKE '%s'", "tags.k = 'w'", "nonsense"):
        record.error(
            f"search {text}",
            lambda text=text: sorted(
                item.name for item in datasets.search_datasets(experiment_ids=[own], filter_string=text)
            ),
        )
    record.error("missing", lambda: datasets.get_dataset(dataset_id="d-" + "0" * 32))
    datasets.delete_dataset(dataset_id=made.dataset_id)
    record.error("deleted", lambda: datasets.get_dataset(dataset_id=made.dataset_id))


def _of_dataset(dataset: Any) -> dict[str, Any]:
    return {
        name: getattr(dataset, name) for name in ("name", "tags", "digest", "schema", "profile", "created_by")
    }


@flow(since=(3, 4))
def scorers(record: Recorder) -> None:
    """Judges and built-in scorers are registered in versions, read, listed and deleted."""
    from mlflow.genai.scorers import Correctness, delete_scorer, get_scorer, list_scorers, scorer
    from mlflow.genai.scorers.registry import list_scorer_versions

    own = experiment("flows/scorers")

    def judge(words: str) -> Any:
        return mlflow.genai.make_judge(
            name="polite",
            instructions=f"Is {{{{ outputs }}}} {words}?",
            model="openai:/gpt-4o",
            feedback_value_type=bool,
        )

    for words in ("polite", "very polite"):
        registered = judge(words).register(experiment_id=own)
        record.note(f"registered {words}", registered.model_dump())
    # One at a time: the client asks for more about several in any order.
    record.note("all", [item.name for item in list_scorers(experiment_id=own)])
    Correctness(name="right").register(experiment_id=own)

    def read(**options: Any) -> Callable[[], Any]:
        return lambda: get_scorer(experiment_id=own, **options).model_dump()

    record.error("latest", read(name="polite"))
    record.error("first", read(name="polite", version=1))
    record.error("built in", read(name="right"))
    record.error("no such version", read(name="polite", version=9))
    record.error("no such scorer", read(name="absent"))
    for name in ("polite", "absent"):
        record.error(
            f"versions of {name}",
            lambda name=name: [version for _, version in list_scorer_versions(name=name, experiment_id=own)],
        )
    record.error("in no experiment", lambda: list_scorers(experiment_id="987654321"))
    record.error("registered in no experiment", lambda: judge("x").register(experiment_id="987654321"))

    @scorer
    def in_code(outputs: str) -> bool:
        return bool(outputs)

    record.error("with code", lambda: in_code.register(experiment_id=own))
    record.error("delete no version", lambda: delete_scorer(name="polite", experiment_id=own, version=9))
    delete_scorer(name="polite", experiment_id=own, version=2)
    record.error("left", read(name="polite"))
    record.error("registered again", lambda: judge("still polite").register(experiment_id=own).model_dump())
    delete_scorer(name="polite", experiment_id=own, version="all")
    record.error("gone", read(name="polite"))
    record.error("delete again", lambda: delete_scorer(name="polite", experiment_id=own, version="all"))
    record.note("at the end", [item.name for item in list_scorers(experiment_id=own)])


@flow(since=(3, 4))
def genai_evaluate(record: Recorder) -> None:
    """An application is run over a dataset and scored; the traces, judgements and metrics are in a run."""
    from mlflow.entities import Feedback
    from mlflow.genai import datasets
    from mlflow.genai.scorers import scorer

    own, client = experiment("flows/genai evaluate"), MlflowClient()
    # One question and one scorer at a time: several would be asked in threads, in any order.
    made = datasets.create_dataset(name="asked", experiment_id=[own])
    made.merge_records([{"inputs": {"question": "one"}, "expectations": {"expected": "ONE"}}])

    @scorer
    def exact(outputs: str, expectations: dict[str, str]) -> bool:
        return outputs == expectations["expected"]

    @scorer
    def length(outputs: str) -> Feedback:
        return Feedback(name="length", value=len(outputs), rationale="counted")

    @scorer
    def broken(outputs: str) -> bool:
        raise ValueError("cannot say")

    for judge in (exact, length, broken):
        result = mlflow.genai.evaluate(
            data=datasets.get_dataset(dataset_id=made.dataset_id),
            predict_fn=lambda question: question.upper(),
            scorers=[judge],
        )
        record.note(f"metrics of {judge.name}", result.metrics)
        run = client.get_run(result.run_id)
        record.note(f"run of {judge.name}", (run.info.status, run.data.metrics))
        record.note("inputs", [item.dataset.name for item in run.inputs.dataset_inputs])
        (trace,) = client.search_traces(locations=[own], filter_string=f"run_id = '{result.run_id}'")
        record.note(f"previews of {judge.name}", (trace.info.request_preview, trace.info.response_preview))
        judged = {item.name: (item.value, item.rationale) for item in trace.info.assessments}
        record.note(f"judged by {judge.name}", judged)
