"""How many lanes speak to the workspace at once, and who is next."""

import asyncio
import heapq
from itertools import count
from types import TracebackType

from server.replay.turns import current_turn


class SendsClosedError(Exception):
    """Nothing more is to be sent: the process is stopping."""


class SendSlots:
    """How many lanes may speak to the workspace at once; entered around each exchange.

    Among those that wait, whoever has sent least in its turn goes first: a lane with a single point does
    not wait behind the hundredth batch of another.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._order = count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._is_closed = False

    async def __aenter__(self) -> None:
        """Wait for a slot.

        Raises:
            SendsClosedError: there will be none.
        """
        if self._is_closed:
            raise SendsClosedError
        turn = current_turn()
        if self._free:
            self._free -= 1
        else:
            await self._wait(0 if turn is None else turn.sends)
        if turn is not None:
            turn.sends += 1

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the slot to the next."""
        self._pass_on()

    def close(self) -> None:
        """Turn away who waits. Who has a slot keeps it."""
        self._is_closed = True
        for _, _, granted in self._waiting:
            if not granted.done():
                granted.set_exception(SendsClosedError())

    async def _wait(self, sends: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (sends, next(self._order), granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            _, _, granted = heapq.heappop(self._waiting)
            if not granted.done():
                granted.set_result(None)
                return
        self._free += 1
