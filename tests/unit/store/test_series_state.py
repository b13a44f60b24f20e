"""A series while a group of writes is decided."""

import random
from itertools import pairwise

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
    assert (series.highest_timestamp_ms, series.in_time_order) == (30, False)
    assert series.latest == later


@pytest.mark.parametrize("seed", range(200))
def test_a_series_in_time_order_reads_the_same_by_step_and_by_time(seed: int) -> None:
    """What a series says of its order holds, whatever came in which order; in turn, it does say so."""
    draw = random.Random(seed)
    points = [
        (draw.randrange(6), draw.randrange(6), draw.randrange(2) / 2, draw.randrange(2))
        for _ in range(draw.randrange(1, 7))
    ]
    if seed % 2:
        points.sort(key=lambda point: (point[0], point[1]))
    series = SeriesState.starting_with(1, "m", points[0])
    for point in points[1:]:
        series.add(point, set())
    by_step = sorted(series.added)
    by_time = sorted(series.added, key=lambda point: (point[1], point[0], point[2], point[3]))
    if series.in_time_order:
        assert by_step == by_time
    rises = all(former[0] < latter[0] and former[1] <= latter[1] for former, latter in pairwise(points))
    assert series.in_time_order or not rises
