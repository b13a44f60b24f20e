"""The target table: for each row what is wanted, what was measured, and whether that is enough.

A ratio is taken within each repeat and the middle of these is judged, so that what else the machine
did during a repeat is on both sides.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.figures import Spread, paired_ratios, spread
from benchmarks.results import Results
from benchmarks.stages import artifacts, client, delivery, footprint, reads, writes
from benchmarks.systems.kinds import FASTTRACKML, LIMIT, MLFLOW, POSTGRES, PROXY, SQLITE

_CPU = "cpu_ms_per_operation"
_NAMES = {MLFLOW: "mlflow server", FASTTRACKML: "FastTrackML", LIMIT: "limit program"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table. `is_met` is None where nothing could be measured.

    `cpu` is the other's processor time per operation over the proxy's: the steadier view of the same.
    """

    database: str
    what: str
    target: str
    measured: str
    compared: str
    ratio: str
    is_met: bool | None
    cpu: str = ""


@dataclass(frozen=True, slots=True)
class _Figure:
    """A figure and how it reads. `grows` says whether more is better."""

    name: str
    unit: str
    grows: bool

    def text(self, value: Spread | None) -> str:
        if value is None:
            return "not measured"
        middle = f"{readable(value.middle)}{self.unit}"
        if value.repeats == 1:
            return middle
        return f"{middle} ({readable(value.lowest)} to {readable(value.highest)})"


RATE = _Figure("per_second", "/s", grows=True)
TIME = _Figure("p50_ms", " ms", grows=False)
CALL = _Figure("ms_per_call", " ms", grows=False)
TRANSFER = _Figure("mib_per_second", " MiB/s", grows=True)

Judge = Callable[[Results, str], Verdict | None]


def judge_all(results: Results) -> list[Verdict]:
    """Every row that this run measured, by database."""
    return [
        verdict
        for database in (SQLITE, POSTGRES)
        for judge in TARGETS
        if (verdict := judge(results, database)) is not None
    ]


# --- kinds of target ------------------------------------------------------------------------


def _against(
    scenario: str, figure: _Figure, peer: str, least: float, *, on: tuple[str, ...] = (SQLITE, POSTGRES)
) -> Judge:
    """At least so many times as good as a peer."""

    def judge(results: Results, database: str) -> Verdict | None:
        ours = results.values(scenario, PROXY, database, figure.name)
        if not ours or database not in on:
            return None
        theirs = results.values(scenario, peer, database, figure.name)
        ratios = paired_ratios(ours, theirs) if figure.grows else paired_ratios(theirs, ours)
        ratio = spread(ratios)
        compared = figure.text(spread(list(theirs.values())))
        if ratio is None:
            compared = _why_missing(results, scenario, peer, database)
        return Verdict(
            database,
            scenario,
            f"≥ {least:g} × {_NAMES[peer]}",
            figure.text(spread(list(ours.values()))),
            compared,
            _ratio_text(ratio),
            None if ratio is None else ratio.middle >= least,
            _cpu_ratio(results, scenario, peer, database),
        )

    return judge


def _at_most_against(scenario: str, figure: _Figure, peer: str, most: float) -> Judge:
    """At most so many times the time of a peer."""

    def judge(results: Results, database: str) -> Verdict | None:
        ours = results.values(scenario, PROXY, database, figure.name)
        if not ours:
            return None
        theirs = results.values(scenario, peer, database, figure.name)
        ratio = spread(paired_ratios(ours, theirs))
        return Verdict(
            database,
            scenario,
            f"≤ {most:g} × the time against the {_NAMES[peer]}",
            figure.text(spread(list(ours.values()))),
            figure.text(spread(list(theirs.values()))),
            _ratio_text(ratio),
            None if ratio is None else ratio.middle <= most,
        )

    return judge


def _at_most(scenario: str, figure: str, most: float, unit: str, what: str | None = None) -> Judge:
    """At most so much, by itself."""

    def judge(results: Results, database: str) -> Verdict | None:
        found = spread(list(results.values(scenario, PROXY, database, figure).values()))
        if found is None:
            return None
        text = _Figure(figure, unit, grows=False).text(found)
        return Verdict(database, what or scenario, f"≤ {most:g}{unit}", text, "", "", found.middle <= most)

    return judge


