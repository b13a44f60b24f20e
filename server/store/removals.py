"""Removing for good what a deleted run or experiment left in every table, a slice at a time.

A removal is announced by a fact and may end with its process: what is announced can be told from what is only
deleted, and the removal goes on where it stopped. The row of the run or experiment itself goes last, so that
its number is not given out again while other rows name it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from server.database.engine import Transaction
from server.store import facts

_RUN = "removal of run "
_EXPERIMENT = "removal of experiment "
_RETIRED_NAME = "retired upstream name "


@dataclass(frozen=True, slots=True)
class RunRemoval:
    """What has to be known of a run to remove it. `deletes_upstream`: the workspace still has it active.

    `overflow_paths` are files that only the workspace has, `model_ids` logged models that go with the run,
    `measured_ids` those that it only measured.
    """

    run_pk: int
    run_id: str
    experiment_id: int
    upstream_id: str | None
    lane_ids: list[int]
    deletes_upstream: bool
    overflow_paths: list[str] = field(default_factory=list)
    model_ids: list[str] = field(default_factory=list)
    measured_ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Budget:
    """How many rows one transaction may still remove."""

    rows: int


@dataclass(frozen=True, slots=True)
class RemovedFile:
    """A file whose row is gone: its place under the run in the workspace, and its spooled bytes."""

    upstream_path: str
    spool_name: str | None


# --- announcing -----------------------------------------------------------------------------


def announce_run(transaction: Transaction, removal: RunRemoval) -> None:
    """From now on the run cannot be restored."""
    facts.put(transaction, f"{_RUN}{removal.run_pk}", json.dumps(asdict(removal)))


def is_run_announced(transaction: Transaction, run_pk: int) -> bool:
    """Whether the run is being removed."""
    return facts.find(transaction, f"{_RUN}{run_pk}") is not None


def list_announced_runs(transaction: Transaction) -> list[RunRemoval]:
    """The removals of runs that have not ended."""
    rows = transaction.rows("SELECT value FROM facts WHERE name LIKE ?", (f"{_RUN}%",))
    return [RunRemoval(**json.loads(row[0])) for row in rows]


def announce_experiment(transaction: Transaction, experiment_id: int) -> None:
    """From now on the experiment cannot be restored."""
    facts.put(transaction, f"{_EXPERIMENT}{experiment_id}", "")


def is_experiment_announced(transaction: Transaction, experiment_id: int) -> bool:
    """Whether the experiment is being removed."""
    return facts.find(transaction, f"{_EXPERIMENT}{experiment_id}") is not None


def list_announced_experiments(transaction: Transaction) -> list[int]:
    """The removals of experiments that have not ended."""
    rows = transaction.rows("SELECT name FROM facts WHERE name LIKE ?", (f"{_EXPERIMENT}%",))
    return sorted(int(row[0].removeprefix(_EXPERIMENT)) for row in rows)


def is_name_retired(transaction: Transaction, upstream_name: str) -> bool:
    """Whether the workspace keeps an archived experiment of that name, which is gone here."""
    return facts.find(transaction, f"{_RETIRED_NAME}{upstream_name}") is not None


# --- runs -----------------------------------------------------------------------------------


def remove_run_files(transaction: Transaction, removal: RunRemoval, budget: Budget) -> list[RemovedFile]:
    """Remove rows of the run's files, and of its models', as far as the budget goes."""
    removed: list[RemovedFile] = []
    for root_id, folder in _roots_of(transaction, removal):
        rows = transaction.rows(
            f"SELECT path, spool_name FROM artifacts WHERE root_id = ? LIMIT {max(budget.rows, 0)}",
            (root_id,),
        )
        transaction.run_many(
            "DELETE FROM artifacts WHERE root_id = ? AND path = ?", [(root_id, row[0]) for row in rows]
        )
        budget.rows -= len(rows)
        removed += [RemovedFile(f"{folder}/{path}" if folder else path, name) for path, name in rows]
    return removed


def _roots_of(transaction: Transaction, removal: RunRemoval) -> list[tuple[int, str]]:
    """Roots, each with the folder under the run where its files lie in the workspace."""
    roots = transaction.rows(
        "SELECT root_id, '' FROM artifact_roots WHERE run_pk = ? AND EXISTS"
        " (SELECT 1 FROM artifacts WHERE artifacts.root_id = artifact_roots.root_id)",
        (removal.run_pk,),
    )
    roots += transaction.rows_in(
        "SELECT artifact_roots.root_id, coalesce(logged_models.upstream_folder, '') FROM logged_models"
        " JOIN artifact_roots ON artifact_roots.model_pk = logged_models.model_pk WHERE model_id",
        removal.model_ids,
    )
    return [(row[0], row[1]) for row in roots]


def remove_run_rows(transaction: Transaction, removal: RunRemoval, budget: Budget) -> bool:
    """Remove all else, as far as the budget goes, and at last the run itself; whether that was the end.

    The lane with the highest id stays, as one that has settled all: its number must not be given out again.
    """
    if not all(_remove(transaction, part, budget) for part in _parts_of_run(removal)):
        return False
    newest = transaction.rows("SELECT max(lane_id) FROM lanes")[0][0]
    transaction.run_in("DELETE FROM lanes WHERE lane_id", [id_ for id_ in removal.lane_ids if id_ != newest])
    transaction.run("DELETE FROM runs WHERE run_pk = ?", (removal.run_pk,))
    transaction.run("DELETE FROM facts WHERE name = ?", (f"{_RUN}{removal.run_pk}",))
    return True


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one table: its key, and which of them."""

    table: str
    key: str
    where: str
    parameters: Sequence[object] = ()


