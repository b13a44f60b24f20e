"""In the writer's transaction: make what a create asks for, or find that an earlier one has made it.

`services.resends` says what a create would be recognised by. Here that is looked up and written down, in the
transaction that makes the thing: for one create, or for all of a kind that a group holds.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from server.commit.group_work import Done
from server.database.engine import Transaction
from server.domain.errors import ErrorCode, MlflowError, does_not_exist
from server.services.namings import Namings
from server.store import accepted_creates
from server.store.accepted_creates import AcceptedCreate

R = TypeVar("R")
T = TypeVar("T")


class CreateKind(StrEnum):
    """What is created."""

    EXPERIMENT = "experiment"
    RUN = "run"
    LOGGED_MODEL = "logged_model"
    REGISTERED_MODEL = "registered_model"
    MODEL_VERSION = "model_version"


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """What a create made: its answer, what the proxy remembers it by, and the lanes that it added to."""

    answer: T
    subject: str
    lanes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a create would be recognised by. `is_anothers`: an equal one that is not the same is under way."""

    fingerprint: bytes
    holds: timedelta
    body_hash: bytes | None = None
    is_anothers: bool = False


@dataclass(frozen=True, slots=True)
class Asked(Generic[R]):
    """One create of a group: what it asks for, the name it will be remembered by, and its claim, if any."""

    request: R
    subject: str
    claim: Claim | None


Answered = tuple[Made[T], bool]
"""What was made, and whether by an earlier create."""


class Claims:
    """Looks up, and writes down, what creates were answered with."""

    def __init__(self, namings: Namings) -> None:
        self._namings = namings

    def make_or_repeat(
        self,
        transaction: Transaction,
        kind: CreateKind,
        claim: Claim | None,
        make: Callable[[Transaction], Made[T]],
        repeat: Callable[[Transaction, str], T | None],
    ) -> Answered[T]:
        """Make one thing, unless an earlier create that holds has made it.

        Raises:
            MlflowError: it broke a rule, or its key stands for another create (422) or for one whose result
                is gone.
        """
        if claim is None:
            return make(transaction), False
        if claim.is_anothers:
            # Neither can be told from the other any more, should one of them lose its answer.
            accepted_creates.withdraw(transaction, [claim.fingerprint])
            return make(transaction), False
        earlier = accepted_creates.claim(transaction, claim.fingerprint)
        if earlier is not None:
            answer = self._repeat(transaction, claim, earlier, repeat)
            if answer is not None:
                return Made(answer, earlier.subject), True
        made = make(transaction)
        accepted_creates.record(
            transaction, claim.fingerprint, _accepted(transaction, kind, made.subject, claim)
        )
        return made, False

    def _repeat(
        self,
        transaction: Transaction,
        claim: Claim,
        earlier: AcceptedCreate,
        repeat: Callable[[Transaction, str], T | None],
    ) -> T | None:
        if claim.body_hash is None:
            named = self._namings.knows(transaction, earlier.subject)
            return None if named else repeat(transaction, earlier.subject)
        if claim.body_hash != earlier.body_hash:
            raise MlflowError(
                ErrorCode.INVALID_PARAMETER_VALUE,
                "This Idempotency-Key came with another request body before."
                " Use a new key for a new request.",
                status=422,
            )
        answer = repeat(transaction, earlier.subject)
        if answer is None:
            raise does_not_exist("What was made under this Idempotency-Key has been deleted since.")
        return answer


class GroupedCreates(Generic[R, T]):
    """All creates of one kind that a group holds.

    `make_all` makes what several requests ask for and answers each with it or with the rule that it broke;
    `repeat` answers again with what an earlier one made, or gives None when that is gone.
    """

    def __init__(
        self,
        *,
        claims: Claims,
        kind: CreateKind,
        make_all: Callable[[Transaction, Sequence[R]], Sequence[Made[T] | MlflowError]],
        repeat: Callable[[Transaction, R, str], T | None],
    ) -> None:
        self.kind = kind
        self._claims = claims
        self._make_all = make_all
        self._repeat = repeat

    def apply(
        self, transaction: Transaction, group: Sequence[Asked[R]]
    ) -> list[Done[Answered[T]] | MlflowError]:
        """Make what the group asks for, each thing once; for each what it is, or the rule that it broke.

        Those whose fingerprint nobody holds are made together. The others are few, and go one by one: they
        may have to be told of what the first of them has made.
        """
        new = self._claim_new(transaction, group)
        made = dict(zip(new, self._make_new(transaction, [group[place] for place in new]), strict=True))
        return [
            made[place] if place in made else self._apply_one(transaction, asked)
            for place, asked in enumerate(group)
        ]

    def _claim_new(self, transaction: Transaction, group: Sequence[Asked[R]]) -> list[int]:
        """The places in the group of those that are first in having their claim, or have none."""
        seen = Counter(asked.claim.fingerprint for asked in group if asked.claim is not None)
        once = [asked for asked in group if asked.claim is not None and seen[asked.claim.fingerprint] == 1]
        wanted = {
            asked.claim.fingerprint: _accepted(transaction, self.kind, asked.subject, asked.claim)
            for asked in once
            if asked.claim is not None and not asked.claim.is_anothers
        }
        claimed = accepted_creates.claim_together(transaction, wanted)
        return [
            place
            for place, asked in enumerate(group)
            if asked.claim is None or asked.claim.fingerprint in claimed
        ]

    def _make_new(
        self, transaction: Transaction, group: Sequence[Asked[R]]
    ) -> list[Done[Answered[T]] | MlflowError]:
        if not group:
            return []
        made = self._make_all(transaction, [asked.request for asked in group])
        refused = [
            asked.claim.fingerprint
            for asked, one in zip(group, made, strict=True)
            if asked.claim is not None and isinstance(one, MlflowError)
        ]
        accepted_creates.withdraw(transaction, refused)
        return [one if isinstance(one, MlflowError) else Done((one, False), one.lanes) for one in made]

    def _apply_one(self, transaction: Transaction, asked: Asked[R]) -> Done[Answered[T]] | MlflowError:
        touched = set(transaction.touched_lanes)

        def make(transaction: Transaction) -> Made[T]:
            [made] = self._make_all(transaction, [asked.request])
            if isinstance(made, MlflowError):
                raise made
            return made

        def repeat(transaction: Transaction, subject: str) -> T | None:
            return self._repeat(transaction, asked.request, subject)

        try:
            with transaction.savepoint():
                answered = self._claims.make_or_repeat(transaction, self.kind, asked.claim, make, repeat)
        except MlflowError as error:
            return error
        return Done(answered, frozenset(transaction.touched_lanes - touched))


def _accepted(transaction: Transaction, kind: CreateKind, subject: str, claim: Claim) -> AcceptedCreate:
    expires_at_ms = transaction.now_ms + int(claim.holds.total_seconds() * 1000)
    return AcceptedCreate(kind.value, subject, claim.body_hash, expires_at_ms)
