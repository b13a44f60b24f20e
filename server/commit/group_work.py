"""Jobs of one kind that a group works all together, by a function of the services'."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.commit.bounds import Admission
from server.database.engine import Transaction
from server.domain.errors import MlflowError

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What a job came to, and the lanes that it added to."""

    result: T
    lanes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class GroupWork(Generic[R, T]):
    """One of several jobs with an equal `apply`, which is given all their requests, in order.

    It answers each with what it came to, or with the rule that it broke: then it has left nothing behind. It
    decides before it writes, for there is no savepoint. What else it raises has the jobs worked one by one.

    `size_bytes` is what the job adds to the backlog, as far as its request tells.
    """

    apply: Callable[[Transaction, Sequence[R]], Sequence[Done[T] | MlflowError]]
    request: R
    size_bytes: int = 256
    rows: int = 1
    admission: Admission = Admission.ORDINARY
