"""The one place that constructs. Everything else is handed what it needs."""

import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from server.api.app import make_app, make_door
from server.api.door import Authenticator, Door
from server.api.endpoints import Endpoint
from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.database.migration import prepare_schema
from server.domain.clock import SystemClock
from server.journal import leases
from server.journal.lanes import LaneKind
from server.replay.deliveries.artifacts import ArtifactDelivery
from server.replay.deliveries.delivery import Delivery, SettleTimes
from server.replay.deliveries.experiments import ExperimentDelivery
from server.replay.deliveries.models import ModelDelivery
from server.replay.deliveries.runs import RunDelivery
from server.replay.gate import Gate
from server.replay.supervisor import Supervisor
from server.replay.worker import ReplaySettings
from server.routing import build_routes
from server.services.experiments import add_default_experiment
from server.services.keys import KeyAuthenticator, OpenAuthenticator
from server.services.operations import Operations
from server.settings import AuthKind, ServerRole, Settings
from server.spool.spool import Spool
from server.store import artifacts as artifact_rows
from server.store import facts
from server.telemetry.metrics import Telemetry
from server.webhooks.guard import Guard
from server.webhooks.outbound import Outbound
from server.webhooks.sender import Sender
from server.workspace_link import Upstream, WorkspaceView, build_upstream

_SWEEP_GRACE_SECONDS = 900
_INSTALLATION = "installation"


@dataclass(slots=True)
class Server:
    """A built server. `start` before it is reached, `stop` when it is to end."""

    settings: Settings
    door: Door
    admin_door: Door
    routes: list[Endpoint]
    database: Database
    upstream: Upstream | None
    _starts: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _stops: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def start(self) -> None:
        """Begin delivering."""
        for start in self._starts:
            await start()

    async def stop(self) -> None:
        """Finish what is in flight, release, close, in that order."""
        for stop in reversed(self._stops):
            await stop()


async def build(settings: Settings, *, replays: bool = True) -> Server:
    """Construct a server on its database. Without `replays` nothing is delivered.

    Raises:
        SettingsError: a setting contradicts another, or what the database already holds.
        SchemaError: the database's schema is another version's.
        DurabilityError: the database cannot promise durability.
    """
    auth = settings.effective_auth
    clock = SystemClock()
    telemetry = Telemetry()
    database = Database(settings.url)
    prepare_schema(database)
    database.check_durability()
    writer = Writer(database=database, clock=clock, observe_group=telemetry.observe_group)
    writer.start()
    stops: list[Callable[[], Awaitable[None]]] = [_closing(database), writer.stop]
    try:
        await writer.commit(Work(_prepare_store, alone=True))
        spool = Spool(settings.data_dir / "spool", settings.max_spool_bytes)
        stops.append(_closing(spool))
        known = await database.read(artifact_rows.list_spool_names)
        # Elsewhere another replica may hold a file whose row it has not committed yet.
        await spool.sweep(known, grace_seconds=0 if settings.is_sqlite else _SWEEP_GRACE_SECONDS)
        upstream = await build_upstream(settings, database, writer, telemetry, stops)
    except BaseException:
        for stop in reversed(stops):
            await stop()
        raise

    gate = Gate(clock=clock)
    supervisor = None
    starts: list[Callable[[], Awaitable[None]]] = []
    if upstream is not None and replays and settings.role is not ServerRole.API:
        supervisor = await _build_supervisor(
            settings, database, writer, clock, gate, upstream, spool, telemetry
        )
        writer.on_commit(supervisor.notice)
        starts.append(_starting(supervisor))
        stops.append(supervisor.stop)

    outbound = Outbound(guard=Guard(listed=settings.webhook_hosts))
    stops.append(outbound.aclose)
    if replays and settings.role is not ServerRole.API:
        sender = Sender(database=database, writer=writer, clock=clock, outbound=outbound)
        starts.append(_starting(sender))
        stops.append(sender.stop)

    authenticator: Authenticator
    authenticator = key_authenticator = KeyAuthenticator(database=database, writer=writer, clock=clock)
    if auth is AuthKind.OFF:
        authenticator = OpenAuthenticator()
    operations = Operations(
        database=database,
        clock=clock,
        spool_bytes=lambda: spool.used_bytes,
        workspace=None if upstream is None else WorkspaceView(upstream, gate, clock),
        replay=supervisor,
    )
    routes = build_routes(
        settings, database, writer, spool, upstream, operations, key_authenticator, telemetry, outbound
    )
    app = make_app(routes)

    def observe(scope: Any, status: int | None, seconds: float) -> None:
        telemetry.observe_request(status, seconds)

    door = make_door(
        app,
        authenticator=authenticator,
        allowed_hosts=settings.host_names,
        path_prefix=settings.path_prefix,
        observe=observe,
    )
    admin_door = make_door(app, authenticator=OpenAuthenticator(), allowed_hosts=frozenset({"*"}))
    return Server(settings, door, admin_door, routes, database, upstream, starts, stops)


# --- parts ----------------------------------------------------------------------------------


def _prepare_store(transaction: Transaction) -> None:
    add_default_experiment(transaction)
    if facts.find(transaction, _INSTALLATION) is None:
        facts.put(transaction, _INSTALLATION, secrets.token_hex(8))


async def _build_supervisor(
    settings: Settings,
    database: Database,
    writer: Writer,
    clock: SystemClock,
    gate: Gate,
    upstream: Upstream,
    spool: Spool,
    telemetry: Telemetry,
) -> Supervisor:
    settle = SettleTimes(
        content=timedelta(seconds=settings.settle_seconds),
        marker=timedelta(seconds=settings.marker_settle_seconds),
    )
    if not database.is_postgres:
        # The folder's lock is ours: whoever held a lease on a lane is gone.
        await writer.commit(Work(leases.release_all))
    installation = await database.read(lambda transaction: facts.find(transaction, _INSTALLATION))
    deliveries: dict[LaneKind, Delivery] = {
        LaneKind.EXPERIMENT: ExperimentDelivery(
            database=database, writer=writer, experiments=upstream.experiments
        ),
        LaneKind.RUN_DATA: RunDelivery(
            database=database, writer=writer, runs=upstream.runs, metrics=upstream.metrics, settle=settle
        ),
        LaneKind.RUN_ARTIFACTS: ArtifactDelivery(
            database=database, writer=writer, artifacts_upstream=upstream.artifacts, spool=spool
        ),
        LaneKind.REGISTERED_MODEL: ModelDelivery(
            database=database,
            writer=writer,
            models=upstream.models,
            settle=settle,
            installation=installation or "",
        ),
    }
    return Supervisor(
        database=database,
        writer=writer,
        clock=clock,
        gate=gate,
        deliveries=deliveries,
        settings=ReplaySettings(),
        owner=f"{socket.gethostname()}:{os.getpid()}",
        observe=telemetry.observe_delivery,
    )


def _starting(worker: Supervisor | Sender) -> Callable[[], Awaitable[None]]:
    async def start() -> None:
        worker.start()

    return start


def _closing(part: Database | Spool) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        part.close()

    return close
