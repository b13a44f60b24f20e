"""Experiments: create, find, search, rename, delete, restore, tag."""

from collections.abc import Sequence

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.entities import Experiment, LifecycleStage, Page, ViewType
from server.domain.errors import already_exists, does_not_exist, invalid_parameter
from server.domain.name_patterns import NamePatterns
from server.domain.names import upstream_experiment_name
from server.domain.operations import CreateExperiment, DeleteExperiment, RestoreExperiment, SetExperimentTag
from server.domain.origins import Origin
from server.journal.barriers import ALL_RUNS_SETTLED
from server.journal.entries import Awaited, append_entry
from server.journal.lanes import LaneKind, open_lane
from server.protocol import limits, paging
from server.protocol import search as grammar
from server.protocol.artifacts import checked_folder
from server.services.claims import CreateKind, Made
from server.services.identity import (
    DEFAULT_EXPERIMENT_ID,
    get_experiment,
    require_active_experiment,
)
from server.services.resends import Create, Resends
from server.store import experiments, removals, search
from server.store.experiments import Home

DEFAULT_NAME = "Default"
_SUBJECT = "experiment "
_DEFAULT_PAGE = 1000
_LARGEST_PAGE = 50_000
_CREATE_POSITION = 1


class Experiments:
    """What can be done with experiments."""

    def __init__(self, *, database: Database, writer: Writer, resends: Resends) -> None:
        self._database = database
        self._writer = writer
        self._resends = resends

    async def create(
        self,
        name: str | None,
        artifact_location: str | None,
        tags: Sequence[tuple[str, str]],
        origin: Origin,
    ) -> int:
        """Make an experiment; its id.

        Raises:
            MlflowError: the name is taken (by a deleted experiment too), or not allowed.
        """
        checked = limits.check_experiment_name(name)
        _check_location(artifact_location)
        for key, value in tags:
            _check_tag(key, value)

        principal = origin.principal

        def make(transaction: Transaction) -> Made[int]:
            if experiments.find_id_by_name(transaction, checked) is not None:
                raise already_exists(f"Experiment '{checked}' already exists.")
            experiment_id = add_experiment(
                transaction, checked, artifact_location=artifact_location, principal=principal
            )
            experiments.set_tags(transaction, experiment_id, tags)
            announce_experiment(transaction, experiment_id, principal)
            lane_id = experiments.lane_of(transaction, experiment_id)
            for key, value in tags:
                append_entry(
                    transaction, lane_id, SetExperimentTag(experiment_id, key, value), principal=principal
                )
            return Made(experiment_id, f"{_SUBJECT}{experiment_id}")

        def repeat(_: Transaction, subject: str) -> int:
            return int(subject.removeprefix(_SUBJECT))

        create = Create(CreateKind.EXPERIMENT, make, repeat, alone=True)
        return await self._resends.commit(create, origin)

    async def get(self, experiment_id: str) -> Experiment:
        """One experiment, deleted or not."""
        return await self._database.read(lambda transaction: get_experiment(transaction, experiment_id))

    async def get_by_name(self, name: str) -> Experiment:
        """One experiment, deleted or not."""

        def find(transaction: Transaction) -> Experiment:
            experiment_id = experiments.find_id_by_name(transaction, name)
            if experiment_id is None:
                raise does_not_exist(f"Could not find experiment with name '{name}'")
            return experiments.get_many(transaction, [experiment_id])[0]

        return await self._database.read(find)

    async def search(
        self,
        *,
        filter_text: str | None,
        order_by: Sequence[str],
        view: ViewType,
        max_results: int | None,
        page_token: str | None,
        visible: NamePatterns | None = None,
    ) -> Page[Experiment]:
        """A page of experiments, of those whose names are `visible` where that is given."""
        limit = limits.check_page_size(max_results, default=_DEFAULT_PAGE, largest=_LARGEST_PAGE)
        offset = paging.decode_offset(page_token)
        filters = grammar.parse_experiment_filter(filter_text)
        order = grammar.parse_experiment_order(list(order_by))

        def find(transaction: Transaction) -> Page[Experiment]:
            ids, has_more = search.find_experiments(
                transaction.connection,
                view=view,
                filters=filters,
                order=order,
                offset=offset,
                limit=limit,
                visible=visible,
            )
            return Page(experiments.get_many(transaction, ids), offset + limit if has_more else None)

        return await self._database.read(find)

    async def rename(self, experiment_id: str, new_name: str) -> None:
        """Rename here; the workspace cannot rename, so the name there stays as it was."""
        checked = limits.check_experiment_name(new_name)

        def apply(transaction: Transaction) -> None:
            experiment = get_experiment(transaction, experiment_id)
            if experiment.lifecycle_stage is not LifecycleStage.ACTIVE:
                raise invalid_parameter("Cannot rename a non-active experiment.")
            taken_by = experiments.find_id_by_name(transaction, checked)
            if taken_by is not None and taken_by != experiment.experiment_id:
                raise already_exists(f"Experiment '{checked}' already exists.")
            experiments.set_name(transaction, experiment.experiment_id, checked)

        await self._writer.commit(Work(apply, alone=True))

    async def delete(self, experiment_id: str, principal: str | None) -> None:
        """Delete softly, with all active runs, however many they are."""

        def apply(transaction: Transaction) -> None:
            experiment = get_experiment(transaction, experiment_id)
            if experiment.lifecycle_stage is LifecycleStage.DELETED:
                raise does_not_exist(f"No Experiment with id={experiment_id} exists")
            own_id = experiment.experiment_id
            experiments.set_lifecycle_stage(transaction, own_id, LifecycleStage.DELETED)
            _append_if_announced(transaction, own_id, DeleteExperiment(own_id), principal, [ALL_RUNS_SETTLED])

        await self._writer.commit(Work(apply, alone=True))

    async def restore(self, experiment_id: str, principal: str | None) -> None:
        """Restore, with the runs that were deleted together with it."""

        def apply(transaction: Transaction) -> None:
            experiment = get_experiment(transaction, experiment_id)
            if experiment.lifecycle_stage is LifecycleStage.ACTIVE:
                raise does_not_exist(f"No Experiment with id={experiment_id} exists")
            own_id = experiment.experiment_id
            if removals.is_experiment_announced(transaction, own_id):
                raise invalid_parameter(f"The experiment {own_id} is being removed for good.")
            experiments.set_lifecycle_stage(transaction, own_id, LifecycleStage.ACTIVE)
            _append_if_announced(transaction, own_id, RestoreExperiment(own_id), principal, [])

        await self._writer.commit(Work(apply, alone=True))

    async def set_tag(self, experiment_id: str, key: str, value: str, principal: str | None) -> None:
        """Set one tag."""
        _check_tag(key, value)

        def apply(transaction: Transaction) -> None:
            experiment = get_experiment(transaction, experiment_id)
            require_active_experiment(experiment)
            own_id = experiment.experiment_id
            experiments.set_tags(transaction, own_id, [(key, value)])
            announce_experiment(transaction, own_id, principal)
            lane_id = experiments.lane_of(transaction, own_id)
            append_entry(transaction, lane_id, SetExperimentTag(own_id, key, value), principal=principal)

        await self._writer.commit(Work(apply))

    async def delete_tag(self, experiment_id: str, key: str) -> None:
        """Delete one tag here; the workspace has no call for it."""

        def apply(transaction: Transaction) -> None:
            experiment = get_experiment(transaction, experiment_id)
            require_active_experiment(experiment)
            if not experiments.delete_tag(transaction, experiment.experiment_id, key):
                raise does_not_exist(f"No tag with name: {key} in experiment with id {experiment_id}")

        await self._writer.commit(Work(apply))


