"""What runs hold, remembered: for one version of each, within a bound."""

from server.services.run_memory import ENTRY_BYTES, RunMemory
from server.store.runs import RunVersion

OVERHEAD = len(b"") + ENTRY_BYTES + 33  # a bytes object takes 33 bytes besides what it holds


def version(
    position: int = 1, *, run_id: str = "a", lane: int = 1, restored: str | None = None
) -> RunVersion:
    """A version of a run."""
    return run_id, lane, position, restored


def test_what_is_kept_is_given_out_for_its_version_only() -> None:
    """Another position, run, lane or restore finds nothing under the same number."""
    memory = RunMemory()
    memory.keep(7, version(), b"data")
    others = [version(2), version(0), version(run_id="b"), version(lane=2), version(restored="5")]
    assert memory.find(7, version()) == b"data"
    assert [memory.find(7, other) for other in others] == [None] * len(others)
    assert memory.find(8, version()) is None


def test_a_newer_version_takes_the_place_of_the_older() -> None:
    """A run is kept once."""
    memory = RunMemory()
    memory.keep(7, version(1), b"old!")
    memory.keep(7, version(2), b"new")
    assert (memory.find(7, version(1)), memory.find(7, version(2))) == (None, b"new")
    assert memory.kept_bytes == OVERHEAD + 3


def test_those_used_longest_ago_make_room() -> None:
    """The bound counts what Python takes for each, and looking at a run keeps it."""
    memory = RunMemory(most_bytes=2 * (OVERHEAD + 100))
    for run_pk in (1, 2):
        memory.keep(run_pk, version(), b"x" * 100)
    memory.find(1, version())
    memory.keep(3, version(), b"x" * 100)
    assert [memory.find(run_pk, version()) is not None for run_pk in (1, 2, 3)] == [True, False, True]
    assert memory.kept_bytes == 2 * (OVERHEAD + 100)


def test_a_large_run_is_not_kept() -> None:
    """It takes nobody's place, and what was kept of it before is gone."""
    memory = RunMemory(largest_bytes=OVERHEAD + 100)
    memory.keep(1, version(), b"x" * 100)
    memory.keep(2, version(1), b"x")
    memory.keep(2, version(2), b"x" * 101)
    assert memory.find(1, version()) is not None
    assert memory.find(2, version(2)) is None
    assert memory.kept_bytes == OVERHEAD + 100
