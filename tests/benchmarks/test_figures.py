"""Medians, percentiles, ratios and slopes are what their names say."""

import pytest

from benchmarks.figures import paired_ratios, percentile, slope_per_hour, spread


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """Nearest rank: no value is made up between two measured ones."""
    ordered = [float(value) for value in range(1, 101)]

    assert [percentile(ordered, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.5) == 0.0


def test_a_spread_tells_the_middle_and_the_ends() -> None:
    """The median is robust to one bad repeat, which the ends still show."""
    found = spread([3.0, 100.0, 2.0])

    assert found is not None
    assert (found.middle, found.lowest, found.highest, found.repeats) == (3.0, 2.0, 100.0, 3)
    assert spread([]) is None


def test_ratios_pair_what_was_measured_in_the_same_repeat() -> None:
    """A repeat that one side lacks, or that is zero, gives no ratio."""
    assert paired_ratios({0: 10.0, 1: 30.0, 2: 5.0}, {0: 5.0, 1: 10.0, 3: 1.0}) == [2.0, 3.0]
    assert paired_ratios({0: 1.0}, {0: 0.0}) == []


def test_a_slope_is_growth_per_hour() -> None:
    """Two units in a minute are 120 in an hour; what wavers about a level does not grow."""
    assert slope_per_hour([0, 30, 60], [10, 11, 12]) == pytest.approx(120)
    assert slope_per_hour([0, 1, 2, 3], [5, 6, 6, 5]) == pytest.approx(0)
    assert slope_per_hour([0], [1]) == 0