def add_experiment(
    transaction: Transaction,
    name: str,
    *,
    artifact_location: str | None = None,
    principal: str | None = None,
    experiment_id: int | None = None,
) -> int:
    """Store an experiment with a lane and an upstream name of its own; its id."""
    return experiments.insert(
        transaction,
        name=name,
        upstream_name=_free_upstream_name(transaction, name),
        artifact_location=artifact_location,
        principal=principal,
        lane_id=open_lane(transaction, LaneKind.EXPERIMENT, 0),
        experiment_id=experiment_id,
    )


def add_default_experiment(transaction: Transaction) -> None:
    """Make experiment 0, if it is not there. It is delivered with its first run."""
    if experiments.find(transaction, DEFAULT_EXPERIMENT_ID) is None:
        add_experiment(transaction, DEFAULT_NAME, experiment_id=DEFAULT_EXPERIMENT_ID)


def announce_experiment(
    transaction: Transaction, experiment_id: int, principal: str | None
) -> Awaited | None:
    """See to it that the experiment is created upstream: always the first entry of its lane.

    What waits for that awaits the answer; None where it is settled.
    """
    return announce_home(
        transaction, experiments.list_homes(transaction, [experiment_id])[experiment_id], principal
    )


def announce_home(transaction: Transaction, home: Home, principal: str | None) -> Awaited | None:
    """As `announce_experiment`, where it is known how far the experiment's lane is."""
    if not home.announced:
        append_entry(transaction, home.lane_id, CreateExperiment(home.experiment_id), principal=principal)
    return None if home.settled else Awaited(home.lane_id, _CREATE_POSITION)


def _is_announced(transaction: Transaction, lane_id: int) -> bool:
    return bool(transaction.rows("SELECT last_position FROM lanes WHERE lane_id = ?", (lane_id,))[0][0])


def _append_if_announced(
    transaction: Transaction,
    experiment_id: int,
    operation: DeleteExperiment | RestoreExperiment,
    principal: str | None,
    awaits: Sequence[Awaited],
) -> None:
    lane_id = experiments.lane_of(transaction, experiment_id)
    if _is_announced(transaction, lane_id):
        append_entry(transaction, lane_id, operation, principal=principal, awaits=awaits)


def _free_upstream_name(transaction: Transaction, name: str) -> str:
    wanted = upstream_experiment_name(name)
    candidate = wanted
    number = 2
    while experiments.upstream_name_is_taken(transaction, candidate) or removals.is_name_retired(
        transaction, candidate
    ):
        candidate = f"{wanted}-{number}"
        number += 1
    return candidate


def _check_tag(key: str, value: str) -> None:
    limits.check_key(key, "key")
    limits.check_length("value", limits.EXPERIMENT_TAG_VALUE, value)
    limits.check_text("value", value)


def _check_location(location: str | None) -> None:
    """Only locations under the proxy: clients must not need credentials of their own."""
    if location and not location.startswith("mlflow-artifacts:/"):
        raise invalid_parameter(
            f"Invalid artifact_location '{location}': this server keeps artifacts itself;"
            " leave the location out, or give one that begins with 'mlflow-artifacts:/'."
        )
    limits.check_length("artifact_location", limits.ARTIFACT_LOCATION, location)
    if location:
        path = location.removeprefix("mlflow-artifacts:").strip("/")
        if any(character in path for character in "%#?\\"):
            raise invalid_parameter(f"Invalid artifact_location '{location}': it holds one of '%#?\\'.")
        checked_folder(path)
