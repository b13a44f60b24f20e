"""The files of tests that take longest, in the order in which they are to begin.

When several workers share the tests, a file goes to one of them as a whole, the next one to whoever is free.
A long file that comes last keeps one worker busy while the others have nothing left to do, so the long ones
begin first and the short ones fill the gaps at the end. What mostly waits stands between what mostly
computes, and what must be quick comes when the first of those is done. Seconds are not written here: they
are another machine's. `pytest --durations=40` names the files that belong here.

xdist sorts files by the number of their tests unless it is told not to (`--no-loadscope-reorder`).
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

SLOW_FILES = (
    "tests/conformance/stock/test_stock_flows.py",
    "tests/durability/test_resends.py",
    "tests/durability/postgres/test_lost_replicas.py",
    "tests/durability/test_bounds.py",
    "tests/durability/postgres/test_database_outages.py",
    "tests/model/test_replay_model.py",
    "tests/durability/test_throttling.py",
    "tests/browser/test_pages.py",
    "tests/soak/test_soak.py",
    "tests/durability/test_fair_share.py",
    "tests/durability/test_crashes.py",
    "tests/conformance/test_client_features.py",
    "tests/durability/test_graceful_stop.py",
    "tests/conformance/test_main_job.py",
    "tests/durability/test_bundles.py",
    "tests/demo/test_demo.py",
    "tests/durability/test_backup.py",
    "tests/conformance/test_direct_artifacts.py",
    "tests/browser/test_own_pages.py",
    "tests/durability/postgres/test_behind_nginx.py",
    "tests/durability/test_volume.py",
    "tests/durability/test_lost_lease.py",
    "tests/durability/postgres/test_roles.py",
    "tests/integration/test_trace_clients.py",
    "tests/integration/access/test_stock_clients.py",
    "tests/durability/",
    "tests/integration/",
)
"""A name that ends in a slash means every other file below that folder."""

T = TypeVar("T")


def longest_first(items: Sequence[T], *, file_of: Callable[[T], str]) -> list[T]:
    """The items of the slow files, file by file, then all others in the order that they had."""
    return sorted(items, key=lambda item: _rank(file_of(item)))


def _rank(file: str) -> int:
    for rank, name in enumerate(SLOW_FILES):
        if file == name or (name.endswith("/") and file.startswith(name)):
            return rank
    return len(SLOW_FILES)
