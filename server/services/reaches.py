"""Whether what a request names lies in the experiments that its key is limited to.

Everything is judged by the present name of its experiment. What belongs to no experiment is outside.
"""

from collections.abc import Iterable
from typing import assert_never

from server.database.engine import Database, Transaction
from server.domain.errors import ErrorCode, MlflowError, does_not_exist
from server.domain.name_patterns import NamePatterns
from server.domain.named import (
    ExperimentName,
    Named,
    NamedArtifact,
    NamedDataset,
    NamedExperiment,
    NamedLoggedModel,
    NamedRun,
    NamedSource,
    NamedTrace,
    NamedTraceFiles,
    NamedVersion,
    NamedVersionFiles,
)
from server.protocol.artifacts import checked_folder, possible_addresses, prefix_of_uri
from server.protocol.registry import parse_version
from server.protocol.traces import ARTIFACT_TAG
from server.services.artifact_places import place_of, version_folder
from server.services.identity import get_experiment
from server.services.sources import resolve_source
from server.services.trace_spans import artifact_uri
from server.store import evaluation, experiments, logged_models, registry, runs, traces


class Reaches:
    """Judges what a request names."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def require_within(self, patterns: NamePatterns, named: Iterable[Named]) -> None:
        """Refuse what lies outside.

        Raises:
            MlflowError: something is outside (PERMISSION_DENIED), or there is no such thing.
        """
        wanted = list(dict.fromkeys(named))
        if not wanted:
            return

        def names(transaction: Transaction) -> list[str | None]:
            return [name for item in wanted for name in _experiment_names(transaction, item)]

        if not all(name is not None and patterns.matches(name) for name in await self._database.read(names)):
            raise outside(patterns)


def outside(patterns: NamePatterns) -> MlflowError:
    """The refusal; it does not tell what there is outside."""
    return MlflowError(
        ErrorCode.PERMISSION_DENIED,
        f"Your key is limited to experiments named {patterns}; this call reaches beyond them.",
    )


def _experiment_names(transaction: Transaction, named: Named) -> list[str | None]:
    """The present names of all experiments concerned; None stands for what is in no experiment."""
    match named:
        case ExperimentName():
            return [named.name]
        case NamedExperiment():
            return [get_experiment(transaction, named.experiment_id).name]
        case NamedRun():
            return _of_run(transaction, named)
        case NamedLoggedModel():
            return _of_logged_model(transaction, named)
        case NamedTrace():
            return _of_trace(transaction, named)
        case NamedTraceFiles():
            return _of_trace_files(transaction, named)
        case NamedDataset():
            return _of_dataset(transaction, named)
        case NamedArtifact():
            return [_of_path(transaction, named.path)]
        case NamedVersion():
            return _of_version(transaction, named)
        case NamedVersionFiles():
            folder = version_folder(transaction, named.name, parse_version(named.version))
            return [_of_path(transaction, folder)]
        case NamedSource():
            source = resolve_source(
                transaction, named.source, run_id=named.run_id or None, model_id=named.model_id or None
            )
            return _of_origins(transaction, source.run_id, source.model_id)
        case _:
            assert_never(named)


def _name_of(transaction: Transaction, experiment_id: int) -> str | None:
    experiment = experiments.find(transaction, experiment_id)
    return None if experiment is None else experiment.name


def _of_run(transaction: Transaction, named: NamedRun) -> list[str | None]:
    run = runs.find_info(transaction, named.run_id)
    if run is not None:
        return [_name_of(transaction, run.experiment_id)]
    if named.may_be_absent:
        return []
    raise does_not_exist(f"Run with id={named.run_id} not found")


def _of_logged_model(transaction: Transaction, named: NamedLoggedModel) -> list[str | None]:
    model = logged_models.find(transaction, named.model_id)
    if model is not None:
        return [_name_of(transaction, model.experiment_id)]
    if named.may_be_absent:
        return []
    raise does_not_exist(f"Logged model with ID '{named.model_id}' not found.")


def _of_trace(transaction: Transaction, named: NamedTrace) -> list[str | None]:
    trace = traces.find(transaction, named.trace_id)
    if trace is not None:
        return [_name_of(transaction, trace.experiment_id)]
    if named.may_be_absent:
        return []
    raise does_not_exist(f"Trace with ID {named.trace_id} is not found.")


def _of_trace_files(transaction: Transaction, named: NamedTraceFiles) -> list[str | None]:
    """A trace says in a tag where its files are: they are judged by that place, too."""
    names = _of_trace(transaction, NamedTrace(named.trace_id))
    trace = traces.find(transaction, named.trace_id)
    if trace is None:
        return names
    tags = traces.list_details(transaction, [trace.trace_pk])[trace.trace_pk].tags
    folder = prefix_of_uri(tags.get(ARTIFACT_TAG, ""))
    return names if folder is None else [*names, _of_path(transaction, folder)]


def _of_dataset(transaction: Transaction, named: NamedDataset) -> list[str | None]:
    dataset = evaluation.find(transaction, named.dataset_id)
    if dataset is None:
        raise does_not_exist(f"Could not find evaluation dataset with ID {named.dataset_id}.")
    found = evaluation.list_experiments(transaction, dataset.dataset_pk)
    return [_name_of(transaction, experiment_id) for experiment_id in found] or [None]


def _of_version(transaction: Transaction, named: NamedVersion) -> list[str | None]:
    model = registry.find(transaction, named.name)
    number = parse_version(named.version)
    version = None if model is None else registry.find_version(transaction, model.model_pk, number)
    if version is None:
        raise does_not_exist(f"Model Version (name={named.name}, version={named.version}) not found")
    return _of_origins(transaction, version.run_id, version.model_id)


def _of_origins(transaction: Transaction, run_id: str | None, model_id: str | None) -> list[str | None]:
    """The experiments of the run and the logged model that a version was made from."""
    names: list[str | None] = []
    if run_id:
        names += _of_run(transaction, NamedRun(run_id, may_be_absent=True))
    if model_id:
        names += _of_logged_model(transaction, NamedLoggedModel(model_id, may_be_absent=True))
    return names or [None]


# --- paths ----------------------------------------------------------------------------------


def _of_path(transaction: Transaction, path: str) -> str | None:
    """The experiment of whoever owns the path: a run, a logged model, a trace, or the experiment itself."""
    checked = checked_folder(path)
    place = place_of(transaction, checked)
    if place.run_pk is not None:
        [run] = runs.list_infos(transaction, [place.run_pk])
        return _name_of(transaction, run.experiment_id)
    if place.model_pk is not None:
        [model] = logged_models.get_many(transaction, [place.model_pk])
        return _name_of(transaction, model.experiment_id)
    return _of_trace_folder(transaction, checked) or _of_experiment_folder(transaction, checked)


def _of_trace_folder(transaction: Transaction, path: str) -> str | None:
    for address in possible_addresses(path):
        trace = traces.find(transaction, address.owner_id) if address.owner_id else None
        experiment = None if trace is None else experiments.find(transaction, trace.experiment_id)
        if trace is None or experiment is None:
            continue
        if prefix_of_uri(artifact_uri(experiment, trace.trace_id)) == address.prefix:
            return experiment.name
    return None


def _of_experiment_folder(transaction: Transaction, path: str) -> str | None:
    """Whose own folder, `/{experiment_id}`, the path is in; a location that was chosen is nobody's own."""
    first = path.partition("/")[0]
    if not (first.isascii() and first.isdigit() and len(first) < len(str(2**63))):
        return None
    experiment = experiments.find(transaction, int(first))
    if experiment is None or str(experiment.experiment_id) != first:
        return None
    return experiment.name if prefix_of_uri(experiment.artifact_location) == first else None
