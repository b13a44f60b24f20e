"""The one place that constructs. Everything else is handed what it needs."""

import os
import secrets
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from server.api.app import make_app, make_door
from server.api.artifacts import ArtifactRoutes
from server.api.door import Authenticator, Door
from server.api.endpoints import Endpoint
from server.api.evaluation import EvaluationRoutes
from server.api.experiments import ExperimentRoutes
from server.api.graphql import GraphQLRoutes
from server.api.logged_models import LoggedModelRoutes
from server.api.metrics import MetricRoutes
from server.api.openapi import describe
from server.api.operations import OperationRoutes
from server.api.registry import RegistryRoutes
from server.api.runs import RunRoutes
from server.api.scorers import ScorerRoutes
from server.api.traces import TraceRoutes
from server.api.ui import UiRoutes
from server.api.ui_calls import UiCallRoutes
from server.api.webhooks import WebhookRoutes
from server.api.workspaces import WorkspaceRoutes
from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.database.migration import prepare_schema
from server.domain.clock import SystemClock
from server.domain.verdicts import Verdict
from server.journal import leases
from server.journal.lanes import LaneKind
from server.protocol import operations as messages
from server.replay.deliveries.artifacts import ArtifactDelivery
from server.replay.deliveries.delivery import Delivery, SettleTimes
from server.replay.deliveries.experiments import ExperimentDelivery
from server.replay.deliveries.models import ModelDelivery
from server.replay.deliveries.runs import RunDelivery
from server.replay.gate import Gate
from server.replay.supervisor import Supervisor
from server.replay.worker import ReplaySettings
from server.services.artifacts import Artifacts
from server.services.assessments import Assessments
from server.services.evaluation import EvaluationDatasets
from server.services.experiments import Experiments, add_default_experiment
from server.services.keys import KeyAuthenticator, Keys, OpenAuthenticator
from server.services.logged_models import LoggedModels
from server.services.metrics import Metrics
from server.services.operations import Operations
from server.services.registry import Registry
from server.services.runs import Runs
from server.services.scorers import Scorers
from server.services.studio import StudioLinks
from server.services.trace_metrics import TraceMetrics
from server.services.trace_spans import TraceSpans
from server.services.traces import Traces
from server.services.ui_files import UiFiles
from server.services.verification import Verification
from server.services.webhooks import Webhooks
from server.settings import AuthKind, ServerRole, Settings, SettingsError
from server.spool.spool import Spool
from server.store import artifacts as artifact_rows
from server.store import facts, upstream_ids
from server.telemetry.metrics import Telemetry
from server.upstream.artifacts import UpstreamArtifacts
from server.upstream.channel import create_http_client
from server.upstream.connection import Connection
from server.upstream.credentials import TokenSource
from server.upstream.experiments import UpstreamExperiments
from server.upstream.failures import UpstreamFailure
from server.upstream.metrics import UpstreamMetrics
from server.upstream.models import UpstreamModels
from server.upstream.runs import UpstreamRuns
from server.upstream.workspace import ArmWorkspaceId, WorkspaceAddress, parse_workspace, resolve
from server.webhooks.guard import Guard
from server.webhooks.outbound import Outbound
from server.webhooks.sender import Sender

_LEAST_FREE_BYTES = 256 * 1024 * 1024
_SWEEP_GRACE_SECONDS = 900
_INSTALLATION = "installation"


@dataclass(slots=True)
class Upstream:
    """Everything that talks to the workspace."""

    address: WorkspaceAddress
    tokens: TokenSource
    connection: Connection
    runs: UpstreamRuns
    metrics: UpstreamMetrics
    artifacts: UpstreamArtifacts
    experiments: UpstreamExperiments
    models: UpstreamModels


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


class _WorkspaceView:
    """What the operator sees of the workspace."""

    def __init__(self, upstream: Upstream, gate: Gate, clock: SystemClock) -> None:
        self._upstream = upstream
        self._gate = gate
        self._clock = clock

    @property
    def address(self) -> str:
        return self._upstream.address.canonical

    def studio_url(self, upstream_run_id: str) -> str:
        return self._upstream.address.studio_url(upstream_run_id)

    @property
    def is_reachable(self) -> bool | None:
        if not self._gate.is_healthy:
            return False
        return None if self._gate.last_success_ms is None else True

    @property
    def last_failure(self) -> str | None:
        return self._gate.last_failure

    def token(self) -> messages.TokenStatus:
        tokens = self._upstream.tokens
        expires = tokens.expires_at_ms
        left = None if expires is None else (expires - self._clock.now_ms()) / 1000
        return messages.TokenStatus(left, tokens.failures, tokens.last_error)


