"""When there is something to do."""

import asyncio

from server.replay.agenda import Agenda
from tests.support.virtual_time import VirtualClock, run_in_virtual_time


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _looks_within(seconds: float, *planned: float) -> list[float]:
    """When looks came about, in seconds from the start; the first one comes by itself."""
    agenda, began, looks = Agenda(VirtualClock()), _now(), list[float]()
    for moment in planned:
        agenda.plan_look(began + moment)
    try:
        async with asyncio.timeout(seconds):
            while True:
                if await agenda.wait():
                    with agenda.looking():
                        looks.append(_now() - began)
    except TimeoutError:
        return looks


def test_a_planned_look_comes_in_time_though_another_comes_before() -> None:
    """What was planned for later is not forgotten with what came first."""
    looks = run_in_virtual_time(_looks_within(1.0, 0.7, 0.2))
    assert len(looks) == 3
    assert looks[0] < 0.15
    assert 0.2 <= looks[1] < 0.4
    assert 0.7 <= looks[2] < 0.9


def test_looks_that_are_close_together_are_one() -> None:
    """A thousand plans for the same moment make one look."""
    planned = [0.3 + number / 100_000 for number in range(1000)]
    assert len(run_in_virtual_time(_looks_within(0.8, *planned))) <= 3


def test_looks_that_were_asked_for_do_not_add_to_the_polls() -> None:
    """After a burst of planned looks the database is asked every two seconds, as before."""
    burst = [number / 10 for number in range(1, 10)]
    looks = run_in_virtual_time(_looks_within(5.2, *burst))
    assert 9 <= len([look for look in looks if look < 1.2]) <= 11
    assert len([look for look in looks if look >= 1.2]) <= 2


def test_after_a_long_look_a_while_is_left_to_others() -> None:
    """A look of a tenth of a second is followed by three tenths of rest, whoever asks for another."""

    async def look_twice() -> float:
        agenda = Agenda(VirtualClock())
        await agenda.wait()
        with agenda.looking():
            await asyncio.sleep(0.1)
        ended = _now()
        agenda.plan_look(ended)
        assert await agenda.wait()
        return _now() - ended

    assert 0.29 < run_in_virtual_time(look_twice()) < 0.6


def test_a_free_place_is_filled_without_a_look() -> None:
    """Filling a place does not ask the database again."""

    async def fill() -> tuple[bool, float]:
        agenda = Agenda(VirtualClock())
        await agenda.wait()
        with agenda.looking():
            pass
        began = _now()
        agenda.plan_refill(began + 0.1)
        return await agenda.wait(), _now() - began

    is_look, took = run_in_virtual_time(fill())
    assert not is_look
    assert 0.1 <= took < 0.4


def test_whoever_waits_can_be_woken() -> None:
    """Stopping does not take until the next look."""

    async def wake() -> float:
        agenda = Agenda(VirtualClock())
        await agenda.wait()
        with agenda.looking():
            pass
        began = _now()
        asyncio.get_running_loop().call_later(0.05, agenda.wake)
        await agenda.wait()
        return _now() - began

    assert run_in_virtual_time(wake()) < 0.5


def test_a_pause_of_the_whole_process_is_not_taken_for_a_long_look() -> None:
    """However long a look seems to have taken, the next one comes within ten seconds."""

    class StoppedClock(VirtualClock):
        """In the middle of the look the process was stopped for five minutes."""

        passed = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.passed

    async def next_look() -> float:
        clock = StoppedClock()
        agenda = Agenda(clock)
        await agenda.wait()
        with agenda.looking():
            clock.passed += 300.0
        clock.passed += 10.1
        began = _now()
        assert await agenda.wait()
        return _now() - began

    assert run_in_virtual_time(asyncio.wait_for(next_look(), 5.0)) < 1.0
