"""Putting parked entries back on their lanes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from server.database.engine import Transaction
from server.domain import failpoints
from server.domain.operations import CreateExperiment, CreateRegisteredModel, CreateRun
from server.journal import parked
from server.journal.codec import CorruptEntryError, decode_operation
from server.journal.entries import Appends
from server.journal.lanes import LaneKind, expect_uncertain
from server.journal.parked import Decision, ParkedEntry, ParkedKey, Reason
from server.journal.restored import restored_from
from server.services.retrying.judge import judge
from server.services.retrying.judgements import Ground, Judgement, Resend, Superseded, Unsendable

_CREATES = frozenset({CreateExperiment.__name__, CreateRegisteredModel.__name__, CreateRun.__name__})
_MOST_FOLLOWERS = 1000
_NAMED_IN_COMMAND = 20


@dataclass(frozen=True, slots=True)
class NotRetried:
    """An entry that did not go back, and why."""

    parked_id: int
    why: str


@dataclass(slots=True)
class Retried:
    """What became of entries that were to be retried. `kept` are still parked."""

    retried: list[int] = field(default_factory=list)
    superseded: list[NotRetried] = field(default_factory=list)
    kept: list[NotRetried] = field(default_factory=list)

    def add(self, other: "Retried") -> None:
        """Take in what became of others."""
        self.retried += other.retried
        self.superseded += other.superseded
        self.kept += other.kept


def order_of_retry(key: ParkedKey) -> tuple[int, int, int]:
    """Creates first and files next: the others may have to wait for them. In a lane the old order stays."""
    phase = 0 if key.kind in _CREATES else 1 if key.lane_kind is LaneKind.RUN_ARTIFACTS else 2
    return phase, key.lane_id, key.position


def retry_entries(
    transaction: Transaction, *, keys: Sequence[ParkedKey], operator: str, has_bytes: Callable[[str], bool]
) -> Retried:
    """Put entries back at the end of their lanes, in the order given, but for what came later replaced."""
    retry = _Retry(transaction, keys, operator, has_bytes)
    entries = parked.get_many(transaction, [key.parked_id for key in keys])
    for key in keys:
        retry.retry(entries[key.parked_id])
    retry.appends.write()
    failpoints.reach("parked.retried")
    return retry.outcome


class _Retry:
    """One transaction's retries."""

    def __init__(
        self,
        transaction: Transaction,
        keys: Sequence[ParkedKey],
        operator: str,
        has_bytes: Callable[[str], bool],
    ) -> None:
        self._transaction = transaction
        self._operator = operator
        self._creates: dict[int, int] = {}
        self._ground = Ground(transaction, self._creates, has_bytes)
        self.appends = Appends(transaction, {key.lane_id for key in keys})
        self.outcome = Retried()

    def retry(self, entry: ParkedEntry) -> None:
        match self._judge(entry):
            case Resend() as resend:
                if self._decide(entry, Decision.RETRIED):
                    self._append(entry, resend)
                    self.outcome.retried.append(entry.parked_id)
            case Superseded(why):
                if self._decide(entry, Decision.SUPERSEDED, why):
                    self.outcome.superseded.append(NotRetried(entry.parked_id, why))
            case Unsendable(why):
                self.outcome.kept.append(NotRetried(entry.parked_id, why))

    def _judge(self, entry: ParkedEntry) -> Judgement:
        try:
            operation = decode_operation(entry.kind, entry.payload)
        except CorruptEntryError as error:
            return Unsendable(f"It cannot be read back: {error}")
        return judge(self._ground, entry.subject_id, operation)

    def _decide(self, entry: ParkedEntry, decision: Decision, reason: str | None = None) -> bool:
        """Whether the decision stands: nobody else has made one meanwhile."""
        return parked.decide(
            self._transaction, entry.parked_id, decision, decided_by=self._operator, reason=reason
        )

    def _append(self, entry: ParkedEntry, resend: Resend) -> None:
        if resend.point is not None:
            position = self.appends.append_point(entry.lane_id, resend.point)
        else:
            position = self.appends.append(
                entry.lane_id,
                resend.operation,
                principal=entry.principal,
                awaits=resend.awaits,
                awaits_end_of=resend.awaits_end_of,
            )
        if isinstance(resend.operation, CreateRun):
            self._creates[entry.lane_id] = position
        if entry.reason == Reason.UNCERTAIN_OUTCOME or self._is_restored(entry):
            # The workspace may have it after all: it is looked for before it is sent.
            expect_uncertain(self._transaction, entry.lane_id, position)

    def _is_restored(self, entry: ParkedEntry) -> bool:
        """Whether it was parked before a backup was made: it may have been retried after it."""
        restored_from_ms = restored_from(self._transaction)
        return restored_from_ms is not None and entry.parked_at_ms <= restored_from_ms


def find_followers(transaction: Transaction, keys: Sequence[ParkedKey]) -> tuple[list[int], str | None]:
    """Parked entries that can follow the creates among those retried, and the command that lets them."""
    creates = [key for key in keys if key.kind in _CREATES]
    found: set[int] = set()
    for key in creates:
        found.update(parked.list_dependent(transaction, key, limit=_MOST_FOLLOWERS))
        if len(found) >= _MOST_FOLLOWERS:
            break
    followers = sorted(found)[:_MOST_FOLLOWERS]
    if not followers:
        return [], None
    command = _command(transaction, creates, followers)
    return followers, f"{len(followers)} more wait for what is created now. To let them follow: {command}"


def _command(transaction: Transaction, creates: Sequence[ParkedKey], followers: Sequence[int]) -> str:
    if len(creates) == 1 and creates[0].lane_kind is LaneKind.RUN_DATA:
        entry = parked.find(transaction, creates[0].parked_id)
        if entry is not None:
            return f"mlproxy parked retry --run {entry.run_id}"
    if len(followers) > _NAMED_IN_COMMAND:
        return "mlproxy parked retry --all"
    return f"mlproxy parked retry {' '.join(map(str, followers))}"