class _UpstreamBytes:
    """Reads files of our runs from the workspace."""

    def __init__(self, database: Database, artifacts: UpstreamArtifacts) -> None:
        self._database = database
        self._artifacts = artifacts

    async def open_read(
        self, run_id: str, upstream_path: str, offset: int, length: int | None
    ) -> AsyncIterator[bytes]:
        ids = await self._database.read(lambda transaction: upstream_ids.find_run_by_id(transaction, run_id))
        if ids is None or ids.upstream_id is None:
            raise UpstreamFailure(Verdict.PARK, "RUN_NOT_CREATED", "The run is not in the workspace.")
        experiment = ids.experiment.upstream_id or ids.experiment.upstream_name
        async for chunk in self._artifacts.open_read(
            experiment, ids.upstream_id, upstream_path, offset, length
        ):
            yield chunk


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
        upstream = await _build_upstream(settings, database, writer, telemetry, stops)
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
        workspace=None if upstream is None else _WorkspaceView(upstream, gate, clock),
        replay=supervisor,
    )
    routes = _routes(
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


async def _build_upstream(
    settings: Settings,
    database: Database,
    writer: Writer,
    telemetry: Telemetry,
    stops: list[Callable[[], Awaitable[None]]],
) -> Upstream | None:
    if settings.workspace is None:
        return None
    try:
        wanted = parse_workspace(settings.workspace)
    except ValueError as error:
        raise SettingsError(f"MLPROXY_WORKSPACE: {error}") from error
    http = create_http_client()
    stops.append(http.aclose)
    address = wanted
    if isinstance(address, ArmWorkspaceId):
        address = await _resolve_arm(settings, address, database, writer, http)
    tokens = TokenSource(settings.credential.value, scope=address.token_scope)
    stops.append(tokens.aclose)
    connection = Connection(address, tokens, http, observe=telemetry.observe_upstream)
    upstream = Upstream(
        address,
        tokens,
        connection,
        UpstreamRuns(connection),
        UpstreamMetrics(connection),
        UpstreamArtifacts(connection),
        UpstreamExperiments(connection),
        UpstreamModels(connection),
    )
    stops.append(upstream.artifacts.aclose)
    await writer.commit(
        Work(
            lambda transaction: _bind_workspace(transaction, address.canonical),
            alone=True,
            raises=(SettingsError,),
        )
    )
    return upstream


async def _resolve_arm(
    settings: Settings, arm_id: ArmWorkspaceId, database: Database, writer: Writer, http: Any
) -> WorkspaceAddress:
    """The workspace's address; once found it is remembered, so that a later start needs no Azure."""
    name = f"arm:{arm_id.path}"
    known = await database.read(lambda transaction: facts.find(transaction, name))
    if known is not None:
        address = parse_workspace(known)
        assert isinstance(address, WorkspaceAddress)
        return address
    tokens = TokenSource(settings.credential.value, scope=f"{settings.arm_url}/.default")
    try:
        address = await resolve(arm_id, tokens, http, management_url=settings.arm_url)
    except UpstreamFailure as failure:
        raise SettingsError(
            f"MLPROXY_WORKSPACE: the workspace's address could not be asked of Azure Resource Manager"
            f" ({failure.message}). Give its tracking URI instead: azureml://…"
        ) from failure
    finally:
        await tokens.aclose()
    found = address.canonical
    await writer.commit(Work(lambda transaction: facts.put(transaction, name, found), alone=True))
    return address


def _bind_workspace(transaction: Transaction, address: str) -> None:
    """Everything delivered belongs to one workspace; another one is refused.

    Raises:
        SettingsError: something was delivered to another workspace already.
    """
    bound = facts.find_delivered_workspace(transaction)
    if bound is not None and bound != address:
        raise SettingsError(
            f"This data belongs to the workspace {bound}, to which it was delivered already;"
            " MLPROXY_WORKSPACE"
            f" names {address}. Set MLPROXY_WORKSPACE back, or start with a new MLPROXY_DATA_DIR (or"
            " database)"
            " for the other workspace."
        )
    facts.bind_workspace(transaction, address)


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


def _routes(
    settings: Settings,
    database: Database,
    writer: Writer,
    spool: Spool,
    upstream: Upstream | None,
    operations: Operations,
    authenticator: KeyAuthenticator,
    telemetry: Telemetry,
    outbound: Outbound,
) -> list[Endpoint]:
    remote = None if upstream is None else _UpstreamBytes(database, upstream.artifacts)
    verification = None
    if upstream is not None:
        verification = Verification(
            database=database,
            runs_upstream=upstream.runs,
            metrics_upstream=upstream.metrics,
            artifacts_upstream=upstream.artifacts,
        )
    routes: list[Endpoint] = []
    own = OperationRoutes(
        operations=operations,
        keys=Keys(database=database, writer=writer),
        verification=verification,
        forget_keys=authenticator.forget,
        readiness=_readiness(settings, writer),
        render_metrics=_rendering(operations, telemetry),
        describe=lambda: describe(routes),
    )
    runs, metrics = Runs(database=database, writer=writer), Metrics(database=database)
    experiments, registry = (
        Experiments(database=database, writer=writer),
        Registry(database=database, writer=writer),
    )
    studio = _studio_links(settings, database, upstream)
    # The hottest first: patterns are tried in order, fixed paths are found in one step anyway.
    routes.extend(RunRoutes(runs, studio).routes())
    routes.extend(MetricRoutes(metrics).routes())
    routes.extend(ExperimentRoutes(experiments).routes())
    artifacts = Artifacts(database=database, writer=writer, spool=spool, upstream=remote)
    routes.extend(ArtifactRoutes(artifacts).routes())
    routes.extend(RegistryRoutes(registry).routes())
    routes.extend(LoggedModelRoutes(LoggedModels(database=database, writer=writer)).routes())
    routes.extend(_trace_routes(database, writer, artifacts).routes())
    routes.extend(_kept_routes(database, writer, outbound))
    routes.extend(own.routes())
    routes.extend(UiCallRoutes().routes())
    routes.extend(
        GraphQLRoutes(
            runs=runs, experiments=experiments, registry=registry, metrics=metrics, studio=studio
        ).routes()
    )
    routes.extend(
        UiRoutes(
            UiFiles(settings.ui_folder),
            path_prefix=settings.path_prefix,
            runs_artifact_scripts=settings.ui_artifact_scripts,
        ).routes()
    )
    return routes


def _studio_links(settings: Settings, database: Database, upstream: Upstream | None) -> StudioLinks:
    shows = upstream is not None and settings.studio_links
    return StudioLinks(database=database, url_of=upstream.address.studio_url if upstream and shows else None)


def _trace_routes(database: Database, writer: Writer, artifacts: Artifacts) -> TraceRoutes:
    return TraceRoutes(
        traces=Traces(database=database, writer=writer),
        spans=TraceSpans(writer=writer),
        metrics=TraceMetrics(database=database),
        assessments=Assessments(database=database, writer=writer),
        artifacts=artifacts,
    )


def _kept_routes(database: Database, writer: Writer, outbound: Outbound) -> list[Endpoint]:
    """What the workspace has nothing of: kept here, never delivered."""
    return [
        *EvaluationRoutes(EvaluationDatasets(database=database, writer=writer)).routes(),
        *ScorerRoutes(Scorers(database=database, writer=writer)).routes(),
        *WebhookRoutes(
            Webhooks(database=database, writer=writer, clock=SystemClock(), outbound=outbound)
        ).routes(),
        *WorkspaceRoutes().routes(),
    ]


def _readiness(settings: Settings, writer: Writer) -> Callable[[], Awaitable[dict[str, object]]]:
    async def check() -> dict[str, object]:
        problems: dict[str, object] = {}
        try:
            await writer.commit(
                Work(lambda transaction: facts.put(transaction, "probe", str(transaction.now_ms)))
            )
        except Exception as error:
            problems["database"] = f"cannot be written: {type(error).__name__}"
        free = shutil.disk_usage(settings.data_dir).free
        if free < _LEAST_FREE_BYTES:
            problems["disk"] = f"only {free} bytes free in the data folder"
        return problems

    return check


def _rendering(operations: Operations, telemetry: Telemetry) -> Callable[[], Awaitable[bytes]]:
    async def render() -> bytes:
        status = await operations.status()
        gauges: dict[str, float | None] = {
            "pending": status.pending,
            "uncertain": status.uncertain,
            "parked": status.parked,
            "overflow": status.overflow,
            "oldest_pending_age_seconds": status.lag_seconds,
            "pending_bytes": status.pending_bytes,
            "spool_bytes": status.spool_bytes,
        }
        if status.token is not None:
            gauges["token_expiry_seconds"] = status.token.expires_in_seconds
            gauges["token_refresh_failures_total"] = status.token.failures
        return telemetry.render(gauges)

    return render


def _starting(worker: Supervisor | Sender) -> Callable[[], Awaitable[None]]:
    async def start() -> None:
        worker.start()

    return start


def _closing(part: Database | Spool) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        part.close()

    return close
