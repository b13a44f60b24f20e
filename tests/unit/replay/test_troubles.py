"""Whose failure it is: the workspace's or one lane's."""

from datetime import timedelta

import pytest

from server.replay.troubles import LaneTroubles


@pytest.fixture
def troubles() -> LaneTroubles:
    """Those of a workspace that was never called."""
    return LaneTroubles(jitter=lambda: 1.0)


def test_failures_are_the_workspaces_while_nobody_delivers(troubles: LaneTroubles) -> None:
    """However often a lane fails, nothing tells that another would not."""
    assert [troubles.failed(1) for _ in range(3)] == [None] * 3


def test_a_lane_that_fails_while_others_deliver_waits_alone(troubles: LaneTroubles) -> None:
    """Twice as long each time, at most five minutes."""
    assert troubles.failed(1) is None
    troubles.delivered(2)
    waits = [troubles.failed(1) for _ in range(9)]
    assert waits[:3] == [timedelta(seconds=4), timedelta(seconds=8), timedelta(seconds=16)]
    assert waits[-1] == timedelta(minutes=5)
    assert troubles.failed(2) is None


def test_what_a_lane_delivers_ends_its_trouble(troubles: LaneTroubles) -> None:
    """Its next failure is the first again."""
    troubles.failed(1)
    troubles.delivered(2)
    assert troubles.failed(1) is not None
    troubles.delivered(1)
    assert troubles.failed(1) is None
