"""Which positions of a lane go into the next upstream call.

Thousands of single calls become few: params, tags and points that follow each other share a
`log-batch`. A batch closes when it is full, when its oldest entry has waited long enough, when
something follows that cannot join it, or when a `drain` asks. It never reorders.
"""

from dataclasses import dataclass

from server.domain.operations import DeliverOverflow, LogParam, SetTag
from server.domain.workspace_limits import WorkspaceLimit
from server.journal.contents import Contents, EntryRow
from server.journal.limits import Limits
from server.journal.points import PointRow


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one `log-batch` may hold (azureml-protocol: 250 rows per metric name, MLflow's own rest)."""

    rows: int = 1000
    rows_per_metric: int = 250
    params: int = 100
    tags: int = 100

    def within(self, learned: Limits) -> "BatchLimits":
        """These limits, or those that the workspace was seen to have where they are lower."""
        return BatchLimits(
            rows=_lower(self.rows, learned.get(WorkspaceLimit.CALL_ROWS)),
            rows_per_metric=_lower(self.rows_per_metric, learned.get(WorkspaceLimit.CALL_ROWS_PER_METRIC)),
            params=_lower(self.params, learned.get(WorkspaceLimit.CALL_PARAMS)),
            tags=_lower(self.tags, learned.get(WorkspaceLimit.CALL_TAGS)),
        )


def _lower(ours: int, learned: int | None) -> int:
    """The lower limit; one row always goes, to be refused if it must."""
    return ours if learned is None else max(min(ours, learned), 1)


@dataclass(frozen=True, slots=True)
class Close:
    """Send the positions from `first` to `last`."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class WaitForCompany:
    """Nothing to send before this moment."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """The next entry waits for other lanes."""

    lane_ids: tuple[int, ...]


Choice = Close | WaitForCompany | Blocked | None


def _gathers(row: EntryRow | PointRow) -> bool:
    """Whether what an entry stands for may still grow: an overflow file that none has followed yet."""
    return isinstance(row, EntryRow) and isinstance(row.operation, DeliverOverflow)


def is_loggable(entry: EntryRow) -> bool:
    """Whether an entry can share a `log-batch` with others."""
    return isinstance(entry.operation, LogParam | SetTag)


def choose_batch(
    contents: Contents,
    *,
    unmet: dict[int, list[int]],
    limits: BatchLimits,
    end_of_lane: int,
    now_ms: int,
    company_ms: int,
) -> Choice:
    """What to do with a lane whose next rows are `contents`; None when there is nothing.

    `company_ms` is how long the oldest entry waits for others (0 sends at once).
    """
    rows: list[EntryRow | PointRow] = [*contents.entries, *contents.points]
    rows.sort(key=lambda row: row.position)
    if not rows:
        return None
    first = rows[0]
    if first.position in unmet:
        return Blocked(tuple(unmet[first.position]))
    if first.fault is not None or (isinstance(first, EntryRow) and not is_loggable(first)):
        if _gathers(first) and first.position == end_of_lane and first.accepted_at_ms + company_ms > now_ms:
            return WaitForCompany(first.accepted_at_ms + company_ms)
        return Close(first.position, first.position)
    last, is_closed = _fill(rows, unmet, limits)
    if last == end_of_lane and not is_closed and first.accepted_at_ms + company_ms > now_ms:
        return WaitForCompany(first.accepted_at_ms + company_ms)
    return Close(first.position, last)


def _fill(
    rows: list[EntryRow | PointRow], unmet: dict[int, list[int]], limits: BatchLimits
) -> tuple[int, bool]:
    """The last position that fits, and whether something keeps the next from joining."""
    params = tags = 0
    per_metric: dict[str, int] = {}
    last = rows[0].position
    for count, row in enumerate(rows):
        if count == limits.rows or row.position in unmet or row.fault is not None:
            return last, True
        if isinstance(row, PointRow):
            per_metric[row.key] = per_metric.get(row.key, 0) + 1
            if per_metric[row.key] > limits.rows_per_metric:
                return last, True
        elif isinstance(row.operation, LogParam):
            params += 1
            if params > limits.params:
                return last, True
        elif isinstance(row.operation, SetTag):
            tags += 1
            if tags > limits.tags:
                return last, True
        else:
            return last, True
        last = row.position
    return last, False
