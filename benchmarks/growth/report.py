"""The growth of a store as Markdown: a table for each dimension, sizes across."""

from collections.abc import Iterator

from benchmarks.report import describe_run, table
from benchmarks.results import Measurement, Results
from benchmarks.targets import readable

# (dimension, step, stored, at most so many ms)
_TARGETS = (("runs of an experiment", "first 100, unselective filter", 100_000, 50.0),)
_CPU = "cpu_ms_per_operation"
_FIGURES = (("p50_ms", " ms"), ("pss_mib", " MiB"), ("mib_on_disk", " MiB"))


def render(results: Results) -> str:
    """The whole page."""
    parts = [f"# Growth, {results.started[:10]}\n", describe_run(results)]
    for database in dict.fromkeys(database for _, database in results.systems()):
        held = [item for item in results.measurements if item.database == database]
        for dimension in dict.fromkeys(_dimension(item) for item in held):
            parts.append(f"## {dimension}, on {database}\n")
            parts.append(_table([item for item in held if _dimension(item) == dimension]))
            parts += _judged([item for item in held if _dimension(item) == dimension])
    return "\n".join(parts)


def _table(measurements: list[Measurement]) -> str:
    sizes = sorted({int(item.figures["stored"]) for item in measurements})
    names = list(dict.fromkeys(_name(item) for item in measurements))
    rows = [(name, *_cells([item for item in measurements if _name(item) == name], sizes)) for name in names]
    head = ("p50, one client (CPU, ms)", *(f"{size:,}" for size in sizes), "last / first", "CPU last / first")
    return table(head, rows)


def _judged(measurements: list[Measurement]) -> Iterator[str]:
    for dimension, step, stored, most_ms in _TARGETS:
        for item in measurements:
            if item.scenario == f"{dimension}: {step}" and item.figures.get("stored") == stored:
                text, value = _shown(item)
                is_met = value is not None and value <= most_ms
                word = "met" if is_met else "**missed**"
                yield f"Target: {step} of {stored:,} within {most_ms:g} ms: {text}, {word}.\n"


def _cells(measurements: list[Measurement], sizes: list[int]) -> Iterator[str]:
    by_size = {int(item.figures["stored"]): item for item in measurements}
    for size in sizes:
        yield _shown(by_size[size])[0] if size in by_size else ""
    ordered = [by_size[size] for size in sizes if size in by_size]
    yield _growth([_shown(item)[1] for item in ordered])
    yield _growth([item.figures.get(_CPU) for item in ordered])


def _growth(values: list[float | None]) -> str:
    """The last over the first."""
    known = [value for value in values if value]
    return f"{readable(known[-1] / known[0])} ×" if len(known) > 1 else ""


def _shown(item: Measurement) -> tuple[str, float | None]:
    if item.failed or item.figures.get("errors"):
        return f"failed: {(item.failed or str(item.figures.get('first_error')))[:80]}", None
    for name, unit in _FIGURES:
        if name in item.figures:
            value = float(item.figures[name])
            cpu = item.figures.get(_CPU)
            more = "" if cpu is None else f" ({readable(cpu)})"
            return f"{readable(value)}{unit}{more}", value
    return "", None


def _dimension(item: Measurement) -> str:
    return item.scenario.partition(": ")[0]


def _name(item: Measurement) -> str:
    return item.scenario.partition(": ")[2]
