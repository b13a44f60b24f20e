"""Tables and pictures show what a result file holds."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import memory, plot
from benchmarks.growth.report import render as render_growth
from benchmarks.profiling import read_samples
from benchmarks.profiling import render as render_profile
from benchmarks.report import render
from benchmarks.results import Figures, Measurement, Results
from benchmarks.stages import reads, writes
from benchmarks.targets import judge_all

MACHINE = {
    "system": "Linux",
    "processor": "Some",
    "processors": 2,
    "memory_gib": 8.0,
    "filesystem": "ext4",
    "python": "3.11",
    "load_average_at_start": 0.1,
    "flush": {"p50_ms": 0.2, "p99_ms": 1.0, "flushes": 10},
}


def results_of(*measurements: Measurement, kind: str = "targets") -> Results:
    """A result file."""
    found = Results(kind, {"repeats": 2}, MACHINE)
    found.measurements.extend(measurements)
    return found


def measured(
    scenario: str, system: str, repeat: int = 0, database: str = "sqlite", **figures: object
) -> Measurement:
    """One measurement."""
    return Measurement(scenario, system, database, repeat, dict(figures))


def test_a_result_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Tables can be made anew from the file alone."""
    written = results_of(measured(writes.LOG_METRIC_8, "proxy", per_second=10.0))
    written.skipped["fasttrackml"] = "no wheel"
    written.write(tmp_path / "results.json")

    assert Results.read(tmp_path / "results.json") == written


def test_a_target_is_judged_by_the_ratio_within_each_repeat() -> None:
    """The middle of the ratios decides, not the ratio of the middles: repeats differ for both sides."""
    found = results_of(
        measured(writes.LOG_METRIC_8, "proxy", 0, per_second=300.0),
        measured(writes.LOG_METRIC_8, "proxy", 1, per_second=3000.0),
        measured(writes.LOG_METRIC_8, "proxy", 2, per_second=310.0),
        measured(writes.LOG_METRIC_8, "mlflow", 0, per_second=10.0),
        measured(writes.LOG_METRIC_8, "mlflow", 1, per_second=99.0),
        measured(writes.LOG_METRIC_8, "mlflow", 2, per_second=10.0),
    )

    verdict = next(each for each in judge_all(found) if "mlflow" in each.target)

    assert verdict.is_met is True
    assert verdict.ratio == "30.3 × (30.0 to 31.0)"
    assert verdict.measured == "310/s (300 to 3,000)"


def test_for_times_less_is_better() -> None:
    """A page that takes the peer 100 ms and the proxy 40 ms is 2.5 times as fast."""
    found = results_of(
        measured(reads.SEARCH_100_SORTED, "proxy", p50_ms=40.0),
        measured(reads.SEARCH_100_SORTED, "fasttrackml", p50_ms=100.0),
        measured(reads.SEARCH_100_SORTED, "mlflow", p50_ms=1000.0),
    )

    verdicts = {each.target: (each.ratio, each.is_met) for each in judge_all(found)}

    assert verdicts["≥ 2 × FastTrackML"] == ("2.50 ×", True)
    assert verdicts["≥ 30 × mlflow server"] == ("25.0 ×", False)


def test_a_peer_that_was_skipped_says_why() -> None:
    """Its row stays in the table, with the reason and without a verdict."""
    found = results_of(measured(writes.LOG_METRIC_8, "proxy", per_second=10.0))
    found.skipped["fasttrackml"] = "no matching distribution"

    verdict = next(each for each in judge_all(found) if "FastTrackML" in each.target)

    assert verdict.is_met is None
    assert "no matching distribution" in verdict.compared
    assert "| – | – |" in render(found)


def test_a_repeat_that_was_mostly_errors_does_not_count() -> None:
    """A server that refuses fast is not fast."""
    found = results_of(
        measured(writes.LOG_METRIC_8, "proxy", per_second=100.0, operations=100, errors=0),
        measured(writes.LOG_METRIC_8, "mlflow", per_second=1.0, operations=5, errors=900, first_error="500"),
    )

    verdict = next(each for each in judge_all(found) if "mlflow" in each.target)

    assert verdict.is_met is None
    assert "500" in verdict.compared


