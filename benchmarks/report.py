"""A result file as Markdown: the target table, then everything that was measured."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.figures import spread
from benchmarks.results import Results
from benchmarks.targets import Verdict, judge_all, readable

_WORDS = {True: "met", False: "**missed**", None: "–"}
# What is shown of a measurement, in this order, with its unit.
_COLUMNS = (
    ("per_second", "/s"),
    ("p50_ms", " ms p50"),
    ("p99_ms", " ms p99"),
    ("ms_per_call", " ms a call"),
    ("mib_per_second", " MiB/s"),
    ("start_seconds", " s"),
    ("pss_mib", " MiB"),
    ("most_lag_seconds", " s lag"),
    ("upstream_calls_per_second", " calls/s upstream"),
    ("cpu_ms_per_operation", " ms CPU"),
    ("cpu_seconds", " s CPU"),
)


def render(results: Results) -> str:
    """The whole page."""
    parts = [
        f"# Benchmarks of {results.started[:10]}\n",
        describe_run(results),
        "## Targets\n",
        target_table(judge_all(results)),
        *_all_figures(results),
    ]
    return "\n".join(part for part in parts if part)


def target_table(verdicts: Sequence[Verdict]) -> str:
    """Target, measured, ratio: one table for each database."""
    parts = []
    for database in dict.fromkeys(verdict.database for verdict in verdicts):
        rows = [verdict for verdict in verdicts if verdict.database == database]
        met = sum(1 for verdict in rows if verdict.is_met)
        judged = sum(1 for verdict in rows if verdict.is_met is not None)
        parts.append(f"On {_title(database)} {met} of {judged} targets are met.\n")
        parts.append(
            table(
                ("what", "target", "measured", "compared with", "ratio", "", "CPU ratio"),
                (
                    (row.what, row.target, row.measured, row.compared, row.ratio, _WORDS[row.is_met], row.cpu)
                    for row in rows
                ),
            )
        )
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; numbers stand to the right where a whole column is numbers."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' for _ in head)}|"]
    lines += [
        f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in row)} |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def describe_run(results: Results) -> str:
    """On what, of what, when; and what to bear in mind."""
    return _machine(results) + _caveats(results)


def _machine(results: Results) -> str:
    machine = results.machine
    flush = machine["flush"]
    lines = [
        f"- machine: {machine['processors']} × {machine['processor']}, {machine['memory_gib']} GiB,"
        f" {machine['filesystem']}, {machine['system']}, Python {machine['python']}",
        f"- one flush of 4 KiB to disk: p50 {flush['p50_ms']} ms, p99 {flush['p99_ms']} ms",
        f"- load average at the start: {machine['load_average_at_start']}",
        f"- measured: {'; '.join(results.versions.values())}",
        f"- from {results.started} to {results.ended or 'not finished'}",
        f"- options: {_options(results.options)}",
    ]
    return "\n".join(lines) + "\n"


def _caveats(results: Results) -> str:
    lines = []
    processors = results.machine["processors"] or 1
    if results.machine["load_average_at_start"] > processors / 4:
        lines.append("- The machine did other work at the same time: only ratios are worth reading.")
    if results.kind == "quick":
        lines.append("- A quick run: one repeat, short loads, smaller stores than the targets name.")
    lines += [f"- {name} was skipped: {reason}" for name, reason in results.skipped.items()]
    lines += [f"- {note}" for note in results.notes]
    return "\n".join(lines) + "\n" if lines else ""


def _all_figures(results: Results) -> Iterable[str]:
    yield "## All figures\n"
    yield "The middle of the repeats. CPU is the server's processor time per operation, its workers' and"
    yield "Postgres' included.\n"
    for database in dict.fromkeys(database for _, database in results.systems()):
        systems = [system for system, held in results.systems() if held == database]
        systems = list(dict.fromkeys(systems))
        yield f"### On {_title(database)}\n"
        yield table(
            ("", *systems),
            (
                (scenario, *cells)
                for scenario in results.scenarios()
                if any(cells := [_cell(results, scenario, system, database) for system in systems])
            ),
        )


def _cell(results: Results, scenario: str, system: str, database: str) -> str:
    shown = []
    for name, unit in _COLUMNS:
        found = spread(list(results.values(scenario, system, database, name).values()))
        if found is not None:
            shown.append(f"{readable(found.middle)}{unit}")
    if shown:
        return ", ".join(shown)
    failures = results.failures(scenario, system, database)
    return f"failed: {failures[0][:120]}" if failures else ""


def _options(options: Mapping[str, object]) -> str:
    shown = []
    for name, value in options.items():
        text = " and ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        shown.append(f"{name.replace('_', ' ')} {text}")
    return ", ".join(shown)


def _title(database: str) -> str:
    return {"sqlite": "SQLite", "postgres": "Postgres"}[database]
