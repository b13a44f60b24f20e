"""What the bound of the backlog lets in."""

import pytest

from server.commit.bounds import Admission, BacklogBound

LIMIT = 1_000_000


def bound(used: int) -> BacklogBound:
    """A backlog that holds so much."""
    made = BacklogBound(limit_bytes=LIMIT)
    made.note(used)
    return made


def status_of(made: BacklogBound, admission: Admission, size: int = 100, waiting: int = 0) -> int:
    """200 for what is let in, else the status of the refusal."""
    refusal = made.refusal(admission, size, waiting_bytes=waiting)
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("used", "ordinary", "run_ending"),
    [
        (0, 200, 200),
        (849_999, 200, 200),
        (850_000, 429, 200),
        (949_999, 429, 200),
        (950_000, 507, 200),
        (999_900, 507, 200),
        (999_901, 507, 507),
        (2_000_000, 507, 507),
    ],
)
def test_the_reserve_is_for_the_ends_of_runs(used: int, ordinary: int, run_ending: int) -> None:
    """Ordinary writes end at the soft limit, ends of runs at the limit, the server's own work nowhere."""
    made = bound(used)
    assert status_of(made, Admission.ORDINARY) == ordinary
    assert status_of(made, Admission.RUN_ENDING) == run_ending
    assert status_of(made, Admission.ALWAYS) == 200


def test_what_can_never_fit_is_refused_for_good() -> None:
    """Asking for it again would be in vain; what would fit later is told to come again."""
    assert status_of(bound(0), Admission.ORDINARY, size=LIMIT + 1) == 507
    assert status_of(bound(0), Admission.ORDINARY, size=LIMIT) == 200
    assert status_of(bound(1000), Admission.ORDINARY, size=LIMIT) == 429


def test_what_waits_for_its_commit_counts() -> None:
    """A burst does not overshoot the limit."""
    assert status_of(bound(800_000), Admission.ORDINARY, waiting=50_000) == 429


def test_a_measurement_corrects_what_is_known() -> None:
    """What was noted while the database was asked comes on top of its answer."""
    made = bound(500)
    before = made.used_bytes
    made.note(70)
    made.correct(10_000, used_before=before, seconds=5)
    assert made.used_bytes == 10_070


@pytest.mark.parametrize(("drained", "seconds"), [(0, "30"), (10_000, "15"), (1_000_000, "2")])
def test_clients_are_told_to_come_when_there_will_be_room(drained: int, seconds: str) -> None:
    """The wait follows the pace of delivery, between two seconds and thirty."""
    made = BacklogBound(limit_bytes=LIMIT)
    held = 880_000 - 100
    made.correct(held + drained, used_before=0, seconds=1)
    made.correct(held, used_before=made.used_bytes, seconds=5)
    assert wait_of(made) == seconds


def test_before_the_pace_is_known_the_wait_is_short() -> None:
    """A server that has just started has not seen any delivery yet."""
    made = BacklogBound(limit_bytes=LIMIT)
    made.correct(900_000, used_before=0, seconds=1)
    assert wait_of(made) == "5"


def wait_of(made: BacklogBound) -> str:
    """What a client is told."""
    refusal = made.refusal(Admission.ORDINARY, 100)
    assert refusal is not None
    return refusal.headers["Retry-After"]
