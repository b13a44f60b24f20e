"""How long to wait before another try."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from server.domain.backoff import Backoff

_BACKOFF = Backoff(first=timedelta(seconds=0.5), ceiling=timedelta(seconds=30))
_jitters = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 10**9), _jitters)
def test_a_wait_is_never_longer_than_the_ceiling_nor_shorter_than_half_the_first(
    attempt: int, jitter: float
) -> None:
    """Whatever the attempt, also one that would overflow a doubling."""
    wait = _BACKOFF.delay(attempt, lambda: jitter)
    assert _BACKOFF.first / 2 <= wait <= _BACKOFF.ceiling


@given(st.integers(1, 100), _jitters)
def test_waits_do_not_shrink_from_try_to_try(attempt: int, jitter: float) -> None:
    """With the same chance, a later try waits at least as long."""
    assert _BACKOFF.delay(attempt, lambda: jitter) <= _BACKOFF.delay(attempt + 1, lambda: jitter)


def test_the_first_waits_double() -> None:
    """Without jitter's cut: half, one, two, four seconds."""
    waits = [_BACKOFF.delay(attempt, lambda: 1.0).total_seconds() for attempt in (1, 2, 3, 4)]
    assert waits == [0.5, 1, 2, 4]
