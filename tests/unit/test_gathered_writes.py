"""What one turn of the event loop writes leaves together, and in its order."""

import asyncio
from collections.abc import Iterable

import pytest

from server.gathered_writes import GatheredWrites

pytestmark = pytest.mark.asyncio

_LARGE = b"x" * 100_000


class _Wire(asyncio.Transport):
    """The event loop's transport as far as it is used: notes each send, and what else was done."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.done.append(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.done.append("eof")

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.done

    def get_write_buffer_size(self) -> int:
        return len(self.done)


@pytest.fixture
def wire() -> _Wire:
    """Nothing sent yet."""
    return _Wire()


def _gathered(wire: _Wire) -> GatheredWrites:
    return GatheredWrites(wire, asyncio.get_running_loop())


async def test_a_head_leaves_with_its_body(wire: _Wire) -> None:
    """At once: no other task has to have had its turn. Nothing is sent twice."""
    gathered = _gathered(wire)
    gathered.write(b"head")
    gathered.write(b"body")
    assert wire.done == [b"headbody"]
    gathered.write(b"head2")
    gathered.write(_LARGE)
    assert wire.done == [b"headbody", b"head2" + _LARGE]
    await asyncio.sleep(0)
    assert len(wire.done) == 2


async def test_what_is_followed_by_nothing_leaves_when_the_turn_ends(wire: _Wire) -> None:
    """The head of an answer whose body is yet to come is not kept from the client."""
    gathered = _gathered(wire)
    gathered.write(b"head")
    assert wire.done == []
    await asyncio.sleep(0)
    assert wire.done == [b"head"]
    gathered.write(b"piece")
    await asyncio.sleep(0)
    assert wire.done == [b"head", b"piece"]


async def test_a_large_piece_waits_for_nothing(wire: _Wire) -> None:
    """Whoever sends it is to be told at once when the client takes no more."""
    gathered = _gathered(wire)
    gathered.write(_LARGE)
    gathered.writelines([b"a", _LARGE])
    assert wire.done == [_LARGE, b"a" + _LARGE]


async def test_nothing_that_was_written_is_lost_by_closing(wire: _Wire) -> None:
    """Neither by the end of a stream; an abort is what throws away."""
    gathered = _gathered(wire)
    gathered.write(b"last")
    gathered.write_eof()
    gathered.write(b"words")
    gathered.close()
    assert wire.done == [b"last", "eof", b"words", "close"]
    assert gathered.is_closing()
    gathered.write(b"dropped")
    gathered.abort()
    await asyncio.sleep(0)
    assert wire.done[4:] == ["abort"]


async def test_a_client_that_went_away_is_sent_nothing(wire: _Wire) -> None:
    """The event loop may find that out between a write and the end of its turn."""
    gathered = _gathered(wire)
    gathered.write(b"head")
    wire.close()
    await asyncio.sleep(0)
    assert wire.done == ["close"]


async def test_all_else_is_the_transports(wire: _Wire) -> None:
    """Who asks for what this does not know gets it from the connection."""
    assert _gathered(wire).get_write_buffer_size() == 0
