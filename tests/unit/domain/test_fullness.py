"""When a bounded store has room, and how its refusals look."""

import pytest

from server.domain.fullness import Fullness, come_again, fullness_of, no_room


@pytest.mark.parametrize(
    ("used", "fullness"),
    [
        (0, Fullness.HAS_ROOM),
        (849, Fullness.HAS_ROOM),
        (850, Fullness.SOFT_FULL),
        (949, Fullness.SOFT_FULL),
        (950, Fullness.HARD_FULL),
        (2000, Fullness.HARD_FULL),
    ],
)
def test_the_levels_are_85_and_95_percent(used: int, fullness: Fullness) -> None:
    """What is exactly at a level has reached it."""
    assert fullness_of(used, 1000) is fullness


@pytest.mark.parametrize(("seconds", "header"), [(0.1, "1"), (2.4, "2"), (60, "60")])
def test_a_refusal_that_may_pass_says_when(seconds: float, header: str) -> None:
    """429, the status that every stock client repeats, with whole seconds of at least one."""
    refusal = come_again("full", seconds=seconds)
    assert (refusal.status, refusal.headers) == (429, {"Retry-After": header})


def test_a_refusal_for_lack_of_room_is_507() -> None:
    """No stock client repeats it."""
    assert (no_room("full").status, no_room("full").headers) == (507, {})
