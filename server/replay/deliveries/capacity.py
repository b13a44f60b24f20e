"""What a run can still hold in the workspace: parting a batch into what fits and what overflows.

Three sources say what fits. *Limits* that were learned from refusals, by any run. What the run *holds*,
read from the workspace when a limit by count is in question, and kept up to date with what is sent. And where
a run was found *full*: new names were refused while the run showed so many. The last is needed because the
workspace counts names (of tags, above all) that it does not show, and shows some that it does not count.

A name that is there already always fits; a new one only while there is room. In doubt a row is sent: the
workspace has the last word.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import structlog

from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.domain.operations import LogParam, SetTag
from server.domain.overflow_files import OVERFLOW_TAG
from server.domain.verdicts import Verdict
from server.domain.workspace_limits import LimitRefusal, WorkspaceLimit
from server.journal.contents import Contents, EntryRow
from server.journal.leases import Lane
from server.journal.limits import BELIEVED_FOR, Limits, read_limits
from server.journal.overflow import Overflowed, find_lane
from server.journal.points import PointRow
from server.replay.deliveries.delivery import Division
from server.upstream.failures import UpstreamFailure
from server.upstream.runs import UpstreamRun, UpstreamRuns

log = structlog.get_logger(__name__)

_RUNS_REMEMBERED = 1000
_SERVICE_TAGS = ("mlflow.rootRunId", "azureml.")
"""Tags that the workspace shows of its own, and does not count."""

Row = EntryRow | PointRow


def limits_of_row(row: Row) -> frozenset[WorkspaceLimit]:
    """The limits that a row can break by itself."""
    match row:
        case PointRow():
            return _POINT_LIMITS
        case EntryRow(operation=LogParam()):
            return _PARAM_LIMITS
        case EntryRow(operation=SetTag()):
            return _TAG_LIMITS
        case _:
            return frozenset()


_POINT_LIMITS = frozenset(
    {WorkspaceLimit.METRIC_NAMES, WorkspaceLimit.METRIC_ROWS, WorkspaceLimit.METRIC_NAME}
)
_PARAM_LIMITS = frozenset({WorkspaceLimit.PARAMS, WorkspaceLimit.PARAM_KEY, WorkspaceLimit.PARAM_VALUE})
_TAG_LIMITS = frozenset({WorkspaceLimit.TAGS, WorkspaceLimit.TAG_KEY, WorkspaceLimit.TAG_VALUE})
_BY_COUNT = (WorkspaceLimit.PARAMS, WorkspaceLimit.TAGS, WorkspaceLimit.METRIC_NAMES)


@dataclass(slots=True)
class _Held:
    """The names that a run holds, as of position `through` of its data lane."""

    through: int
    names: dict[WorkspaceLimit, set[str]]

    @classmethod
    def of(cls, run: UpstreamRun, through: int) -> "_Held":
        return cls(
            through,
            {
                WorkspaceLimit.PARAMS: set(run.params),
                WorkspaceLimit.TAGS: set(run.tags),
                WorkspaceLimit.METRIC_NAMES: set(run.metrics),
            },
        )


@dataclass(slots=True)
class _Known:
    """What is known of one run. `full_at`: how many names it shows when it takes no more."""

    since_ms: int
    held: _Held | None = None
    full_at: dict[WorkspaceLimit, int] = field(default_factory=dict)
    full_metrics: set[str] = field(default_factory=set)

    def learn_room(self, refusal: LimitRefusal, names: set[str], new: set[str]) -> None:
        """How many of the new names would have fitted, where a refusal says what it would have come to."""
        if refusal.value is None or refusal.size is None:
            return
        fitting = len(new) - (refusal.size - refusal.value)
        if 0 <= fitting < len(new):
            self.full_at[refusal.limit] = len(names) + fitting

    def room(self, limit: WorkspaceLimit, limits: Limits, names: set[str]) -> int | None:
        """How many new names fit; None where nothing is known of that."""
        counted, reserved = names, 0
        if limit is WorkspaceLimit.TAGS:
            counted = {name for name in names if not name.startswith(_SERVICE_TAGS)}
            reserved = int(OVERFLOW_TAG not in names)  # that anything has overflowed is to be seen
        if limit in self.full_at:
            return self.full_at[limit] - len(names) - reserved
        return limits[limit] - len(counted) - reserved if limit in limits else None


class RunCapacity:
    """Decides what of a batch fits. One for all runs of this process."""

    def __init__(self, *, database: Database, clock: Clock, runs: UpstreamRuns) -> None:
        self._database = database
        self._clock = clock
        self._runs = runs
        self._known: OrderedDict[int, _Known] = OrderedDict()

    async def divide(
        self, lane: Lane, upstream_id: str, contents: Contents, refusal: LimitRefusal | None
    ) -> Division:
        """What of `contents`, the next rows of a run's data lane, is to be sent, and what overflows.

        `refusal` is how the workspace has just refused exactly these rows; a single row that it speaks of
        always overflows.

        Raises:
            UpstreamFailure: the workspace could not be asked what the run holds.
        """
        limits, has_overflow = await self._database.read(lambda transaction: self._read(transaction, lane))
        if refusal is not None and refusal.value is not None:
            limits[refusal.limit] = refusal.value
        known = self._know(lane.subject_id)
        if refusal is not None:
            known.held = None
        parting = _Parting(contents)
        parting.set_aside_long(limits)
        parting.set_aside_rows_of(known.full_metrics)
        for limit in _BY_COUNT:
            if limit not in limits and limit not in known.full_at:
                continue
            named = parting.names_under(limit)
            is_asked = has_overflow or (refusal is not None and refusal.limit is limit)
            if not named or not (is_asked or len(named) > limits.get(limit, len(named))):
                continue
            if (held := await self._held(known, lane, upstream_id)) is not None:
                names = held.names[limit]
                if refusal is not None and refusal.limit is limit:
                    known.learn_room(refusal, names, named - names)
                parting.set_aside_beyond(limit, names, known.room(limit, limits, names))
        if refusal is not None and not parting.overflow:
            await self._set_aside_refused(parting, known, lane, upstream_id, refusal)
        return self._done(parting, known, lane)

    def note_sent(self, lane: Lane, last_position: int, contents: Contents) -> None:
        """The workspace has taken rows that follow on the lane's settled position."""
        known = self._known.get(lane.subject_id)
        if known is None or known.held is None or known.held.through != lane.settled_position:
            return
        for row in _rows(contents):
            limit, name = _counted_name(row)
            if limit is not None:
                known.held.names[limit].add(name)
        known.held.through = last_position

    def note_failed(self, lane: Lane) -> None:
        """What the run holds now must be read anew."""
        if (known := self._known.get(lane.subject_id)) is not None:
            known.held = None

    async def cannot_hold_more_metrics(self, lane: Lane, shown: int) -> bool:
        """Whether a run that shows so many metric names has no room for one that it does not show."""
        limits, _ = await self._database.read(lambda transaction: self._read(transaction, lane))
        full_at = self._know(lane.subject_id).full_at.get(WorkspaceLimit.METRIC_NAMES)
        most = limits.get(WorkspaceLimit.METRIC_NAMES) if full_at is None else full_at
        return most is not None and shown >= most

    # --- what is known ---

    def _read(self, transaction: Transaction, lane: Lane) -> tuple[dict[WorkspaceLimit, int], bool]:
        has_overflow = find_lane(transaction, lane.subject_id) is not None
        return read_limits(transaction, now_ms=self._clock.now_ms()), has_overflow

    def _know(self, run_pk: int) -> _Known:
        """What is known of a run; forgotten after a day, as limits are."""
        now_ms = self._clock.now_ms()
        known = self._known.get(run_pk)
        if known is None or timedelta(milliseconds=now_ms - known.since_ms) > BELIEVED_FOR:
            known = self._known[run_pk] = _Known(now_ms)
        self._known.move_to_end(run_pk)
        if len(self._known) > _RUNS_REMEMBERED:
            self._known.popitem(last=False)
        return known

    async def _held(self, known: _Known, lane: Lane, upstream_id: str) -> _Held | None:
        """The names that the run holds; None where the workspace will not say."""
        if known.held is None or known.held.through != lane.settled_position:
            try:
                run = await self._runs.find(upstream_id)
            except UpstreamFailure as failure:
                if failure.verdict is not Verdict.PARK:
                    raise
                log.warning("run_unreadable", lane_id=lane.lane_id, code=failure.code)
                run = None
            known.held = None if run is None else _Held.of(run, lane.settled_position)
        return known.held

    async def _set_aside_refused(
        self, parting: "_Parting", known: _Known, lane: Lane, upstream_id: str, refusal: LimitRefusal
    ) -> None:
        """A row that is refused alone overflows, and says where its run is full."""
        row = parting.single_row
        if row is None or refusal.limit not in limits_of_row(row):
            return
        if refusal.limit in _BY_COUNT:
            held = await self._held(known, lane, upstream_id)
            if held is not None:
                known.full_at[refusal.limit] = len(held.names[refusal.limit])
        elif refusal.limit is WorkspaceLimit.METRIC_ROWS and isinstance(row, PointRow):
            known.full_metrics.add(row.key)
        parting.set_aside(refusal.limit, lambda _: True)

    def _done(self, parting: "_Parting", known: _Known, lane: Lane) -> Division:
        division = parting.division
        nothing_is_sent = not division.to_send.entries and not division.to_send.points
        if nothing_is_sent and known.held is not None and known.held.through == lane.settled_position:
            known.held.through = max((item.row.position for item in division.overflow), default=0)
        return division


