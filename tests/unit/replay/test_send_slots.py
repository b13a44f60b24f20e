"""Who may speak to the workspace next."""

import asyncio

import pytest

from server.journal.lanes import LaneKind
from server.journal.leases import Lane, Lease
from server.replay.send_slots import SendsClosedError, SendSlots
from server.replay.turns import Turn, begin_turn


def _turn(lane_id: int) -> Turn:
    return Turn(Lease(Lane(lane_id, LaneKind.RUN_DATA, lane_id, 1, 0, 0, 0), "token", 1), 1e9)


async def _lane(slots: SendSlots, name: int, sends: int, order: list[int], is_busy: asyncio.Event) -> None:
    begin_turn(_turn(name))
    for _ in range(sends):
        async with slots:
            order.append(name)
            if len(order) == 12:
                is_busy.set()
            await asyncio.sleep(0)


async def _order_of_arrival() -> list[int]:
    slots, order, is_busy = SendSlots(1), list[int](), asyncio.Event()
    busy = [asyncio.create_task(_lane(slots, number, 20, order, is_busy)) for number in (1, 2, 3)]
    await is_busy.wait()
    began = len(order)
    await asyncio.gather(*busy, _lane(slots, 9, 2, order, is_busy))
    return order[began:]


def test_who_has_sent_little_goes_before_who_has_sent_much() -> None:
    """A lane that has just begun its turn sends both its batches next, among lanes in their fifth."""
    order = asyncio.run(_order_of_arrival())
    assert order.index(9) <= 1
    assert [name for name in order if name == 9] == [9, 9]
    assert max(position for position, name in enumerate(order) if name == 9) <= 3


def test_lanes_that_began_together_take_turns() -> None:
    """Nobody sends a second batch while another waits for its first."""

    async def together() -> list[int]:
        slots, order = SendSlots(1), list[int]()
        await asyncio.gather(*(_lane(slots, number, 3, order, asyncio.Event()) for number in range(4)))
        return order

    order = asyncio.run(together())
    assert [sorted(order[start : start + 4]) for start in (0, 4, 8)] == [[0, 1, 2, 3]] * 3


async def _most_at_once(slots: SendSlots, lanes: int) -> int:
    now = most = 0

    async def send() -> None:
        nonlocal now, most
        async with slots:
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1

    await asyncio.gather(*(send() for _ in range(lanes)))
    return most


def test_no_more_send_at_once_than_there_are_slots() -> None:
    """Fifty lanes share three slots."""
    assert asyncio.run(_most_at_once(SendSlots(3), 50)) == 3


async def _cancel_waiting() -> int:
    slots = SendSlots(1)
    async with slots:
        waiting = [asyncio.create_task(slots.__aenter__()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting[:2]:
            task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait_for(waiting[2], 60)
    await slots.__aexit__(None, None, None)
    return await _most_at_once(slots, 4)


def test_who_is_cancelled_while_waiting_takes_no_slot_along() -> None:
    """The slot goes to the next that still waits, and is there afterwards."""
    assert asyncio.run(_cancel_waiting()) == 1


async def _cancel_at_the_moment_of_granting() -> int:
    slots = SendSlots(1)
    await slots.__aenter__()
    waiting = asyncio.create_task(slots.__aenter__())
    await asyncio.sleep(0)
    await slots.__aexit__(None, None, None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    return await _most_at_once(slots, 2)


def test_a_slot_given_to_someone_cancelled_in_the_same_moment_is_passed_on() -> None:
    """No slot is lost between being granted and being taken."""
    assert asyncio.run(_cancel_at_the_moment_of_granting()) == 1


async def _close_while_waiting() -> list[str]:
    slots, said = SendSlots(1), list[str]()

    async def send() -> None:
        try:
            async with slots:
                said.append("sent")
        except SendsClosedError:
            said.append("turned away")

    async with slots:
        tasks = [asyncio.create_task(send()) for _ in range(2)]
        await asyncio.sleep(0)
        slots.close()
        await asyncio.gather(*tasks)
        said.append("finished")
    await send()
    return said


def test_when_the_process_stops_who_waits_is_turned_away_and_who_sends_finishes() -> None:
    """Stopping begins nothing new."""
    assert asyncio.run(_close_while_waiting()) == ["turned away", "turned away", "finished", "turned away"]
