"""Which positions go into the next call: never out of order, never too many, every one once."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from server.domain.operations import DeleteTag, DeliverOverflow, LogParam, Operation, SetTag, UpdateRun
from server.domain.workspace_limits import WorkspaceLimit
from server.journal.contents import Contents, EntryRow
from server.journal.points import PointRow
from server.replay.batching import BatchLimits, Blocked, Choice, Close, WaitForCompany, choose_batch

_LIMITS = BatchLimits(rows=10, rows_per_metric=4, params=3, tags=2)
_NOW_MS = 100_000


def _point(position: int, key: str, accepted_at_ms: int = 0) -> PointRow:
    return PointRow(position, key, 1.0, False, 1, position, accepted_at_ms)


def _entry(position: int, operation: Operation, accepted_at_ms: int = 0) -> EntryRow:
    return EntryRow(position, type(operation).__name__, b"", operation, accepted_at_ms, None)


_rows = st.lists(
    st.sampled_from(["a", "b"])
    | st.sampled_from([LogParam("p", "1"), SetTag("t", "1"), DeleteTag("t"), UpdateRun("FINISHED")]),
    max_size=60,
).map(
    lambda kinds: [
        _point(position, kind) if isinstance(kind, str) else _entry(position, kind)
        for position, kind in enumerate(kinds, start=1)
    ]
)


def _contents(rows: list[PointRow | EntryRow]) -> Contents:
    return Contents(
        [row for row in rows if isinstance(row, EntryRow)], [row for row in rows if isinstance(row, PointRow)]
    )


def _choose(
    rows: list[PointRow | EntryRow], *, company_ms: int = 0, unmet: dict[int, list[int]] | None = None
) -> Choice:
    end = rows[-1].position if rows else 0
    return choose_batch(
        _contents(rows),
        unmet=unmet or {},
        limits=_LIMITS,
        end_of_lane=end,
        now_ms=_NOW_MS,
        company_ms=company_ms,
    )


@given(_rows)
def test_batches_cover_a_lane_in_order_and_within_the_limits(rows: list[PointRow | EntryRow]) -> None:
    """Sent one after another, batches hold every position once, in order, and none is too large."""
    left = rows
    sent: list[int] = []
    while left:
        choice = _choose(left)
        assert isinstance(choice, Close)
        batch = [row for row in left if row.position <= choice.last]
        assert choice.first == left[0].position
        assert choice.last == batch[-1].position
        _check_size(batch)
        sent += [row.position for row in batch]
        left = left[len(batch) :]
    assert sent == [row.position for row in rows]


def _check_size(batch: list[PointRow | EntryRow]) -> None:
    keys = [row.key for row in batch if isinstance(row, PointRow)]
    operations = [row.operation for row in batch if isinstance(row, EntryRow)]
    assert len(batch) <= _LIMITS.rows
    assert all(keys.count(key) <= _LIMITS.rows_per_metric for key in set(keys))
    assert sum(isinstance(operation, LogParam) for operation in operations) <= _LIMITS.params
    assert sum(isinstance(operation, SetTag) for operation in operations) <= _LIMITS.tags
    if any(not isinstance(operation, LogParam | SetTag) for operation in operations):
        assert len(batch) == 1


def test_an_empty_lane_has_nothing_to_send() -> None:
    """Without rows there is no choice."""
    assert _choose([]) is None


def test_a_batch_that_is_not_full_waits_for_company() -> None:
    """The oldest entry's age decides until when."""
    rows: list[PointRow | EntryRow] = [_point(1, "a", _NOW_MS - 400), _point(2, "a", _NOW_MS)]
    assert _choose(rows, company_ms=1000) == WaitForCompany(_NOW_MS + 600)


def test_company_is_not_waited_for_when_nothing_can_join() -> None:
    """A full batch, an old one, and one before an entry that stands alone go at once."""
    fresh = [_point(position, "a", _NOW_MS) for position in range(1, 6)]
    old: list[PointRow | EntryRow] = [_point(1, "a", _NOW_MS - 1000)]
    before: list[PointRow | EntryRow] = [_point(1, "a", _NOW_MS), _entry(2, UpdateRun("FINISHED"), _NOW_MS)]
    assert _choose([*fresh], company_ms=1000) == Close(1, 4)
    assert _choose(old, company_ms=1000) == Close(1, 1)
    assert _choose(before, company_ms=1000) == Close(1, 1)


def test_a_blocked_entry_says_what_it_waits_for_and_holds_back_what_follows() -> None:
    """Rows before a barrier go at once; at the barrier nothing goes."""
    rows: list[PointRow | EntryRow] = [
        _point(1, "a", _NOW_MS),
        _point(2, "a", _NOW_MS),
        _point(3, "a", _NOW_MS),
    ]
    assert _choose(rows, unmet={2: [7, 8]}, company_ms=1000) == Close(1, 1)
    assert _choose(rows[1:], unmet={2: [7, 8]}) == Blocked((7, 8))


def test_an_entry_that_cannot_be_read_is_sent_alone() -> None:
    """A spoilt row does not take its neighbours with it."""
    spoilt = replace(_entry(1, LogParam("p", "1")), operation=None)
    assert _choose([spoilt, _point(2, "a")]) == Close(1, 1)


def test_a_point_that_is_not_what_was_written_is_set_apart() -> None:
    """What is before it goes without it, and then it stands alone."""
    spoilt = replace(_point(2, "a"), fault="not what was written")
    rows: list[PointRow | EntryRow] = [_point(1, "a"), spoilt, _point(3, "a")]
    assert _choose(rows) == Close(1, 1)
    assert _choose(rows[1:]) == Close(2, 2)


def test_an_overflow_file_waits_for_company_until_another_is_opened() -> None:
    """The last file of a lane gathers for as long as it may; one that another has followed goes at once."""
    young = _entry(1, DeliverOverflow(1), _NOW_MS - 400)
    assert _choose([young], company_ms=1000) == WaitForCompany(_NOW_MS + 600)
    assert _choose([young], company_ms=400) == Close(1, 1)
    assert _choose([young, _entry(2, DeliverOverflow(2), _NOW_MS)], company_ms=1000) == Close(1, 1)


def test_limits_that_were_learned_make_batches_smaller() -> None:
    """The lower limit counts, and one row always goes."""
    learned = {
        WorkspaceLimit.CALL_ROWS_PER_METRIC: 2,
        WorkspaceLimit.CALL_PARAMS: 500,
        WorkspaceLimit.CALL_TAGS: 0,
        WorkspaceLimit.PARAMS: 1,
    }
    assert _LIMITS.within(learned) == BatchLimits(rows=10, rows_per_metric=2, params=3, tags=1)
    assert _LIMITS.within({}) == _LIMITS