class _Parting:
    """A batch while it is parted."""

    def __init__(self, contents: Contents) -> None:
        self._rows: list[Row] = sorted(_rows(contents), key=lambda row: row.position)
        self.overflow: list[Overflowed] = []

    @property
    def single_row(self) -> Row | None:
        return self._rows[0] if len(self._rows) == 1 else None

    @property
    def division(self) -> Division:
        to_send = Contents(
            [row for row in self._rows if isinstance(row, EntryRow)],
            [row for row in self._rows if isinstance(row, PointRow)],
        )
        return Division(to_send, self.overflow)

    def names_under(self, limit: WorkspaceLimit) -> set[str]:
        """The names in the batch that a limit by count is about."""
        return {name for row in self._rows for counted, name in [_counted_name(row)] if counted is limit}

    def set_aside(self, limit: WorkspaceLimit, breaks: Callable[[Row], bool]) -> None:
        broken = [row for row in self._rows if breaks(row)]
        if broken:
            self.overflow += [Overflowed(row, limit) for row in broken]
            self._rows = [row for row in self._rows if not breaks(row)]

    def set_aside_long(self, limits: Limits) -> None:
        """Rows with a name or value that is longer than the workspace takes.

        Counted in code points, the fewest that a text can have: what is longer in the workspace's own
        measure alone is found out by its refusal.
        """
        for limit, text_of in _TEXTS.items():
            if (most := limits.get(limit)) is not None:
                self.set_aside(limit, partial(_is_longer, text_of, most))

    def set_aside_rows_of(self, full_metrics: set[str]) -> None:
        """Points of metrics that take no more points."""
        if full_metrics:
            self.set_aside(
                WorkspaceLimit.METRIC_ROWS, lambda row: isinstance(row, PointRow) and row.key in full_metrics
            )

    def set_aside_beyond(self, limit: WorkspaceLimit, held: set[str], room: int | None) -> None:
        """Rows with names that are not held, nor among the first new ones that there is room for."""
        if room is None:
            return
        new: dict[str, None] = {}
        for row in self._rows:
            counted, name = _counted_name(row)
            if counted is limit and name not in held:
                new[name] = None
        beyond = set(list(new)[max(room, 0) :])
        self.set_aside(limit, lambda row: _counted_name(row)[0] is limit and _counted_name(row)[1] in beyond)


