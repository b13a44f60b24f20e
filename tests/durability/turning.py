"""A server whose clock a test can turn: hours pass in a moment, or the wall clock jumps."""

from dataclasses import dataclass
from pathlib import Path

from tests.durability.conftest import deliver_to
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess


@dataclass(slots=True)
class TurnedServer:
    """A server and the file that its clock follows."""

    server: ServerProcess
    clock: Path
    passed: float = 0.0
    stepped: float = 0.0

    def let_pass(self, seconds: float) -> None:
        """As many seconds pass for the server, at once."""
        self.passed += seconds
        self._write()

    def set_wall_clock(self, seconds: float) -> None:
        """Its wall clock is as many seconds ahead (or behind) from now on; no time passes."""
        self.stepped = seconds
        self._write()

    def _write(self) -> None:
        turned = self.clock.with_suffix(".new")
        turned.write_text(f"{self.passed} {self.stepped}")
        turned.replace(self.clock)


def start_turned(
    emulator: EmulatorProcess, folder: Path, nursery: Nursery, *, stepped: float = 0.0, **settings: object
) -> TurnedServer:
    """A server that delivers to this emulator and believes the clock of this test.

    Its settle times are the real ones, unless `settings` say otherwise.
    """
    clock = folder / "clock"
    clock.write_text(f"0 {stepped}")
    server = deliver_to(
        emulator,
        folder / "server",
        nursery,
        **{
            "MLPROXY_TEST_CLOCK": clock,
            "MLPROXY_SETTLE_SECONDS": 60,
            "MLPROXY_MARKER_SETTLE_SECONDS": 600,
            **settings,
        },
    )
    return TurnedServer(server, clock, stepped=stepped)
