"""What runs hold, as JSON, remembered from one page to the next.

A page of runs is mostly what the runs hold, and people look at the same page again and again. Here each run's
metrics, params and tags are kept as they were sent, with the version of the run that they were read of. They
are given out for exactly that version and for no other, so whoever writes need not know of this.
"""

from collections import OrderedDict
from sys import getsizeof
from threading import Lock

from server.store.runs import RunVersion

MOST_BYTES = 16 * 1024 * 1024
"""Some 3,000 runs with 50 metrics, 20 params and 10 tags each."""
LARGEST_BYTES = 256 * 1024
"""A run that takes more is not kept: it would cost many others their place."""
ENTRY_BYTES = 512
"""What an entry takes besides its JSON, about: two tuples, an id, numbers and a place in the order."""


class RunMemory:
    """The JSON of runs' data, by run, those used last. Used by several threads.

    What is kept never takes more than `most_bytes`, its own bookkeeping included.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES, largest_bytes: int = LARGEST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._largest_bytes = largest_bytes
        self._lock = Lock()
        self._kept: OrderedDict[int, tuple[RunVersion, bytes]] = OrderedDict()
        self._kept_bytes = 0

    @property
    def kept_bytes(self) -> int:
        """What is kept takes so much, about."""
        return self._kept_bytes

    def find(self, run_pk: int, version: RunVersion) -> bytes | None:
        """What that version of the run holds, if it is kept."""
        with self._lock:
            entry = self._kept.get(run_pk)
            if entry is None or entry[0] != version:
                return None
            self._kept.move_to_end(run_pk)
            return entry[1]

    def keep(self, run_pk: int, version: RunVersion, data: bytes) -> None:
        """Keep what that version of the run holds: read in the snapshot that showed the version.

        Only what is committed may be kept: what a transaction sees of itself could be taken back, and the
        version be given to something else.
        """
        size = _size(data)
        with self._lock:
            self._forget(run_pk)
            if size > min(self._largest_bytes, self._most_bytes):
                return
            self._kept[run_pk] = version, data
            self._kept_bytes += size
            while self._kept_bytes > self._most_bytes:
                self._forget(next(iter(self._kept)))

    def _forget(self, run_pk: int) -> None:
        entry = self._kept.pop(run_pk, None)
        if entry is not None:
            self._kept_bytes -= _size(entry[1])


def _size(data: bytes) -> int:
    return getsizeof(data) + ENTRY_BYTES
