"""Blocks of points: what goes in comes out, and nothing else passes for it."""

from hypothesis import given
from hypothesis import strategies as st

from server.domain.entities import PointKey
from server.journal.blocks import MOST_POINTS, Stretches, is_whole, may_hold, pack, unpack

WHOLE = st.integers(-(2**63), 2**63 - 1)
POINTS: st.SearchStrategy[list[PointKey]] = st.lists(
    st.tuples(WHOLE, WHOLE, WHOLE, st.floats(allow_nan=False), st.integers(0, 1)), min_size=1, max_size=70
)


@given(points=POINTS, lane_id=st.integers(1, 2**40), first=st.integers(1, 2**40))
def test_what_goes_in_comes_out(points: list[PointKey], lane_id: int, first: int) -> None:
    """Points come back in order, one position each, in blocks that are as full as they may be."""
    rows = list(pack(lane_id, first, points, accepted_at_ms=5))
    position, found = first, []
    for lane, begins, ends, packed, accepted_at_ms in rows:
        assert (lane, begins, accepted_at_ms) == (lane_id, position, 5)
        assert is_whole(lane, begins, packed)
        held = unpack(packed, ends - begins + 1)
        assert held is not None
        assert all(may_hold(packed, point[0]) for point in held)
        found += held
        position = ends + 1
    assert found == points
    assert [row[2] - row[1] + 1 for row in rows[:-1]] == [MOST_POINTS] * (len(rows) - 1)


@given(points=POINTS, data=st.data())
def test_no_flipped_bit_goes_unnoticed(points: list[PointKey], data: st.DataObject) -> None:
    """A block with another bit, of another lane or at another position is not what was written."""
    lane_id, first, _, packed, _ = next(pack(7, 11, points, accepted_at_ms=5))
    bit = data.draw(st.integers(0, len(packed) * 8 - 1))
    flipped = bytearray(packed)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not is_whole(lane_id, first, bytes(flipped))
    assert not is_whole(lane_id + 1, first, packed)
    assert not is_whole(lane_id, first + 1, packed)


def test_a_block_of_another_length_is_none() -> None:
    """A block that is too short or too long for its positions is not read at all."""
    *_, packed, _ = next(pack(1, 1, [(1, 2, 3, 0.5, 0), (1, 3, 3, 0.5, 0)], accepted_at_ms=5))
    assert unpack(packed, 2) == [(1, 2, 3, 0.5, 0), (1, 3, 3, 0.5, 0)]
    assert unpack(packed, 1) is unpack(packed, 3) is unpack(packed[:-1], 2) is None


def test_stretches_join_what_follows() -> None:
    """Points that directly follow the lane's last ones join them; after a gap a new stretch begins."""
    stretches: Stretches[str] = Stretches()
    stretches.add(1, 5, ["a", "b"])
    stretches.add(2, 7, ["x"])
    stretches.add(1, 7, ["c"])
    stretches.add(1, 9, ["d"])
    assert [(lane, stretch.first, stretch.points) for lane, stretch in stretches] == [
        (1, 5, ["a", "b", "c"]),
        (1, 9, ["d"]),
        (2, 7, ["x"]),
    ]