def _parts_of_run(removal: RunRemoval) -> list[_Part]:
    run = (removal.run_pk,)
    lanes = f"({', '.join(str(int(lane_id)) for lane_id in removal.lane_ids)})"
    series = "(SELECT series_id FROM series WHERE run_pk = ?)"
    inputs = "(SELECT input_pk FROM dataset_inputs WHERE run_pk = ?)"
    measured = [
        _Part("logged_model_metrics", _MODEL_METRIC, "model_id = ? AND run_pk = ?", (model_id, *run))
        for model_id in removal.measured_ids
    ]
    return [
        _Part("barriers", "lane_id, position, awaited_lane_id", f"lane_id IN {lanes}"),
        _Part("barriers", "lane_id, position, awaited_lane_id", f"awaited_lane_id IN {lanes}"),
        _Part("batches", "batch_id", f"lane_id IN {lanes}"),
        _Part("journal_blocks", "lane_id, first_position", f"lane_id IN {lanes}"),
        _Part("journal_entries", "lane_id, position", f"lane_id IN {lanes}"),
        _Part("parked", "parked_id", "run_pk = ?", run),
        _Part("parked", "parked_id", f"lane_id IN {lanes}"),
        _Part("overflow", "lane_id, position", "run_pk = ?", run),
        _Part("overflow_files", "run_pk, file_number", "run_pk = ?", run),
        _Part("params", "run_pk, key", "run_pk = ?", run),
        _Part("tags", "run_pk, key", "run_pk = ?", run),
        _Part("points", "series_id, step, timestamp_ms, value, is_nan", f"series_id IN {series}", run),
        _Part("series", "series_id", "run_pk = ?", run),
        _Part("dataset_input_tags", "input_pk, key", f"input_pk IN {inputs}", run),
        _Part("dataset_inputs", "input_pk", "run_pk = ?", run),
        _Part("run_models", "run_pk, direction, model_id, step", "run_pk = ?", run),
        _Part("trace_links", "trace_id, kind, target", "kind = 'run' AND target = ?", (removal.run_id,)),
        _Part("direct_uploads", "upload_id", "run_id = ?", (removal.run_id,)),
        _Part("accepted_creates", "fingerprint", "subject = ?", (removal.run_id,)),
        _Part("artifact_roots", "root_id", "run_pk = ?", run),
        *measured,
        *_parts_of_models(removal.model_ids),
    ]


_MODEL_METRIC = "model_id, key, timestamp_ms, step, run_pk"


def _parts_of_models(model_ids: Iterable[str]) -> list[_Part]:
    of_model = "model_pk IN (SELECT model_pk FROM logged_models WHERE model_id = ?)"
    parts: list[_Part] = []
    for model_id in model_ids:
        one = (model_id,)
        parts += [
            _Part("logged_model_tags", "model_pk, key", of_model, one),
            _Part("logged_model_params", "model_pk, key", of_model, one),
            _Part("logged_model_metrics", _MODEL_METRIC, "model_id = ?", one),
            _Part("artifact_roots", "root_id", of_model, one),
            _Part("logged_models", "model_pk", "model_id = ?", one),
        ]
    return parts


