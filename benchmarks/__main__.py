"""`python -m benchmarks …`: the commands behind `make bench` and its kin."""

import argparse
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from benchmarks import memory, plot, report, results
from benchmarks.bench import Bench, Options
from benchmarks.growth.dimensions import DIMENSIONS, Sizes
from benchmarks.growth.report import render as render_growth
from benchmarks.profiling import profile_hot_paths
from benchmarks.results import Results
from benchmarks.stages.artifacts import measure_artifacts
from benchmarks.stages.client import measure_client
from benchmarks.stages.delivery import measure_delivery
from benchmarks.stages.footprint import measure_footprint
from benchmarks.stages.reads import measure_reads
from benchmarks.stages.writes import measure_writes

Stage = Callable[[Bench, str], None]
Page = Callable[[Results], str]
Picture = Callable[[Results, str], str]

STAGES: dict[str, Stage] = {
    "writes": measure_writes,
    "reads": measure_reads,
    "client": measure_client,
    "artifacts": measure_artifacts,
    "footprint": measure_footprint,
    "delivery": measure_delivery,
}
QUICK = Options(
    repeats=1,
    seconds=2.0,
    searched_runs=2_000,
    history_points=50_000,
    chart_points=200_000,
    client_calls=300,
    artifact_mib=64,
    small_artifacts=100,
    delivery_seconds=8.0,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_targets(commands.add_parser("targets", help="the target table: everything, beside the peers"))
    _add_growth(commands.add_parser("growth", help="time per write and per page as a store grows"))
    _add_memory(commands.add_parser("memory", help="memory over time under a steady load"))
    _add_profile(commands.add_parser("profile", help="where the time goes in the hottest paths"))
    rendering = commands.add_parser("render", help="tables and plots of a result file, made anew")
    rendering.add_argument("file", type=Path)
    rendering.set_defaults(run=lambda options: _show(options.file))
    options = parser.parse_args(arguments)
    # Ended from outside, a run ends its servers all the same; a shell may have had SIGINT ignored.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    options.run(options)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


# --- targets --------------------------------------------------------------------------------


def _add_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="once, shorter, on smaller stores")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--seconds", type=float, help="length of one load")
    parser.add_argument("--stages", default=",".join(STAGES))
    _add_common(parser, databases="sqlite,postgres")
    parser.set_defaults(run=_run_targets)


def _run_targets(options: argparse.Namespace) -> None:
    asked = {name: getattr(options, name) for name in ("repeats", "seconds") if getattr(options, name)}
    kinds = tuple(options.databases.split(","))
    chosen = replace(QUICK if options.quick else Options(), databases=kinds, **asked)
    kind = "quick" if options.quick else "targets"
    output = _output(options, kind)
    with Bench(kind, chosen, output) as bench:
        bench.set_up_peers()
        for name in options.stages.split(","):
            for database in kinds:
                STAGES[name](bench, database)
        bench.finish()
    _show(output)


# --- growth, memory, profiles ---------------------------------------------------------------


def _add_growth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--share", type=float, default=1.0, help="leave out sizes above this share")
    parser.add_argument("--dimensions", default=",".join(DIMENSIONS))
    _add_common(parser, databases="sqlite,postgres")
    parser.set_defaults(run=_run_growth)


def _run_growth(options: argparse.Namespace) -> None:
    output = _output(options, "growth")
    sizes = Sizes().up_to(options.share)
    with Bench("growth", Options(repeats=1), output, shown=asdict(sizes)) as bench:
        for kind in options.databases.split(","):
            for name in options.dimensions.split(","):
                DIMENSIONS[name](bench, kind, sizes)
        bench.finish()
    _show(output)


def _add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--times", type=float, default=1.0, help="so many times the load: a day in an hour")
    _add_common(parser, databases="sqlite")
    parser.set_defaults(run=_run_memory)


def _run_memory(options: argparse.Namespace) -> None:
    output = _output(options, "memory")
    shown = {"seconds": options.seconds, "times": options.times}
    with Bench("memory", Options(repeats=1), output, shown=shown) as bench:
        for kind in options.databases.split(","):
            memory.measure_memory(bench, kind, options.seconds, options.times)
        bench.finish()
    _show(output)


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=15.0, help="length of one recording")
    _add_common(parser, databases="sqlite")
    parser.set_defaults(run=_run_profile)


def _run_profile(options: argparse.Namespace) -> None:
    output = _output(options, "profile")
    with Bench("profile", Options(repeats=1), output) as bench:
        for kind in options.databases.split(","):
            profile_hot_paths(bench, kind, options.seconds, output.parent / "profiles")


# --- files ----------------------------------------------------------------------------------


def _add_common(parser: argparse.ArgumentParser, *, databases: str) -> None:
    parser.add_argument("--databases", default=databases)
    parser.add_argument("--output", type=Path, help="the result file (default: benchmarks/results/<date>…)")


def _output(options: argparse.Namespace, kind: str) -> Path:
    today = datetime.now().astimezone().date().isoformat()
    name = today if kind == "targets" else f"{today}-{kind}"
    chosen: Path = options.output or results.FOLDER / f"{name}.json"
    return chosen.absolute()


def _show(file: Path) -> None:
    """Write the tables and plots beside the result file, and show the tables."""
    found = Results.read(file)
    page, picture = _PAGES[found.kind]
    for database in dict.fromkeys(database for _, database in found.systems()):
        if drawn := picture(found, database):
            file.with_name(f"{file.stem}-{database}.svg").write_text(drawn)
    shown = page(found)
    file.with_suffix(".md").write_text(shown)
    print(shown)


def _no_picture(found: Results, database: str) -> str:
    return ""


_PAGES: dict[str, tuple[Page, Picture]] = {
    "targets": (report.render, plot.draw),
    "quick": (report.render, plot.draw),
    "growth": (render_growth, _no_picture),
    "memory": (memory.render, memory.draw),
}


if __name__ == "__main__":
    main()