def test_the_page_shows_every_figure_and_both_verdicts() -> None:
    """Met and missed are told apart, and the machine is described."""
    found = results_of(
        measured(writes.LOG_METRIC_8, "proxy", per_second=1000.0, p50_ms=2.0),
        measured(writes.LOG_METRIC_8, "mlflow", per_second=10.0, p50_ms=90.0),
        measured(writes.LOG_METRIC_8, "limit", per_second=4000.0, p50_ms=1.0),
    )

    page = render(found)

    assert "On SQLite 1 of 2 targets are met." in page
    assert "**missed**" in page
    assert "1,000/s, 2.00 ms p50" in page
    assert "2 × Some" in page


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_plot_has_a_bar_for_each_figure(database: str) -> None:
    """It is well-formed SVG, and longer bars are larger figures."""
    found = results_of(
        measured(writes.LOG_METRIC_8, "proxy", database=database, per_second=3000.0),
        measured(writes.LOG_METRIC_8, "mlflow", database=database, per_second=60.0),
    )

    root = ElementTree.fromstring(plot.draw(found, database))
    bars = [float(each.attrib["width"]) for each in root if each.attrib.get("x") == "290"]

    assert len(bars) == 3  # two bars and the first of the legend
    assert bars[0] > bars[1] > 0


def test_growth_shows_sizes_across_and_how_much_the_last_differs() -> None:
    """Each step is a row; the last column is the time at the largest size over that at the smallest."""

    def step(stored: int, p50_ms: float, cpu_ms: float) -> Measurement:
        figures = {"stored": stored, "p50_ms": p50_ms, "cpu_ms_per_operation": cpu_ms}
        return measured("runs: first 100", "proxy", **figures)

    page = render_growth(results_of(step(1000, 2.0, 1.0), step(100_000, 5.0, 4.0), kind="growth"))

    assert "| 1,000 | 100,000 | last / first | CPU last / first |" in page
    assert "| first 100 | 2.00 ms (1.00) | 5.00 ms (4.00) | 2.50 × | 4.00 × |" in page


def test_memory_is_a_table_and_a_curve() -> None:
    """The page tells the slope, the picture has a point for each sample."""
    figures: Figures = {
        "operations": 5000,
        "seconds": 120.0,
        "pss_mib": 91.0,
        "peak_pss_mib": 95.0,
        "pss_mib_after_warm_up": 90.0,
        "mib_per_hour": 0.5,
        "samples": [[0.0, 80.0], [60.0, 95.0], [120.0, 91.0]],
    }
    found = results_of(measured(memory.SCENARIO, "proxy", **figures), kind="memory")

    assert "0.50 MiB/h" in memory.render(found)
    root = ElementTree.fromstring(memory.draw(found, "sqlite"))
    curve = next(each for each in root if each.tag.endswith("polyline"))
    assert len(curve.attrib["points"].split()) == 3


def test_a_profile_leaves_out_what_waits() -> None:
    """Samples of idle threads count for no function; lines of one function count together."""
    text = "\n".join(
        [
            "thread (0x1): writer;run (server/commit/writer.py:10);commit (driver.py:5) 30",
            "thread (0x1): writer;run (server/commit/writer.py:12);commit (driver.py:7) 30",
            "thread (0x1): writer;run (server/commit/writer.py:9);Condition.wait (threading.py:327) 40",
            "thread (0x2): MainThread;handle (server/api/door.py:3) 40",
        ]
    )

    profile = read_samples(text)
    page = render_profile("a path", profile, 123.0)

    assert profile.samples == 100
    assert profile.own == {"commit (driver.py)": 60, "handle (server/api/door.py)": 40}
    assert profile.total["run (server/commit/writer.py)"] == 60
    assert "| writer | 60 % | 60.0 % |" in page
