"""An event loop whose time passes only when nothing is left to do: waits are exact, and take no time.

For code that only waits for asyncio. While a thread or a socket works the loop believes that nothing happens,
and time jumps.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from server.domain.clock import SystemClock

T = TypeVar("T")


class VirtualClock(SystemClock):
    """The steady seconds of the running loop."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class _JumpingSelector(selectors.DefaultSelector):
    """Lets the time pass that it is asked to wait for, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("nothing is planned: whoever waits would wait for ever")
        found = super().select(0)
        if not found:
            self.now += max(timeout, 0.0)
        return found


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns, in a loop of its own that begins at second 0."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)
