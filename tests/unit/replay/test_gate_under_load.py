"""Many workers at one gate: however many fail together, one probe goes at a time."""

from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from typing import TypeVar

from server.journal.lanes import LaneKind
from server.journal.leases import Lane, Lease
from server.replay.gate import Gate
from server.replay.turns import Turn, begin_turn

T = TypeVar("T")


class _Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


class _Worker:
    """Speaks to the gate from a turn of its own."""

    def __init__(self, lane_id: int) -> None:
        self._context = copy_context()
        lane = Lane(lane_id, LaneKind.RUN_DATA, lane_id, 1, 0, 0, 0)
        self._context.run(begin_turn, Turn(Lease(lane, "token", 1), 110.0))

    def __call__(self, what: Callable[..., T], *arguments: object) -> T:
        return self._context.run(what, *arguments)


def _gate() -> tuple[Gate, _Clock]:
    clock = _Clock()
    return Gate(clock=clock, jitter=lambda: 1.0), clock


def test_failures_of_calls_from_before_count_once_however_late_they_come() -> None:
    """Eight calls under way when the workspace goes away fail one by one over a minute: one failure."""
    gate, clock = _gate()
    workers = [_Worker(number) for number in range(8)]
    assert all(worker(gate.may_pass) for worker in workers)
    for worker in workers:
        worker(gate.failed, "timeout")
        clock.seconds += 7
    assert not gate.is_healthy
    assert gate.wait_seconds == 0
    assert workers[0](gate.may_pass)
    workers[0](gate.failed, "timeout")
    assert gate.wait_seconds == 1.0, "the second failure, not the ninth"


def test_a_late_failure_does_not_send_a_second_probe() -> None:
    """While a probe is under way, a call from before that fails opens the way to nobody else."""
    gate, clock = _gate()
    late, prober, waiting = _Worker(1), _Worker(2), _Worker(3)
    assert late(gate.may_pass)
    assert prober(gate.may_pass)
    prober(gate.failed, "503")
    clock.seconds = 1
    assert prober(gate.may_pass)
    late(gate.failed, "timeout")
    assert not waiting(gate.may_pass)


def test_only_who_probes_can_give_the_probe_up() -> None:
    """A worker that was turned away ends its turn: the probe stays with its owner."""
    gate, clock = _gate()
    prober, other = _Worker(1), _Worker(2)
    gate.failed("503")
    clock.seconds = 1
    assert prober(gate.may_pass)
    assert not other(gate.may_pass)
    other(gate.abandoned)
    assert not other(gate.may_pass)
    prober(gate.abandoned)
    assert other(gate.may_pass)


def test_of_forty_workers_one_at_a_time_asks_a_workspace_that_is_away() -> None:
    """Forty workers that try again and again for five minutes make as many calls as the backoff allows."""
    gate, clock = _gate()
    workers = [_Worker(number) for number in range(40)]
    gate.failed("down")
    calls = 0
    while clock.seconds < 300:
        passed = [worker for worker in workers if worker(gate.may_pass)]
        assert len(passed) <= 1
        for worker in passed:
            calls += 1
            worker(gate.failed, "down")
        clock.seconds += 0.25
    assert calls == 5 + 9  # 1, 2, 4, 8 and 16 s apart, then every 30 s


def test_whoever_waits_for_everything_has_the_workspace_asked_every_second() -> None:
    """While a flush is under way the gate opens for a probe after a second, after however many failures."""
    gate, clock = _gate()
    hurried = False
    gate.hurry_while(lambda: hurried)
    for _ in range(9):
        gate.failed("down")
        clock.seconds += gate.wait_seconds
    gate.failed("down")
    assert gate.wait_seconds == 30
    hurried = True
    assert gate.wait_seconds == 1
    clock.seconds += 1
    assert gate.may_pass()


def test_a_flush_does_not_outrun_retry_after() -> None:
    """What the workspace asked for is kept to, whoever waits."""
    gate, _ = _gate()
    gate.hurry_while(lambda: True)
    gate.failed("429", timedelta(seconds=40))
    assert gate.wait_seconds == 40


def test_the_reopening_is_told_once() -> None:
    """Those that were postponed are looked at when the workspace is well again, not at every success."""
    gate, clock = _gate()
    told: list[float] = []
    gate.on_reopening(lambda: told.append(clock.seconds))
    gate.passed()
    gate.failed("503")
    clock.seconds = 5
    gate.passed()
    gate.passed()
    assert told == [5]
