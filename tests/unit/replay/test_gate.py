"""How hard the proxy may knock at the workspace."""

from datetime import timedelta

from server.replay.gate import Gate


class _Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


def _gate() -> tuple[Gate, _Clock]:
    clock = _Clock()
    return Gate(clock=clock, jitter=lambda: 1.0), clock


def test_a_healthy_gate_lets_everyone_through() -> None:
    """Nothing is held back before the first failure."""
    gate, _ = _gate()
    assert gate.is_healthy
    assert [gate.may_pass() for _ in range(3)] == [True, True, True]


def test_after_a_failure_one_probe_goes_at_a_time() -> None:
    """The gate stays closed for the wait, then lets a single call try."""
    gate, clock = _gate()
    gate.failed("503")
    assert not gate.is_healthy
    assert gate.last_failure == "503"
    assert not gate.may_pass()
    clock.seconds = 0.5
    assert [gate.may_pass(), gate.may_pass()] == [True, False]


def test_a_probe_that_gets_through_opens_the_gate() -> None:
    """After a success everything goes again."""
    gate, clock = _gate()
    gate.failed("503")
    clock.seconds = 0.5
    assert gate.may_pass()
    gate.passed()
    assert gate.is_healthy
    assert [gate.may_pass(), gate.may_pass()] == [True, True]
    assert gate.last_success_ms == 500


def test_waits_double_with_each_failed_probe_up_to_half_a_minute() -> None:
    """A workspace that stays down is asked less and less often."""
    gate, clock = _gate()
    waits = []
    for _ in range(9):
        gate.failed("down")
        waits.append(gate.wait_seconds)
        clock.seconds += gate.wait_seconds
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_failures_of_calls_under_way_together_count_once() -> None:
    """Ten calls that fail at the same moment do not make a ten times doubled wait."""
    gate, _ = _gate()
    for _ in range(10):
        gate.failed("down")
    assert gate.wait_seconds == 0.5


def test_retry_after_is_kept_to() -> None:
    """The gate stays closed at least as long as the workspace asks."""
    gate, clock = _gate()
    gate.failed("429", timedelta(seconds=40))
    clock.seconds = 39
    assert not gate.may_pass()
    clock.seconds = 40
    assert gate.may_pass()


def test_a_probe_that_did_not_take_place_makes_room_for_another() -> None:
    """An abandoned probe does not close the gate for ever."""
    gate, clock = _gate()
    gate.failed("down")
    clock.seconds = 0.5
    assert gate.may_pass()
    gate.abandoned()
    assert gate.may_pass()


def test_a_probe_that_is_never_heard_of_again_gives_way() -> None:
    """A worker that vanished with the probe does not close the workspace for ever."""
    gate, clock = _gate()
    gate.failed("503")
    clock.seconds = 0.5
    assert gate.may_pass()
    clock.seconds = 120.4
    assert not gate.may_pass()
    clock.seconds = 120.6
    assert gate.may_pass()
