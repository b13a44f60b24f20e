"""The one place that constructs. Everything else is handed what it needs."""

from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from server.access_link import Access, build_access
from server.api.app import make_app, make_door
from server.api.door import Door
from server.api.endpoints import Endpoint
from server.api.reach import ExperimentLimits
from server.core import Core, build_core
from server.database.engine import Database
from server.lifecycle import Lifecycle
from server.replay.gate import Gate
from server.replay.supervisor import Supervisor
from server.replay_link import build_supervisor
from server.replication import Flush
from server.routing import NO_CLIENTS, Services, build_routes, routes_of_role
from server.services.delivery_history import DeliveryHistory
from server.services.disk_outlook import DiskWatch
from server.services.keys import OpenAuthenticator
from server.services.namings import Namings
from server.services.operations import Operations
from server.services.reaches import Reaches
from server.services.resends import Resends
from server.settings import ServerRole, Settings
from server.webhooks.guard import Guard
from server.webhooks.outbound import Outbound
from server.webhooks.sender import Sender
from server.workspace_link import Upstream, WorkspaceView, build_upstream, make_bucket, make_pace


@dataclass(slots=True)
class Server:
    """A built server. `start` before it is reached, `stop` when it is to end."""

    door: ASGIApp
    admin_door: Door
    routes: list[Endpoint]
    upstream: Upstream | None
    _core: Core
    _supervisor: Supervisor | None

    @property
    def settings(self) -> Settings:
        """What it was built with."""
        return self._core.settings

    @property
    def database(self) -> Database:
        """Its database."""
        return self._core.database

    async def start(self) -> None:
        """Begin delivering."""
        await self._core.lifecycle.start()

    def begin_stop(self) -> None:
        """Be not ready from now on, and begin no delivery; requests are still answered."""
        self._core.stopping.set()
        if self._supervisor is not None:
            self._supervisor.begin_stop()

    async def stop(self) -> None:
        """Finish what is in flight, release, close, in that order."""
        await self._core.lifecycle.stop()


async def build(settings: Settings, *, replays: bool = True) -> Server:
    """Construct a server on its database. Without `replays` nothing is delivered.

    Raises:
        SettingsError: a setting contradicts another, or what the database already holds.
        SchemaError: the database's schema is another version's.
        DurabilityError: the database cannot promise durability.
    """
    lifecycle = Lifecycle()
    try:
        return await _build(settings, lifecycle, replays=replays)
    except BaseException:
        await lifecycle.stop()
        raise


async def _build(settings: Settings, lifecycle: Lifecycle, *, replays: bool) -> Server:
    core = await build_core(settings, lifecycle)
    bucket = make_bucket(core)
    upstream = await build_upstream(core, make_pace(core, bucket))
    gate = Gate(clock=core.clock)
    delivers = replays and settings.role is not ServerRole.API
    supervisor = None
    if upstream is not None and delivers:
        supervisor = await build_supervisor(core, gate, upstream)
        lifecycle.run(supervisor)
    core.replica.join(core.writer, supervisor)
    access = await build_access(core)
    view = None if upstream is None else WorkspaceView(upstream, gate, bucket, core.clock)
    services = _build_services(core, view, supervisor, replays=replays, delivers=delivers)
    routes = routes_of_role(settings.role, build_routes(core, upstream, access, services))
    app = make_app(routes)
    door = _traced(core, _build_door(core, app, access))
    admin_door = make_door(app, authenticator=OpenAuthenticator(), allowed_hosts=frozenset({"*"}))
    return Server(door, admin_door, routes, upstream, core, supervisor)


def _build_services(
    core: Core,
    workspace: WorkspaceView | None,
    supervisor: Supervisor | None,
    *,
    replays: bool,
    delivers: bool,
) -> Services:
    """What several routes share, and what works beside them."""
    database, writer, clock = core.database, core.writer, core.clock
    outbound = Outbound(guard=Guard(listed=core.settings.webhook_hosts))
    core.lifecycle.on_stop(outbound.aclose)
    namings = Namings(database=database, writer=writer)
    database.on_names(namings)
    disk = DiskWatch(
        database=database,
        writer=writer,
        clock=clock,
        spool=core.spool,
        data_dir=core.settings.data_dir,
        least_free_bytes=core.settings.min_free_bytes,
    )
    history = DeliveryHistory(database=database, clock=clock, disk=disk)
    if delivers:
        core.lifecycle.run(Sender(database=database, writer=writer, clock=clock, outbound=outbound))
    if replays:
        core.lifecycle.run(history)
        core.lifecycle.run(namings)
    operations = Operations(
        database=database,
        clock=clock,
        spool=core.spool,
        backlog=core.backlog,
        workspace=workspace,
        disk=disk,
        replay=Flush(supervisor, core.replica.signals),
    )
    resends = Resends(writer=writer, namings=namings, observe=core.telemetry.observe_resend)
    return Services(operations, history, outbound, resends)


def _traced(core: Core, door: Door) -> ASGIApp:
    """The door; in a process that is traced, with a span for each request."""
    if core.tracing is None:
        return door
    from server.api.traced import TracedDoor  # needs OpenTelemetry, which few install

    return TracedDoor(door, core.tracing, path_prefix=core.settings.path_prefix)


def _build_door(core: Core, app: Any, access: Access) -> Door:
    def observe(scope: Any, status: int | None, seconds: float) -> None:
        core.telemetry.observe_request(status, seconds)

    return make_door(
        app,
        authenticator=access.authenticator,
        allowed_hosts=core.settings.host_names,
        path_prefix=core.settings.path_prefix,
        observe=observe,
        sessions=access.sessions,
        limits=ExperimentLimits(Reaches(database=core.database)),
        absence=NO_CLIENTS if core.settings.role is ServerRole.REPLAY else None,
        is_stopping=core.stopping.is_set,
    )