def _is_longer(text_of: Callable[[Row], str], most: int, row: Row) -> bool:
    return len(text_of(row)) > most


def _rows(contents: Contents) -> Iterable[Row]:
    yield from contents.entries
    yield from contents.points


def _counted_name(row: Row) -> tuple[WorkspaceLimit | None, str]:
    """The limit by count that a row falls under, and the name that counts."""
    match row:
        case PointRow():
            return WorkspaceLimit.METRIC_NAMES, row.key
        case EntryRow(operation=LogParam(key)):
            return WorkspaceLimit.PARAMS, key
        case EntryRow(operation=SetTag(key)):
            return WorkspaceLimit.TAGS, key
        case _:
            return None, ""


def _param(row: Row) -> LogParam | None:
    return row.operation if isinstance(row, EntryRow) and isinstance(row.operation, LogParam) else None


def _tag(row: Row) -> SetTag | None:
    return row.operation if isinstance(row, EntryRow) and isinstance(row.operation, SetTag) else None


_TEXTS: dict[WorkspaceLimit, Callable[[Row], str]] = {
    WorkspaceLimit.PARAM_KEY: lambda row: param.key if (param := _param(row)) else "",
    WorkspaceLimit.PARAM_VALUE: lambda row: param.value if (param := _param(row)) else "",
    WorkspaceLimit.TAG_KEY: lambda row: tag.key if (tag := _tag(row)) else "",
    WorkspaceLimit.TAG_VALUE: lambda row: tag.value if (tag := _tag(row)) else "",
    WorkspaceLimit.METRIC_NAME: lambda row: row.key if isinstance(row, PointRow) else "",
}
