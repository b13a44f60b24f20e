"""What is remembered of runs: only what was committed, of active runs, up to the bound."""

from dataclasses import replace

from server.commit.remembered_runs import RememberedRuns, RunState
from server.domain.entities import LifecycleStage, RunInfo, RunStatus
from server.store.metrics import SeriesState

POSITION = 12


def run_with(run_id: str, *keys: str) -> RunState:
    """A run with metrics of one point each, all of it just changed."""
    info = RunInfo(
        1, run_id, 0, "run", "", RunStatus.RUNNING, None, None, "mlflow-artifacts:/0/a", LifecycleStage.ACTIVE
    )
    series = {key: SeriesState.starting_with(1, key, (0, 0, 0.5, 0)) for key in keys}
    return RunState(1, info, 5, 6, ("active", 1), changed=True, series=series)


def write(remembered: RememberedRuns, *runs: RunState) -> None:
    """A transaction that leaves the runs and commits."""
    remembered.begin()
    for run in runs:
        remembered.leave(run, POSITION)
    remembered.committed()


def test_what_was_committed_is_remembered_once() -> None:
    """Whoever takes a run has it without what was changed before; then nobody else has it."""
    remembered = RememberedRuns()
    write(remembered, run_with("a", "loss", "acc"))
    assert len(remembered) == 4  # a run takes as much as two series
    taken = remembered.take("a")
    assert taken is not None
    assert taken.position == POSITION
    assert not taken.run.changed
    assert {key: one.added for key, one in taken.run.series.items()} == {"loss": [], "acc": []}
    assert len(remembered) == 0
    assert remembered.take("a") is None


def test_what_was_rolled_back_never_was() -> None:
    """What a transaction left that did not commit is not remembered, nor what was before it."""
    remembered = RememberedRuns()
    write(remembered, run_with("before", "x"))
    remembered.begin()
    remembered.leave(run_with("a"), POSITION)
    write(remembered, run_with("b"))
    assert len(remembered) == 2
    assert remembered.take("before") is remembered.take("a") is None
    assert remembered.take("b") is not None


def test_a_deleted_run_is_not_remembered() -> None:
    """Neither as it was left, nor as it was before."""
    remembered = RememberedRuns()
    run = run_with("a", "loss")
    write(remembered, run)
    assert remembered.take("a") is not None
    run.info = replace(run.info, lifecycle_stage=LifecycleStage.DELETED)
    write(remembered, run)
    assert remembered.take("a") is None


def test_the_bound_holds() -> None:
    """Above the bound the runs are forgotten that were written to longest ago, as many as need be."""
    remembered = RememberedRuns(most_series=8)
    for run_id in "abc":
        write(remembered, run_with(run_id, "x", "y"))
    assert len(remembered) == 8
    assert remembered.take("a") is None
    assert remembered.take("c") is not None
    write(remembered, run_with("d", *"abcdefg"))
    assert len(remembered) == 0
