"""The client that asks twice: one create, sent again because its answer was lost, makes one thing.

A create is taken for a resend when it equals an earlier one in who sent it, from which address, and every
byte of its body, and nobody has named what that one made (`services.namings`). It is answered with what was
made then, as it is now. Fingerprints are kept with what they made, in one transaction, so that this holds
through a crash too.

It is a guess, and two clients can look alike: workers of one launch, on one host, in one millisecond. To
merge them would be worse than to make a thing twice. So while the client of the earlier create is still
there, on a connection of its own, the later one is another's. And whoever registers one model twice, on one
connection, gets two versions: no answer was lost there.

A client that sends an `Idempotency-Key` leaves nothing to guess: its key stands for the create, for a day.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

import structlog

from server.commit.group_work import GroupWork
from server.commit.writer import Work, Writer
from server.database.engine import Transaction
from server.domain import failpoints
from server.domain.errors import MlflowError, invalid_parameter
from server.domain.origins import Connection, Origin
from server.services.claims import Answered, Asked, Claim, Claims, CreateKind, GroupedCreates, Made
from server.services.namings import Namings

R = TypeVar("R")
T = TypeVar("T")
log = structlog.get_logger(__name__)

DEDUPED_TAG = "mlproxy.create_deduped"
"""Set, to `true`, on what a create was answered with that another one had made."""
DEDUPED = "true"

_LONGEST_KEY = 255
_KEY_HOLDS = timedelta(hours=24)
_SIDE_BY_SIDE_SECONDS = 10.0
"""How long another connection that is open is believed: a client behind a dead network asks again only after
its timeout, and workers that start in one millisecond are not further apart than this."""
_LATELY_SECONDS = 30.0
"""How long connections are remembered: as long as the shortest of the times below."""


_RESENT_WITHIN: Mapping[CreateKind, timedelta] = {
    # Longer than stock clients go on asking: 244 s.
    CreateKind.RUN: timedelta(minutes=5),
    CreateKind.LOGGED_MODEL: timedelta(seconds=30),
    CreateKind.MODEL_VERSION: timedelta(seconds=30),
    CreateKind.EXPERIMENT: timedelta(minutes=5),
    CreateKind.REGISTERED_MODEL: timedelta(minutes=5),
}
_UNIQUE = frozenset({CreateKind.EXPERIMENT, CreateKind.REGISTERED_MODEL})
"""What has a name of its own cannot be made twice, and who asks twice on purpose wants to be refused. Such a
create is taken for a resend only while its answer has not been sent: the client had gone, or we had died."""


@dataclass(frozen=True, slots=True)
class Create(Generic[T]):
    """One create. `make` makes the thing; `repeat` answers again, or gives None when it is gone.

    A body that `tells_time` does not come twice by itself, from one client.
    """

    kind: CreateKind
    make: Callable[[Transaction], Made[T]]
    repeat: Callable[[Transaction, str], T | None]
    tells_time: bool = False
    rows: int = 1
    alone: bool = False


@dataclass(frozen=True, slots=True)
class GroupedCreate(Generic[R]):
    """One create of a kind that a group makes all together, under a name that was chosen for it (`subject`).

    `size_bytes` is what it adds to the backlog, as far as it tells.
    """

    request: R
    subject: str
    tells_time: bool
    size_bytes: int
    rows: int


class Resends:
    """Commits creates, each once."""

    def __init__(
        self, *, writer: Writer, namings: Namings, observe: Callable[[str], None] | None = None
    ) -> None:
        self._writer = writer
        self._namings = namings
        self._claims = Claims(namings)
        self._observe = observe or (lambda kind: None)
        self._lately: dict[bytes, tuple[Connection, float]] = {}
        """The last connection that sent each create, oldest first."""

    async def commit(self, create: Create[T], origin: Origin) -> T:
        """The answer to a create, once what it made is flushed; an earlier answer, if it is a resend.

        Raises:
            MlflowError: it broke a rule, or its key stands for another create (422) or for one whose
                result is gone.
        """
        claim = self._claim(create.kind, origin, tells_time=create.tells_time)

        def apply(transaction: Transaction) -> Answered[T]:
            return self._claims.make_or_repeat(transaction, create.kind, claim, create.make, create.repeat)

        made, is_resend = await self._writer.commit(Work(apply, rows=create.rows, alone=create.alone))
        if create.kind in _UNIQUE:
            origin.when_told(lambda: self._namings.after_read({made.subject}))
        self._tell(create.kind, is_resend=is_resend)
        return made.answer

    def grouped(
        self,
        kind: CreateKind,
        make_all: Callable[[Transaction, Sequence[R]], Sequence[Made[T] | MlflowError]],
        repeat: Callable[[Transaction, R, str], T | None],
    ) -> GroupedCreates[R, T]:
        """A kind of create for `commit_grouped`. To be made once, by the service that owns the kind."""
        return GroupedCreates(claims=self._claims, kind=kind, make_all=make_all, repeat=repeat)

    async def commit_grouped(
        self, creates: GroupedCreates[R, T], create: GroupedCreate[R], origin: Origin
    ) -> T:
        """Like `commit`, for a kind whose creates a group makes all together.

        Raises:
            MlflowError: as `commit`, or the backlog has no room for it.
        """
        claim = self._claim(creates.kind, origin, tells_time=create.tells_time)
        asked = Asked(create.request, create.subject, claim)
        job = GroupWork(creates.apply, asked, size_bytes=create.size_bytes, rows=create.rows)
        made, is_resend = await self._writer.commit_together(job)
        self._tell(creates.kind, is_resend=is_resend)
        return made.answer

    def _tell(self, kind: CreateKind, *, is_resend: bool) -> None:
        if is_resend:
            log.info("create_repeated", kind=kind.value)
            self._observe(kind.value)
        else:
            failpoints.reach("create.committed")

    # --- what it would be recognised by ---

    def _claim(self, kind: CreateKind, origin: Origin, *, tells_time: bool) -> Claim | None:
        if origin.idempotency_key is not None:
            if not 0 < len(origin.idempotency_key) <= _LONGEST_KEY:
                raise invalid_parameter(f"An Idempotency-Key has between 1 and {_LONGEST_KEY} characters.")
            key = origin.key_fingerprint(kind.value)
            return None if key is None else Claim(key, _KEY_HOLDS, origin.body_hash)
        fingerprint = origin.fingerprint(kind.value)
        if fingerprint is None or (kind is CreateKind.RUN and not tells_time):
            return None
        is_anothers = self._is_anothers(fingerprint, origin.connection, tells_time=tells_time)
        return Claim(fingerprint, _RESENT_WITHIN[kind], is_anothers=is_anothers)

    def _is_anothers(self, fingerprint: bytes, connection: Connection | None, *, tells_time: bool) -> bool:
        """Whether this is another create than the last one like it, as far as connections tell.

        It is when the client of the last one is still there, on another connection; or on this one, for
        whoever asks anew on a connection has read what came before on it.
        """
        now = time.monotonic()
        while self._lately and now - next(iter(self._lately.values()))[1] > _LATELY_SECONDS:
            del self._lately[next(iter(self._lately))]
        earlier, since = self._lately.pop(fingerprint, (None, now))
        if connection is not None:
            self._lately[fingerprint] = (connection, now)
        if earlier is None or earlier.is_closing():
            return False
        if earlier is connection:
            return not tells_time
        return now - since < _SIDE_BY_SIDE_SECONDS
