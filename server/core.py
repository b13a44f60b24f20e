"""What everything else stands on: the database and who may write to it, the spool, the figures."""

import asyncio
import os
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from server import __version__
from server.commit.bounds import BacklogBound, BacklogWatch
from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.database.migration import prepare_schema
from server.database.postgres import set_up_alone
from server.domain.clock import Clock, machine_clock
from server.lifecycle import Lifecycle
from server.replication import Replica, become_replica
from server.services.experiments import add_default_experiment
from server.settings import Settings
from server.spool.spool import Spool
from server.store import artifacts as artifact_rows
from server.store import facts
from server.telemetry.metrics import Telemetry
from server.telemetry.tracing import open_tracing

if TYPE_CHECKING:
    from server.telemetry.spans import Tracing

INSTALLATION = "installation"
"""The fact that tells one installation from another, in marks that it leaves in the workspace."""
_SWEEP_GRACE_SECONDS = 900


@dataclass(slots=True)
class Core:
    """Handed to whatever constructs. `stopping` is set as soon as the process is told to end."""

    settings: Settings
    lifecycle: Lifecycle
    telemetry: Telemetry
    tracing: "Tracing | None"
    database: Database
    replica: Replica
    backlog: BacklogBound
    writer: Writer
    spool: Spool
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def clock(self) -> Clock:
        """The clock that all replicas share."""
        return self.replica.clock


async def build_core(settings: Settings, lifecycle: Lifecycle) -> Core:
    """Open the database and the spool.

    Raises:
        SchemaError: the database's schema is another version's.
        DurabilityError: the database cannot promise durability.
    """
    telemetry = Telemetry()
    tracing = open_tracing(os.environ, version=__version__)
    if tracing is not None:
        lifecycle.on_stop(partial(asyncio.to_thread, tracing.close))
    database = Database(settings.url)
    database.require_reachable()
    prepare_schema(database)
    database.check_durability()
    replica = await become_replica(database, machine_clock())
    backlog = BacklogBound(limit_bytes=settings.max_backlog_bytes)
    writer = Writer(
        database=database,
        clock=replica.clock,
        backlog=backlog,
        observe_group=telemetry.observe_group,
        trace=tracing,
    )
    writer.start()
    lifecycle.close(database.close)
    lifecycle.on_stop(writer.stop)
    await writer.commit(Work(_prepare_store, alone=True))
    spool = Spool(settings.spool_folder, settings.max_spool_bytes)
    lifecycle.close(spool.close)
    known = await database.read(artifact_rows.list_spool_names)
    # Elsewhere another replica may hold a file whose row it has not committed yet.
    await spool.sweep(known, grace_seconds=0 if settings.is_sqlite else _SWEEP_GRACE_SECONDS)
    lifecycle.on_start(replica.start)
    lifecycle.on_stop(replica.stop)
    watch = BacklogWatch(bound=backlog, database=database)
    await watch.measure()
    lifecycle.run(watch)
    return Core(settings, lifecycle, telemetry, tracing, database, replica, backlog, writer, spool)


def _prepare_store(transaction: Transaction) -> None:
    set_up_alone(transaction)
    add_default_experiment(transaction)
    if facts.find(transaction, INSTALLATION) is None:
        facts.put(transaction, INSTALLATION, secrets.token_hex(8))
