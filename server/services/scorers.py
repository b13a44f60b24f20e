"""Scorers: configurations of judges, kept by experiment and version, never run here and never delivered."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.errors import MlflowError, does_not_exist, invalid_parameter
from server.protocol import scorers as messages
from server.services.identity import get_experiment, require_active_experiment, resolve_experiment_id
from server.store import scorers
from server.store.scorers import ScorerVersion

T = TypeVar("T")

_LARGEST_VERSION = 2**31 - 1


class Scorers:
    """What can be done with scorers."""

    def __init__(self, *, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def register(
        self, request: messages.RegisterScorerRequest, principal: str | None
    ) -> messages.RegisterScorerAnswer:
        """Make the next version of a scorer."""
        name = messages.check_name(request.name)
        serialized = messages.check_serialized(request.serialized_scorer)

        def apply(transaction: Transaction) -> messages.RegisterScorerAnswer:
            experiment_id = _active_experiment(transaction, request.experiment_id)
            scorer_pk = scorers.find(transaction, experiment_id, name)
            if scorer_pk is None:
                scorer_pk = scorers.insert(transaction, experiment_id, name)
            made = scorers.insert_version(transaction, scorer_pk, serialized, principal=principal)
            return messages.RegisterScorerAnswer(
                version=made.version,
                scorer_id=made.scorer_id,
                experiment_id=str(made.experiment_id),
                name=made.name,
                serialized_scorer=made.serialized_scorer,
                creation_time=made.creation_time_ms,
            )

        return await self._writer.commit(Work(apply, size_bytes=len(serialized)))

    async def list_latest(self, request: messages.ListScorersRequest) -> list[messages.ScorerMessage]:
        """The latest version of each scorer of one experiment, of several, or of all that are active."""
        if request.experiment_id and request.experiment_ids is not None:
            raise invalid_parameter(
                "Cannot specify both 'experiment_id' and 'experiment_ids'. Use 'experiment_ids' to scope the"
                " query to multiple experiments, or 'experiment_id' to scope it to a single experiment."
            )

        def find(transaction: Transaction) -> list[messages.ScorerMessage]:
            if request.experiment_id:
                wanted = [_active_experiment(transaction, request.experiment_id)]
            else:
                wanted = _active_experiments(transaction, request.experiment_ids)
            return _show(scorers.list_latest(transaction, wanted))

        return await self._database.read(find)

    async def list_versions(self, request: messages.ScorerRequest) -> list[messages.ScorerMessage]:
        """Every version of a scorer, the oldest first."""

        def find(transaction: Transaction, scorer_pk: int) -> list[messages.ScorerMessage]:
            found = scorers.list_versions(transaction, scorer_pk)
            if not found:
                raise _not_found(request)
            return _show(found)

        return await self._read(request, find)

    async def get(self, request: messages.ScorerRequest) -> messages.ScorerMessage:
        """A version of a scorer, or the latest."""

        def find(transaction: Transaction, scorer_pk: int) -> messages.ScorerMessage:
            found = scorers.find_version(transaction, scorer_pk, _version(request))
            if found is None:
                raise _not_found(request)
            return _show([found])[0]

        return await self._read(request, find)

    async def delete(self, request: messages.ScorerRequest) -> None:
        """Delete a version of a scorer, or the scorer with all its versions."""

        def apply(transaction: Transaction) -> None:
            scorer_pk = _get(transaction, request)
            version = _version(request)
            if version is None:
                deleted = scorers.delete(transaction, scorer_pk)
            else:
                deleted = scorers.delete_version(transaction, scorer_pk, version)
            if not deleted:
                raise _not_found(request)

        await self._writer.commit(Work(apply))

    async def _read(self, request: messages.ScorerRequest, find: Callable[[Transaction, int], T]) -> T:
        return await self._database.read(lambda transaction: find(transaction, _get(transaction, request)))


def _get(transaction: Transaction, request: messages.ScorerRequest) -> int:
    name = messages.check_name(request.name)
    scorer_pk = scorers.find(transaction, _active_experiment(transaction, request.experiment_id), name)
    if scorer_pk is None:
        raise does_not_exist(f"Scorer with name '{name}' not found for experiment {request.experiment_id}.")
    return scorer_pk


def _version(request: messages.ScorerRequest) -> int | None:
    """The version asked for; 0, which no scorer has, for one beyond what can exist."""
    if request.version is None:
        return None
    return request.version if 0 < request.version <= _LARGEST_VERSION else 0


def _not_found(request: messages.ScorerRequest) -> MlflowError:
    version = "" if request.version is None else f" and version {request.version}"
    return does_not_exist(
        f"Scorer with name '{request.name}'{version} not found for experiment {request.experiment_id}."
    )


def _active_experiment(transaction: Transaction, text: str) -> int:
    experiment = get_experiment(transaction, text)
    require_active_experiment(experiment)
    return experiment.experiment_id


def _active_experiments(transaction: Transaction, texts: Sequence[str] | None) -> list[int]:
    if texts is None:
        return scorers.list_active_experiments(transaction, None)
    wanted = dict.fromkeys(resolve_experiment_id(transaction, text) for text in texts)
    return scorers.list_active_experiments(transaction, wanted)


def _show(versions: Sequence[ScorerVersion]) -> list[messages.ScorerMessage]:
    return [
        messages.ScorerMessage(
            experiment_id=item.experiment_id,
            scorer_name=item.name,
            scorer_version=item.version,
            serialized_scorer=item.serialized_scorer,
            creation_time=item.creation_time_ms,
            scorer_id=item.scorer_id,
        )
        for item in versions
    ]
