"""When the disk will be full: a line through what was measured."""

import pytest

from server.services.disk_outlook import DiskOutlook, growth_per_day

HOUR = 3600 * 1000
MIB = 1024 * 1024


def outlook(free: int, *, growth: float | None, least: int = 10) -> DiskOutlook:
    """A disk of a hundred bytes."""
    return DiskOutlook(free, 100, least, 40, 2, growth)


def test_steady_growth_is_found_whatever_the_noise() -> None:
    """A megabyte an hour, up and down by half of one, is 24 a day."""
    sizes = [(hour * HOUR, hour * MIB + (MIB // 2) * (-1) ** hour) for hour in range(336)]
    assert growth_per_day(sizes) == pytest.approx(24 * MIB, rel=0.02)


def test_what_began_today_counts_at_once() -> None:
    """After thirteen days at rest, a day that adds 10 MiB an hour is what is counted with."""
    rest = [(hour * HOUR, 0) for hour in range(13 * 24)]
    rush = [((13 * 24 + hour) * HOUR, hour * 10 * MIB) for hour in range(25)]
    assert growth_per_day(rest + rush) == pytest.approx(240 * MIB, rel=0.01)


def test_a_burst_that_is_over_is_not_forgotten_within_the_day() -> None:
    """A day at rest after a fortnight of growth: the fortnight still counts."""
    grown = [(hour * HOUR, hour * MIB) for hour in range(300)]
    rest = [((300 + hour) * HOUR, 300 * MIB) for hour in range(25)]
    growth = growth_per_day(grown + rest)
    assert growth is not None
    assert growth > 20 * MIB


@pytest.mark.parametrize("sizes", [[], [(0, 5)], [(0, 5), (HOUR - 1, 500)]])
def test_less_than_an_hour_says_nothing(sizes: list[tuple[int, int]]) -> None:
    """A start fills files of its own: that is no growth to count with."""
    assert growth_per_day(sizes) is None


def test_full_is_the_disk_at_its_headroom() -> None:
    """Fifty free, ten of them to stay, four a day: ten days."""
    assert outlook(50, growth=4).days_until_full == 10
    assert outlook(9, growth=-1).days_until_full == 0


@pytest.mark.parametrize("growth", [None, 0, -3.0])
def test_without_growth_there_is_no_such_day(growth: float | None) -> None:
    """Unknown growth, none, and a store that shrinks."""
    assert outlook(50, growth=growth).days_until_full is None