def _near_the_flush(scenario: str, more_ms: float) -> Judge:
    """A lone client waits for little more than one flush of the disk."""

    def judge(results: Results, database: str) -> Verdict | None:
        if database != SQLITE:
            return None
        times = results.values(scenario, PROXY, database, "p50_ms")
        flushes = results.values(scenario, PROXY, database, "flush_p50_ms")
        over = spread([times[repeat] - flushes[repeat] for repeat in times])
        if over is None:
            return None
        return Verdict(
            database,
            f"{scenario}, p50",
            f"≤ flush p50 + {more_ms:g} ms",
            TIME.text(spread(list(times.values()))),
            f"flush {TIME.text(spread(list(flushes.values())))}",
            f"flush + {readable(over.middle)} ms",
            over.middle <= more_ms,
        )

    return judge


def _share_left(with_delivery: str, without: str, least: float, most_lag: float) -> Judge:
    """Answers go on while delivery runs, and delivery keeps up."""

    def judge(results: Results, database: str) -> Verdict | None:
        during = results.values(with_delivery, PROXY, database, RATE.name)
        alone = results.values(without, PROXY, database, RATE.name)
        lag = spread(list(results.values(with_delivery, PROXY, database, "most_lag_seconds").values()))
        ratio = spread(paired_ratios(during, alone))
        if ratio is None or lag is None:
            return None
        return Verdict(
            database,
            with_delivery,
            f"≥ {least:g} × without, lag ≤ {most_lag:g} s",
            f"{RATE.text(spread(list(during.values())))}, lag {readable(lag.middle)} s",
            f"without {RATE.text(spread(list(alone.values())))}",
            _ratio_text(ratio),
            ratio.middle >= least and lag.middle <= most_lag,
        )

    return judge


def _heaviest_memory(most_mib: float) -> Judge:
    """The most memory seen under any load of the run."""

    def judge(results: Results, database: str) -> Verdict | None:
        peaks = {
            item.scenario: float(item.figures["peak_pss_mib"])
            for item in results.measurements
            if item.system == PROXY and item.database == database and item.figures.get("peak_pss_mib")
        }
        if not peaks:
            return None
        scenario = max(peaks, key=lambda name: peaks[name])
        return Verdict(
            database,
            "memory (PSS) under the heaviest load",
            f"≤ {most_mib:g} MiB",
            f"{readable(peaks[scenario])} MiB",
            f"in: {scenario}",
            "",
            peaks[scenario] <= most_mib,
        )

    return judge


def _flat_memory(scenario: str, most_mib: float) -> Judge:
    """Memory does not grow with the size of what passes through."""

    def judge(results: Results, database: str) -> Verdict | None:
        peaks = results.values(scenario, PROXY, database, "peak_pss_mib")
        before = results.values(scenario, PROXY, database, "pss_before_mib")
        grown = spread([peaks[repeat] - before[repeat] for repeat in peaks])
        if grown is None:
            return None
        return Verdict(
            database,
            f"{scenario}: memory",
            f"flat (≤ {most_mib:g} MiB more)",
            f"{readable(grown.middle)} MiB more",
            "",
            "",
            grown.middle <= most_mib,
        )

    return judge


# --- the table ------------------------------------------------------------------------------


