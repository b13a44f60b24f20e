"""Datasets that runs used, and logged models that went into runs or came out of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.database.engine import Transaction


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A dataset with the tags of its use by one run."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None
    profile: str | None
    tags: tuple[tuple[str, str], ...]


def log_input(transaction: Transaction, experiment_id: int, run_pk: int, dataset: DatasetInput) -> None:
    """Note that a run used a dataset; a repeated note changes nothing."""
    dataset_pk = _dataset_pk(transaction, experiment_id, dataset)
    rows = transaction.rows(
        "INSERT INTO dataset_inputs (run_pk, dataset_pk) VALUES (?, ?)"
        " ON CONFLICT (run_pk, dataset_pk) DO NOTHING RETURNING input_pk",
        (run_pk, dataset_pk),
    )
    if rows:
        transaction.run_many(
            "INSERT INTO dataset_input_tags (input_pk, key, value) VALUES (?, ?, ?)",
            [(rows[0][0], key, value) for key, value in dict(dataset.tags).items()],
        )


def _dataset_pk(transaction: Transaction, experiment_id: int, dataset: DatasetInput) -> int:
    transaction.run(
        "INSERT INTO datasets (experiment_id, name, digest, source_type, source, schema, profile)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (experiment_id, name, digest) DO NOTHING",
        (
            experiment_id,
            dataset.name,
            dataset.digest,
            dataset.source_type,
            dataset.source,
            dataset.schema,
            dataset.profile,
        ),
    )
    rows = transaction.rows(
        "SELECT dataset_pk FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?",
        (experiment_id, dataset.name, dataset.digest),
    )
    return int(rows[0][0])


def list_inputs(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, list[DatasetInput]]:
    """The datasets each run used."""
    tags: dict[int, list[tuple[str, str]]] = {}
    rows = transaction.rows_in(
        "SELECT dataset_inputs.input_pk, dataset_inputs.run_pk, datasets.name, datasets.digest,"
        " datasets.source_type, datasets.source, datasets.schema, datasets.profile"
        " FROM dataset_inputs JOIN datasets ON datasets.dataset_pk = dataset_inputs.dataset_pk"
        " WHERE dataset_inputs.run_pk",
        run_pks,
    )
    for input_pk, key, value in transaction.rows_in(
        "SELECT input_pk, key, value FROM dataset_input_tags WHERE input_pk", [row[0] for row in rows]
    ):
        tags.setdefault(input_pk, []).append((key, value))
    inputs: dict[int, list[DatasetInput]] = {}
    for row in rows:
        input_pk, run_pk, name, digest, source_type, source, schema, profile = row
        used = DatasetInput(name, digest, source_type, source, schema, profile, tuple(tags.get(input_pk, [])))
        inputs.setdefault(run_pk, []).append(used)
    return inputs


def link_models(
    transaction: Transaction, run_pk: int, direction: str, models: Sequence[tuple[str, int]]
) -> None:
    """Note logged models as 'input' or 'output' of a run: (model id, step)."""
    transaction.named.update(model_id for model_id, _ in models)
    transaction.run_many(
        "INSERT INTO run_models (run_pk, direction, model_id, step) VALUES (?, ?, ?, ?) ON CONFLICT"
        " DO NOTHING",
        [(run_pk, direction, model_id, step) for model_id, step in models],
    )


def list_models(
    transaction: Transaction, run_pks: Sequence[int]
) -> dict[tuple[int, str], list[tuple[str, int]]]:
    """(run_pk, direction) → (model id, step)."""
    linked: dict[tuple[int, str], list[tuple[str, int]]] = {}
    for run_pk, direction, model_id, step in transaction.rows_in(
        "SELECT run_pk, direction, model_id, step FROM run_models WHERE run_pk", run_pks
    ):
        linked.setdefault((run_pk, direction), []).append((model_id, step))
    return linked


def search_summaries(
    transaction: Transaction, experiment_ids: Sequence[int]
) -> list[tuple[int, str, str, str]]:
    """(experiment id, name, digest, context) of the datasets used in these experiments."""
    found = transaction.rows_in(
        "SELECT DISTINCT datasets.experiment_id, datasets.name, datasets.digest, dataset_input_tags.value"
        " FROM datasets JOIN dataset_inputs ON dataset_inputs.dataset_pk = datasets.dataset_pk"
        " LEFT JOIN dataset_input_tags ON dataset_input_tags.input_pk = dataset_inputs.input_pk"
        " AND dataset_input_tags.key = 'mlflow.data.context' WHERE datasets.experiment_id",
        experiment_ids,
        suffix=" LIMIT 1000",
    )
    return [(row[0], row[1], row[2], row[3] or "") for row in found]