# --- experiments ----------------------------------------------------------------------------


def remove_experiment_rows(transaction: Transaction, experiment_id: int, budget: Budget) -> bool:
    """Remove what an experiment without runs still has, and at last itself; whether that was the end.

    Its name in the workspace is remembered as taken: the archived experiment there keeps it.
    """
    model_ids = [
        row[0]
        for row in transaction.rows(
            "SELECT model_id FROM logged_models WHERE experiment_id = ?", (experiment_id,)
        )
    ]
    parts = [*_parts_of_experiment(experiment_id), *_parts_of_models(model_ids)]
    if not all(_remove(transaction, part, budget) for part in parts):
        return False
    rows = transaction.rows(
        "SELECT upstream_name, upstream_id, lane_id FROM experiments WHERE experiment_id = ?",
        (experiment_id,),
    )
    for upstream_name, upstream_id, lane_id in rows:
        if upstream_id is not None:
            facts.put(transaction, f"{_RETIRED_NAME}{upstream_name}", upstream_id)
        newest = transaction.rows("SELECT max(lane_id) FROM lanes")[0][0]
        if lane_id != newest:
            transaction.run("DELETE FROM lanes WHERE lane_id = ?", (lane_id,))
    transaction.run("DELETE FROM experiments WHERE experiment_id = ?", (experiment_id,))
    transaction.run("DELETE FROM facts WHERE name = ?", (f"{_EXPERIMENT}{experiment_id}",))
    return True


def _parts_of_experiment(experiment_id: int) -> list[_Part]:
    one = (experiment_id,)
    traces = "trace_pk IN (SELECT trace_pk FROM traces WHERE experiment_id = ?)"
    lane = "lane_id IN (SELECT lane_id FROM experiments WHERE experiment_id = ?)"
    return [
        _Part("barriers", "lane_id, position, awaited_lane_id", f"awaited_{lane}", one),
        _Part("barriers", "lane_id, position, awaited_lane_id", lane, one),
        _Part("batches", "batch_id", lane, one),
        _Part("journal_entries", "lane_id, position", lane, one),
        _Part("parked", "parked_id", lane, one),
        _Part("trace_tags", "trace_pk, key", traces, one),
        _Part("trace_metadata", "trace_pk, key", traces, one),
        _Part("spans", "span_pk", traces, one),
        _Part("assessments", "assessment_pk", traces, one),
        _Part(
            "trace_links",
            "trace_id, kind, target",
            "trace_id IN (SELECT trace_id FROM traces WHERE experiment_id = ?)",
            one,
        ),
        _Part("traces", "trace_pk", "experiment_id = ?", one),
        _Part(
            "scorer_versions",
            "scorer_pk, version",
            "scorer_pk IN (SELECT scorer_pk FROM scorers WHERE experiment_id = ?)",
            one,
        ),
        _Part("scorers", "scorer_pk", "experiment_id = ?", one),
        _Part("evaluation_dataset_experiments", "dataset_pk, experiment_id", "experiment_id = ?", one),
        _Part("datasets", "dataset_pk", "experiment_id = ?", one),
        _Part("experiment_tags", "experiment_id, key", "experiment_id = ?", one),
    ]


# --- slices ---------------------------------------------------------------------------------


def _remove(transaction: Transaction, part: _Part, budget: Budget) -> bool:
    """Remove rows as far as the budget goes; whether none are left."""
    if budget.rows <= 0:
        return False
    if transaction.is_postgres:
        # By where they lie: a join could read the whole table.
        chosen = f"ctid = ANY (ARRAY (SELECT ctid FROM {part.table} WHERE {part.where} LIMIT {budget.rows}))"
    else:
        chosen = (
            f"({part.key}) IN (SELECT {part.key} FROM {part.table} WHERE {part.where} LIMIT {budget.rows})"
        )
    wanted = budget.rows
    removed = transaction.run(f"DELETE FROM {part.table} WHERE {chosen}", part.parameters)
    budget.rows -= removed
    return removed < wanted
