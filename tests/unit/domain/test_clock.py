"""The clock of a process is the machine's, unless a test turns it."""

import time
from pathlib import Path

import pytest

from server.domain.clock import TEST_VARIABLE, SystemClock, TurnedClock, machine_clock


def test_a_process_in_use_has_the_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the test variable brings another one in."""
    monkeypatch.delenv(TEST_VARIABLE, raising=False)
    assert isinstance(machine_clock(), SystemClock)


def test_a_file_turns_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first number lets time pass, the second sets the wall clock alone, both while it runs."""
    file = tmp_path / "clock"
    monkeypatch.setenv(TEST_VARIABLE, str(file))
    clock = machine_clock()
    assert isinstance(clock, TurnedClock)
    for text, passed, stepped in (("", 0, 0), ("259200", 259200, 0), ("10 -600", 10, -600)):
        file.write_text(text)
        wall, steady = time.time(), time.monotonic()
        shown_wall, shown_steady = clock.now_ms() / 1000, clock.monotonic()
        assert -0.1 <= shown_wall - (wall + passed + stepped) <= time.time() - wall + 0.1
        assert -0.1 <= shown_steady - (steady + passed) <= time.monotonic() - steady + 0.1
