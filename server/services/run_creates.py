"""Making runs: all that a group of requests asks for together.

Three steps, as for writes to runs: read what the requests name in a few set-based statements, decide each in
memory, write with one statement per table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.database.engine import Transaction
from server.domain.entities import LifecycleStage, RunInfo, RunStatus
from server.domain.errors import MlflowError, does_not_exist
from server.domain.operations import CreateRun, SetTag
from server.journal.entries import Appends, Awaited, append_entry
from server.journal.lanes import LaneKind, NewLane
from server.protocol import runs as messages
from server.protocol.experiments import TagMessage
from server.services.claims import Made
from server.services.experiments import announce_home
from server.services.identity import require_active_experiment, resolve_experiment_id
from server.services.resends import DEDUPED, DEDUPED_TAG
from server.services.run_messages import load_runs
from server.store import experiments, runs
from server.store.announcements import announce_runs
from server.store.experiments import Home
from server.store.runs import NewRun, RunKeys

_CREATE_POSITION = 1
_LONGEST_CREATE_TAG = 1000
_ROW_BYTES = 64


@dataclass(frozen=True, slots=True)
class RunCreate:
    """One request for a run, which is to have that id. `experiment_id` is as it was given, `tags` are all."""

    run_id: str
    experiment_id: str
    name: str
    user_id: str
    start_time_ms: int | None
    parent_run_id: str | None
    principal: str | None
    tags: Sequence[tuple[str, str]]

    @property
    def rows(self) -> int:
        """How many rows it may write."""
        return 5 + len(self.tags)

    @property
    def size_bytes(self) -> int:
        """What it adds to the backlog, about."""
        return _ROW_BYTES * (1 + len(self.tags)) + sum(len(key) + len(value) for key, value in self.tags)


@dataclass(frozen=True, slots=True)
class _Added:
    """A run that was stored, and the lanes that hold what is promised of it."""

    run_pk: int
    lanes: frozenset[int]


def make_runs(
    transaction: Transaction, group: Sequence[RunCreate]
) -> list[Made[messages.RunMessage] | MlflowError]:
    """Make what the requests ask for; for each the run, or the rule that it broke."""
    homes = _find_homes(transaction, {create.experiment_id for create in group})
    chosen = [_decide(create, homes[create.experiment_id]) for create in group]
    new = [run for run in chosen if isinstance(run, NewRun)]
    known = {home.experiment_id: home for home in homes.values() if isinstance(home, Home)}
    added = iter(_add_runs(transaction, new, known))
    made: list[Made[messages.RunMessage] | MlflowError] = []
    infos: list[RunInfo] = []
    for run in chosen:
        if isinstance(run, MlflowError):
            made.append(run)
            continue
        one = next(added)
        infos.append(_info_of(run, one.run_pk))
        made.append(Made(_message_of(infos[-1], run), run.run_id, one.lanes))
    if infos:
        announce_runs(transaction, [("created", info) for info in infos])
    return made


def repeat_run(transaction: Transaction, create: RunCreate, run_id: str) -> messages.RunMessage | None:
    """The run that an earlier create made, as it is now, with a tag that says it was asked for again."""
    found = runs.list_infos(transaction, list(runs.find_made(transaction, [run_id]).values()))
    if not found:
        return None
    info = found[0]
    tags = dict(runs.list_tags(transaction, [info.run_pk]).get(info.run_pk, []))
    if DEDUPED_TAG not in tags and info.lifecycle_stage is LifecycleStage.ACTIVE:
        runs.set_tag(transaction, info.run_pk, DEDUPED_TAG, DEDUPED)
        lane_id = runs.data_lane_of(transaction, info.run_pk)
        append_entry(transaction, lane_id, SetTag(DEDUPED_TAG, DEDUPED), principal=create.principal)
    return load_runs(transaction, found)[0]


def add_run(transaction: Transaction, new: NewRun) -> None:
    """Store a new run with lanes of its own, and promise its delivery."""
    _add_runs(transaction, [new], experiments.list_homes(transaction, [new.experiment_id]))


# --- deciding -------------------------------------------------------------------------------


def _find_homes(transaction: Transaction, texts: Iterable[str]) -> dict[str, Home | MlflowError]:
    """The experiments by the ids that were given for them."""
    ids: dict[str, int] = {}
    homes: dict[str, Home | MlflowError] = {}
    for text in texts:
        try:
            ids[text] = resolve_experiment_id(transaction, text)
        except MlflowError as error:
            homes[text] = error
    found = experiments.list_homes(transaction, set(ids.values()))
    for text, experiment_id in ids.items():
        homes[text] = found.get(experiment_id) or does_not_exist(f"No Experiment with id={text} exists")
    return homes


def _decide(create: RunCreate, home: Home | MlflowError) -> NewRun | MlflowError:
    if isinstance(home, MlflowError):
        return home
    try:
        require_active_experiment(home)
    except MlflowError as error:
        return error
    return NewRun(
        run_id=create.run_id,
        experiment_id=home.experiment_id,
        name=create.name,
        user_id=create.user_id,
        status=RunStatus.RUNNING,
        start_time_ms=create.start_time_ms,
        artifact_uri=f"{home.artifact_location.rstrip('/')}/{create.run_id}/artifacts",
        parent_run_id=create.parent_run_id,
        principal=create.principal,
        tags=create.tags,
    )


def _info_of(run: NewRun, run_pk: int) -> RunInfo:
    return RunInfo(
        run_pk,
        run.run_id,
        run.experiment_id,
        run.name,
        run.user_id,
        run.status,
        run.start_time_ms,
        None,
        run.artifact_uri,
        LifecycleStage.ACTIVE,
    )


def _message_of(info: RunInfo, run: NewRun) -> messages.RunMessage:
    data = messages.RunDataMessage(tags=[TagMessage(key, value) for key, value in run.tags])
    return messages.RunMessage(messages.run_info_message(info), data, messages.RunInputsMessage())


# --- writing --------------------------------------------------------------------------------


def _add_runs(transaction: Transaction, new: Sequence[NewRun], homes: Mapping[int, Home]) -> list[_Added]:
    """Store new runs with lanes of their own, and promise their delivery."""
    if not new:
        return []
    parents = runs.find_parents(transaction, {run.parent_run_id for run in new if run.parent_run_id})
    awaited, announced = _announce_homes(transaction, new, homes)
    keys = runs.take_keys(transaction, len(new))
    appends = Appends(transaction, opened=_lanes_of(keys))
    for run, own in zip(new, keys, strict=True):
        # A run is made after its experiment, and a child after a parent that is still on its way.
        awaits = awaited[run.experiment_id]
        parent = parents.get(run.parent_run_id or "")
        if parent is not None and parent.settled < _CREATE_POSITION:
            awaits = [*awaits, Awaited(parent.data_lane, _CREATE_POSITION)]
        _append_create(appends, run, own.data_lane, awaits)
    transaction.run_all([*runs.inserted(transaction, zip(new, keys, strict=True)), *appends.changes()])
    return [
        _Added(own.run_pk, announced.pop(run.experiment_id, frozenset()) | {own.data_lane})
        for run, own in zip(new, keys, strict=True)
    ]


def _announce_homes(
    transaction: Transaction, new: Sequence[NewRun], homes: Mapping[int, Home]
) -> tuple[dict[int, list[Awaited]], dict[int, frozenset[int]]]:
    """What the runs of each experiment await of it; the lanes of experiments that they announce."""
    awaited: dict[int, list[Awaited]] = {}
    announced: dict[int, frozenset[int]] = {}
    for run in new:
        if run.experiment_id not in awaited:
            home = homes[run.experiment_id]
            creation = announce_home(transaction, home, run.principal)
            awaited[run.experiment_id] = [] if creation is None else [creation]
            if not home.announced:
                announced[run.experiment_id] = frozenset({home.lane_id})
    return awaited, announced


def _lanes_of(keys: Sequence[RunKeys]) -> dict[int, NewLane]:
    lanes: dict[int, NewLane] = {}
    for own in keys:
        lanes[own.data_lane] = NewLane(LaneKind.RUN_DATA, own.run_pk)
        lanes[own.artifact_lane] = NewLane(LaneKind.RUN_ARTIFACTS, own.run_pk)
    return lanes


def _append_create(appends: Appends, run: NewRun, data_lane: int, awaits: Sequence[Awaited]) -> None:
    """The run's creation, and its own tags after it: one that is refused must not hold up the run."""
    system = {key: value for key, value in run.tags if _goes_with_create(key, value)}
    operation = CreateRun(run.name, run.user_id, run.start_time_ms, run.parent_run_id, system)
    appends.append(data_lane, operation, principal=run.principal, awaits=awaits)
    for key, value in run.tags:
        if key not in system:
            appends.append(data_lane, SetTag(key, value), principal=run.principal)


def _goes_with_create(key: str, value: str) -> bool:
    return key.startswith("mlflow.") and len(value) <= _LONGEST_CREATE_TAG
