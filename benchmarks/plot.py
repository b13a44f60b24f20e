"""A result file as a picture: for each scenario the proxy and its peers as bars, on a logarithmic scale."""

import math
from collections.abc import Sequence
from html import escape
from statistics import median

from benchmarks.results import Results
from benchmarks.stages import reads, writes
from benchmarks.systems.kinds import FASTTRACKML, LIMIT, MLFLOW, PROXY
from benchmarks.targets import readable

_SYSTEMS = ((PROXY, "#1f6feb"), (LIMIT, "#8c959f"), (FASTTRACKML, "#d4a72c"), (MLFLOW, "#cf5b3b"))
_PANELS = (
    (
        "Writes: operations per second, logarithmic (more is better)",
        "per_second",
        (
            writes.LOG_METRIC_1,
            writes.LOG_METRIC_8,
            writes.LOG_METRIC_64,
            writes.LOG_BATCH_100,
            writes.LOG_BATCH_1000,
            writes.CREATE_AND_UPDATE,
        ),
    ),
    (
        "Reads: milliseconds, logarithmic (less is better)",
        "p50_ms",
        (reads.SEARCH_100_SORTED, reads.SEARCH_1000_SORTED, reads.SEARCH_100, reads.HISTORY),
    ),
)
_WIDTH = 860
_LABELS = 290
_BARS = 480
_BAR = 12
_GROUP_GAP = 12
_TITLE = 34
_MARGIN = 16

Group = tuple[str, list[tuple[str, str, float]]]


def draw(results: Results, database: str) -> str:
    """The picture as SVG; empty without anything to show."""
    parts: list[str] = []
    top = float(_MARGIN)
    for title, figure, scenarios in _PANELS:
        groups = [group for each in scenarios if (group := _group(results, database, each, figure))[1]]
        if groups:
            panel, top = _panel(title, groups, top)
            parts += panel
    if not parts:
        return ""
    legend, top = _legend(top)
    height = top + _MARGIN
    style = "font-family: sans-serif; font-size: 12px; fill: #24292f"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" style="{style}">',
            f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
            *parts,
            *legend,
            "</svg>",
            "",
        ]
    )


def _group(results: Results, database: str, scenario: str, figure: str) -> Group:
    bars = []
    for system, colour in _SYSTEMS:
        values = list(results.values(scenario, system, database, figure).values())
        if values:
            bars.append((system, colour, median(values)))
    return scenario, bars


def _panel(title: str, groups: Sequence[Group], top: float) -> tuple[list[str], float]:
    values = [value for _, bars in groups for _, _, value in bars]
    # From the decade below the least, so that the shortest bar still shows.
    low = math.floor(math.log10(min(values)) - 0.01)
    high = math.log10(max(values))
    scale = _BARS / max(high - low, 1e-9)
    parts = [_text(_MARGIN, top + 14, title, "font-weight: bold; font-size: 14px")]
    top += _TITLE
    for name, bars in groups:
        parts.append(_text(_MARGIN, top + _BAR * len(bars) / 2 + 4, name))
        for _, colour, value in bars:
            width = (math.log10(value) - low) * scale
            parts.append(
                f'<rect x="{_LABELS}" y="{top:.1f}" width="{width:.1f}" height="{_BAR - 2}" fill="{colour}"/>'
            )
            parts.append(_text(_LABELS + width + 5, top + _BAR - 3, readable(value), "font-size: 10px"))
            top += _BAR
        top += _GROUP_GAP
    return parts, top


def _legend(top: float) -> tuple[list[str], float]:
    parts = []
    for index, (system, colour) in enumerate(_SYSTEMS):
        left = _LABELS + 125 * index
        parts.append(f'<rect x="{left}" y="{top:.1f}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(left + 15, top + 10, system))
    return parts, top + 14


def _text(left: float, base: float, text: str, style: str = "") -> str:
    styled = f' style="{style}"' if style else ""
    return f'<text x="{left:.1f}" y="{base:.1f}"{styled}>{escape(text)}</text>'
