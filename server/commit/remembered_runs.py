"""The runs that were written to last, remembered from one group of writes to the next.

A training loop writes to the same run and the same metrics all the time: what the last group left of them
need not be read again. It holds as long as nobody has touched the run since. Whoever changes a run or adds
a point, here or in another replica, takes a position of the run's data lane in the same transaction; and a
run's stage follows from its own and from its experiment's, whose row is compared as it is.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from server.domain.entities import LifecycleStage, RunInfo
from server.store.metrics import SeriesState

_MOST_SERIES = 20_000
"""Remembered in all; some 600 bytes each."""
_RUN_WEIGHT = 2
"""How many series a run takes as much as, itself: some 1,000 bytes."""

ExperimentMark = tuple[str, int]
"""An experiment's stage and the time of its last update: as long as both stay, no stage of a run changes."""


@dataclass(slots=True)
class RunState:
    """A run's state, as the group's requests so far leave it, and at least the series that they name."""

    run_pk: int
    info: RunInfo
    data_lane: int
    artifact_lane: int
    experiment: ExperimentMark
    changed: bool = False
    series: dict[str, SeriesState] = field(default_factory=dict)

    def forget_changes(self) -> None:
        """What was changed is stored."""
        self.changed = False
        for series in self.series.values():
            series.forget_added()


@dataclass(frozen=True, slots=True)
class RememberedRun:
    """A run as a group left it, which ended its data lane at `position`."""

    run: RunState
    position: int

    @property
    def weight(self) -> int:
        """What it counts."""
        return _RUN_WEIGHT + len(self.run.series)


class RememberedRuns:
    """Runs by their ids. Used by the writer's thread alone.

    Whoever takes a run owns it. It is `left` anew once the group is decided, and remembered once that is
    committed. After a transaction that was not, nothing is: the database that it was lost with may come back
    as a restored one, whose lanes give positions out again.
    """

    def __init__(self, *, most_series: int = _MOST_SERIES) -> None:
        self._most_series = most_series
        self._held: OrderedDict[str, RememberedRun] = OrderedDict()
        self._left: dict[str, RememberedRun] = {}
        self._weight = 0
        self._is_under_way = False

    def __len__(self) -> int:
        """How much is remembered, in series."""
        return self._weight

    def take(self, run_id: str) -> RememberedRun | None:
        """The run as the last group left it; to be compared with what its lane and its experiment say."""
        held = self._held.pop(run_id, None)
        if held is not None:
            self._weight -= held.weight
        return held

    def leave(self, run: RunState, position: int) -> None:
        """A run as a group leaves it, which ends its data lane at this position.

        One that is deleted is not remembered: it may be removed for good, and made anew under its id.
        """
        if run.info.lifecycle_stage is LifecycleStage.ACTIVE:
            self._left[run.info.run_id] = RememberedRun(run, position)

    def begin(self) -> None:
        """A transaction begins."""
        if self._is_under_way:
            self._held.clear()
            self._weight = 0
        self._is_under_way = True
        self._left = {}

    def committed(self) -> None:
        """The transaction is committed: remember what it left. The runs written to last are kept."""
        for run_id, left in self._left.items():
            left.run.forget_changes()
            self._held[run_id] = left
            self._weight += left.weight
        self._left = {}
        self._is_under_way = False
        while self._weight > self._most_series:
            self._weight -= self._held.popitem(last=False)[1].weight
