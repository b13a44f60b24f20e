"""Medians, spreads, percentiles and ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of repeats, and how far they lie apart."""

    middle: float
    lowest: float
    highest: float
    repeats: int


def spread(values: Sequence[float]) -> Spread | None:
    """The median with the least and the greatest; None for no values."""
    if not values:
        return None
    return Spread(median(values), min(values), max(values), len(values))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the ordered values lie (nearest rank); 0 for none."""
    if not ordered:
        return 0.0
    rank = max(ceil(len(ordered) * share), 1)
    return ordered[min(rank, len(ordered)) - 1]


def paired_ratios(numerators: dict[int, float], denominators: dict[int, float]) -> list[float]:
    """The ratio in each repeat that has both: what the machine did meanwhile is in both, and cancels."""
    return [
        numerators[repeat] / denominators[repeat]
        for repeat in sorted(numerators.keys() & denominators.keys())
        if denominators[repeat]
    ]


def slope_per_hour(seconds: Sequence[float], values: Sequence[float]) -> float:
    """How much a value grows in an hour, by least squares; 0 for fewer than two."""
    if len(values) < 2:
        return 0.0
    mean_x = sum(seconds) / len(seconds)
    mean_y = sum(values) / len(values)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(seconds, values, strict=True))
    below = sum((x - mean_x) ** 2 for x in seconds)
    return 3600 * above / below if below else 0.0
