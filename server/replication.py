"""What makes this process one of several on one Postgres: the clock they share, its session, its signals.

On SQLite there is one process, and nothing of this but its name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from server.commit.writer import Writer
from server.database.clock import DatabaseClock
from server.database.engine import Database
from server.database.session import ReplicaSession
from server.domain.clock import Clock
from server.replay.owners import Owner, OwnerWatch
from server.replay.signals import Signals
from server.replay.supervisor import Supervisor


@dataclass(slots=True)
class Replica:
    """This process among the others. `start` it after what it speaks to, `stop` it after that has stopped."""

    clock: Clock
    owner: Owner
    watch: OwnerWatch | None = None
    session: ReplicaSession | None = None
    signals: Signals | None = None
    _listeners: list[Callable[[str], None]] = field(default_factory=list)

    async def start(self) -> None:
        """Be seen by the others, and hear them."""
        if self.session is not None and self.signals is not None:
            self.session.start()
            self.signals.start()

    async def stop(self) -> None:
        """Be gone."""
        if self.session is not None and self.signals is not None:
            await self.signals.stop()
            await self.session.stop()

    def join(self, writer: Writer, supervisor: Supervisor | None) -> None:
        """Let the supervisor, if this process delivers, and the others know what is committed here."""
        told: list[Callable[[set[int]], None]] = []
        if supervisor is not None:
            told.append(supervisor.notice)
            self._listeners.append(supervisor.hear)
        if self.signals is not None:
            told.append(self.signals.notice)

        def on_commit(lane_ids: set[int]) -> None:
            for tell in told:
                tell(lane_ids)

        writer.on_commit(on_commit)


async def become_replica(database: Database, machine: Clock) -> Replica:
    """Set the clock by the database's, where several processes share one."""
    if not database.is_postgres:
        return Replica(machine, Owner())
    clock = DatabaseClock(machine)
    await clock.ask(database)
    listeners: list[Callable[[str], None]] = []

    def hear(text: str) -> None:
        for listener in listeners:
            listener(text)

    session = ReplicaSession(database=database, clock=clock, hear=hear)
    return Replica(clock, Owner(session), OwnerWatch(clock), session, Signals(database), listeners)


class Flush:
    """Asks everyone who delivers not to wait: this process, and the others."""

    def __init__(self, supervisor: Supervisor | None, signals: Signals | None) -> None:
        self._parts: list[Supervisor | Signals] = [part for part in (supervisor, signals) if part is not None]

    def begin_flush(self) -> None:
        """Stop waiting."""
        for part in self._parts:
            part.begin_flush()

    def end_flush(self) -> None:
        """Wait again."""
        for part in self._parts:
            part.end_flush()
