"""A series while a group of writes is decided."""

import pytest

from server.store.metrics import SeriesState


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_repeated_point_is_found_whenever_it_comes(repeats: int) -> None:
    """A series knows the points that were just added, those that came in order and those that did not."""
    first, later, between = (1, 10, 0.5, 0), (3, 5, 0.25, 0), (2, 30, 0.125, 0)
    series = SeriesState.starting_with(1, "m", first)
    added = [series.add(point, set()) for _ in range(repeats) for point in (later, between, first)]
    assert added == [True, True, False] + [False, False, False] * (repeats - 1)
    assert (series.points, series.added) == (3, [first, later, between])
    assert (series.lowest_step, series.highest_step) == (1, 3)
    assert (series.lowest_timestamp_ms, series.highest_timestamp_ms) == (5, 30)
    assert series.latest == later
