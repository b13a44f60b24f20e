"""How often the workspace is called: what a 429 changes, and how it is forgotten."""

import asyncio

import pytest

from server.domain.clock import SystemClock
from server.journal.lanes import LaneKind
from server.journal.leases import Lane, Lease, LeaseLostError
from server.replay.pace import Pace, TokenBucket
from server.replay.turns import Turn, begin_turn


class _Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


def _calls_in(bucket: TokenBucket, clock: _Clock, seconds: float) -> int:
    """How many calls go in this time when there is always one that waits."""
    calls, end = 0, clock.seconds + seconds
    while clock.seconds < end:
        clock.seconds += bucket.take()
        calls += 1
        clock.seconds += 1e-6
    return calls


def test_a_second_s_worth_goes_at_once_and_then_as_many_as_the_rate_allows() -> None:
    """At 20 calls a second, the first 20 do not wait; in ten seconds 220 go."""
    clock = _Clock()
    bucket = TokenBucket(ceiling=20, clock=clock)
    assert [bucket.take() for _ in range(20)] == [0.0] * 20
    assert bucket.take() == pytest.approx(0.05)
    clock.seconds += 0.05
    assert 198 <= _calls_in(bucket, clock, 10) <= 202


def test_a_429_halves_the_rate_and_a_minute_restores_it() -> None:
    """The rate falls to half of what went, and climbs back in a straight line."""
    clock = _Clock()
    bucket = TokenBucket(ceiling=20, clock=clock)
    _calls_in(bucket, clock, 10)
    bucket.halve(clock.seconds)
    assert bucket.rate == pytest.approx(10, rel=0.05)
    clock.seconds += 30
    assert bucket.rate == pytest.approx(15, rel=0.05)
    clock.seconds += 60
    assert bucket.rate == 20


def test_what_is_halved_is_what_really_went() -> None:
    """A limit far below the ceiling is found at the first 429, not after a dozen of them."""
    clock = _Clock()
    bucket = TokenBucket(ceiling=1000, clock=clock)
    for _ in range(50):
        assert bucket.take() == 0
        clock.seconds += 0.1
    bucket.halve(clock.seconds)
    assert bucket.rate == pytest.approx(5, rel=0.1)


def test_429s_of_one_burst_count_once() -> None:
    """Eight calls that were under way together and are all refused halve the rate once."""
    clock = _Clock()
    bucket = TokenBucket(ceiling=16, clock=clock)
    _calls_in(bucket, clock, 5)
    admitted = clock.seconds
    for _ in range(8):
        clock.seconds += 0.01
        bucket.halve(admitted)
    assert bucket.rate == pytest.approx(8, rel=0.1)


def test_refused_again_and_again_one_call_goes_every_two_seconds() -> None:
    """The rate never falls so low that the workspace is not asked any more."""
    clock = _Clock()
    bucket = TokenBucket(ceiling=16, clock=clock)
    for _ in range(20):
        clock.seconds += bucket.take()
        bucket.halve(clock.seconds)
    assert bucket.rate == 0.5


async def _admit_after(lease_ends_in: float) -> None:
    clock = SystemClock()
    pace = Pace(TokenBucket(ceiling=100, clock=clock), clock=clock)
    lane = Lane(1, LaneKind.RUN_DATA, 1, 1, 0, 0, 0)
    begin_turn(Turn(Lease(lane, "token", 1), clock.monotonic() + lease_ends_in))
    await pace.admit()


def test_no_call_is_made_for_a_lane_whose_lease_may_have_ended() -> None:
    """A worker that finds itself running again after its lease is stopped at its next call."""
    asyncio.run(_admit_after(60.0))
    with pytest.raises(LeaseLostError):
        asyncio.run(_admit_after(-0.001))


async def _rates_seen() -> list[float]:
    clock = SystemClock()
    seen: list[float] = []
    pace = Pace(TokenBucket(ceiling=50, clock=clock), clock=clock, observe=seen.append)
    pace.throttled(await pace.admit())
    return seen


def test_the_rate_is_told() -> None:
    """An operator sees the rate fall."""
    before, after = asyncio.run(_rates_seen())
    assert before == 50
    assert after < 10
