"""A server that dies at a named place when it is told to, and comes back."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import create_engine, text

from tests.durability.conftest import drain_all
from tests.durability.tracking import Tracking
from tests.support.server import ServerProcess

DEATH_SECONDS = 120.0
KILLED = -9


def is_stopped(pid: int) -> bool:
    """Whether a process stands still, as after SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@dataclass(slots=True)
class CrashingServer:
    """One server over all its lives. `script` is the file that its failpoints are read from."""

    server: ServerProcess
    script: Path
    database_url: str | None
    client: Tracking = field(init=False)
    lives: int = 1

    def __post_init__(self) -> None:
        self.client = Tracking(self.server.url)

    def arm(self, text_: str) -> None:
        """Arm these failpoints, and no others, from now on."""
        self.script.write_text(text_)

    def survive(self, operation: Callable[[Tracking], object]) -> None:
        """What a client does; once more if the server dies under it."""
        try:
            operation(self.client)
        except httpx.TransportError:
            self.revive()
            operation(self.client)

    def die_while_draining(self) -> None:
        """Ask for delivery at once, and wait for the death that comes of it, or has come already."""
        try:
            drain_all(self.server, timeout=DEATH_SECONDS)
        except httpx.TransportError:
            assert self.server.wait(DEATH_SECONDS) == KILLED
            return
        raise AssertionError("it was not killed: the place was not reached")

    def revive(self) -> None:
        """Start it again after a death, with nothing armed."""
        if not self.server.has_ended:
            try:
                assert self.server.wait(DEATH_SECONDS) == KILLED
            except subprocess.TimeoutExpired:
                raise AssertionError("it is alive: the place was not reached") from None
        self.arm("")
        if self.database_url is not None:
            end_leases(self.database_url)
        self.server.launch()
        self.lives += 1
        self.client.close()
        self.client = Tracking(self.server.url)


def end_leases(database_url: str) -> None:
    """On Postgres the claims of the dead last until their time is up: let it be up now."""
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE lanes SET lease_until_ms = 0 WHERE lease_token IS NOT NULL"))
    engine.dispose()