def _targets() -> Iterator[Judge]:
    only_sqlite = (SQLITE,)
    for scenario in (writes.LOG_METRIC_8, writes.LOG_METRIC_64):
        yield _against(scenario, RATE, MLFLOW, 30, on=only_sqlite)
        yield _against(scenario, RATE, FASTTRACKML, 3, on=only_sqlite)
    yield _against(writes.LOG_BATCH_100, RATE, MLFLOW, 20, on=only_sqlite)
    yield _against(writes.LOG_BATCH_100, RATE, FASTTRACKML, 6, on=only_sqlite)
    yield _against(writes.LOG_BATCH_1000, RATE, MLFLOW, 12, on=only_sqlite)
    yield _against(writes.LOG_BATCH_1000, RATE, FASTTRACKML, 8, on=only_sqlite)
    for scenario in (writes.LOG_METRIC_8, writes.LOG_METRIC_64):
        yield _against(scenario, RATE, LIMIT, 0.5, on=only_sqlite)
    for scenario in (writes.LOG_BATCH_100, writes.LOG_BATCH_1000):
        yield _against(scenario, RATE, LIMIT, 0.4, on=only_sqlite)
    yield _against(writes.CREATE_AND_UPDATE, RATE, MLFLOW, 30, on=only_sqlite)
    yield _against(writes.CREATE_AND_UPDATE, RATE, FASTTRACKML, 1.5, on=only_sqlite)
    yield _near_the_flush(writes.LOG_METRIC_1, more_ms=1)
    for scenario in (
        writes.LOG_METRIC_1,
        writes.LOG_METRIC_8,
        writes.LOG_METRIC_64,
        writes.LOG_BATCH_100,
        writes.LOG_BATCH_1000,
    ):
        yield _against(scenario, RATE, LIMIT, 0.5, on=(POSTGRES,))
    for cell in writes.CELLS:
        yield _against(cell.scenario, RATE, FASTTRACKML, 2, on=(POSTGRES,))
    for scenario in (reads.SEARCH_100_SORTED, reads.SEARCH_1000_SORTED, reads.SEARCH_100, reads.SEARCH_1000):
        yield _against(scenario, TIME, MLFLOW, 30)
        yield _against(scenario, TIME, FASTTRACKML, 2)
    yield _against(reads.HISTORY, TIME, MLFLOW, 20)
    yield _against(reads.HISTORY, TIME, FASTTRACKML, 3)
    yield _at_most(reads.CHART_DENSE, "p50_ms", 100, " ms")
    yield _at_most(reads.CHART_SPARSE, "p50_ms", 100, " ms")
    yield _at_most_against(client.STOCK_CLIENT, CALL, LIMIT, 1.15)
    yield _against(artifacts.PUT_LARGE, TRANSFER, MLFLOW, 1)
    yield _against(artifacts.GET_LARGE, TRANSFER, MLFLOW, 1)
    yield _against(artifacts.PUT_SMALL, RATE, MLFLOW, 1)
    yield _against(artifacts.GET_SMALL, RATE, MLFLOW, 5)
    yield _flat_memory(artifacts.PUT_LARGE, 32)
    yield _flat_memory(artifacts.GET_LARGE, 32)
    yield _at_most(footprint.START_FRESH, "start_seconds", 1.5, " s")
    yield _at_most(footprint.START_AGAIN, "start_seconds", 1.5, " s")
    yield _at_most(footprint.IDLE, "pss_mib", 120, " MiB", "memory (PSS) idle, with a workspace configured")
    yield _heaviest_memory(250)
    yield _at_most(delivery.ONE_RUN, "most_lag_seconds", 5, " s", f"{delivery.ONE_RUN}: lag")
    yield _at_most(
        delivery.ONE_RUN, "upstream_calls_per_second", 10, "/s", f"{delivery.ONE_RUN}: upstream calls"
    )
    yield _share_left(delivery.DURING, delivery.WITHOUT, 0.8, 5)


TARGETS: tuple[Judge, ...] = tuple(_targets())


# --- words ----------------------------------------------------------------------------------


def readable(value: float) -> str:
    """A number with three significant digits."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def _ratio_text(ratio: Spread | None) -> str:
    if ratio is None:
        return "–"
    middle = f"{readable(ratio.middle)} ×"
    if ratio.repeats == 1:
        return middle
    return f"{middle} ({readable(ratio.lowest)} to {readable(ratio.highest)})"


def _cpu_ratio(results: Results, scenario: str, peer: str, database: str) -> str:
    ours = results.values(scenario, PROXY, database, _CPU)
    theirs = results.values(scenario, peer, database, _CPU)
    ratio = spread(paired_ratios(theirs, ours))
    return "" if ratio is None else f"{readable(ratio.middle)} ×"


def _why_missing(results: Results, scenario: str, peer: str, database: str) -> str:
    failures = results.failures(scenario, peer, database)
    reason = results.skipped.get(peer) or results.skipped.get(f"{peer} on {database}")
    return f"skipped: {reason or (failures[0] if failures else 'not measured')}"
