"""Every route of the server, with the services behind it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf

from server.access_link import Access
from server.api.artifacts import ArtifactRoutes
from server.api.backups import BackupRoutes
from server.api.bundles import BundleRoutes
from server.api.direct_artifacts import DirectArtifactRoutes
from server.api.doctor import DoctorRoutes
from server.api.endpoints import MLFLOW_2, OWN, Endpoint
from server.api.evaluation import EvaluationRoutes
from server.api.experiments import ExperimentRoutes
from server.api.gc import GarbageCollectionRoutes
from server.api.graphql import GraphQLRoutes
from server.api.logged_models import LoggedModelRoutes
from server.api.login import LoginRoutes
from server.api.metrics import MetricRoutes
from server.api.openapi import describe
from server.api.operations import OperationRoutes
from server.api.pages import PageFileRoutes
from server.api.parked import ParkedRoutes
from server.api.registry import RegistryRoutes
from server.api.runs import RunRoutes
from server.api.scorers import ScorerRoutes
from server.api.sync import SyncRoutes
from server.api.traces import TraceRoutes
from server.api.ui import UiRoutes
from server.api.ui_calls import UiCallRoutes
from server.api.webhooks import WebhookRoutes
from server.api.workspaces import WorkspaceRoutes
from server.commit.writer import Work, Writer
from server.core import Core
from server.database.engine import Database
from server.domain.attempts import Attempts
from server.domain.clock import SystemClock, machine_clock
from server.domain.errors import MlflowError
from server.protocol.webhook_events import ALL_EVENTS, MLFLOW_EVENTS
from server.services.artifacts import Artifacts
from server.services.assessments import Assessments
from server.services.backup import Backups
from server.services.delivery_history import DeliveryHistory
from server.services.delivery_overview import DeliveryOverview
from server.services.direct_artifacts import DirectArtifacts
from server.services.disk_outlook import Headroom
from server.services.doctor import Doctor
from server.services.evaluation import EvaluationDatasets
from server.services.experiments import Experiments
from server.services.exports import Exports
from server.services.gc import GarbageCollection
from server.services.imports import Imports
from server.services.keys import Keys
from server.services.logged_models import LoggedModels
from server.services.metrics import Metrics
from server.services.operations import Operations
from server.services.parked import Parked
from server.services.registry import Registry
from server.services.resends import Resends
from server.services.runs import Runs
from server.services.scorers import Scorers
from server.services.studio import StudioLinks
from server.services.trace_metrics import TraceMetrics
from server.services.trace_spans import TraceSpans
from server.services.traces import Traces
from server.services.ui_files import UiFiles
from server.services.verification import Verification
from server.services.webhooks import Webhooks
from server.settings import ServerRole, Settings
from server.spool.spool import Spool
from server.store import facts
from server.webhooks.outbound import Outbound
from server.workspace_link import Upstream, UpstreamBytes, probes_of

NO_CLIENTS = (
    "This process only delivers (MLPROXY_ROLE=replay). Clients use one whose role is api or all:"
    " MLFLOW_TRACKING_URI must name that."
)
_OPERATORS_PATHS = ("/health", "/version", "/metrics", "/openapi.json", "/sync", f"{OWN[0]}/")


@dataclass(frozen=True, slots=True)
class Services:
    """What several routes share."""

    operations: Operations
    history: DeliveryHistory
    outbound: Outbound
    resends: Resends


def build_routes(core: Core, upstream: Upstream | None, access: Access, services: Services) -> list[Endpoint]:
    """The whole route table."""
    settings, database, writer, spool = core.settings, core.database, core.writer, core.spool
    operations, resends = services.operations, services.resends
    remote = None if upstream is None else UpstreamBytes(database, upstream.artifacts)
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
        forget_keys=access.forget,
        readiness=_readiness(core),
        render_metrics=_rendering(core, operations),
        describe=lambda: describe(routes),
    )
    runs, metrics = Runs(database=database, writer=writer, resends=resends), Metrics(database=database)
    experiments, registry = (
        Experiments(database=database, writer=writer, resends=resends),
        Registry(database=database, writer=writer, resends=resends),
    )
    studio = _studio_links(settings, database, upstream)
    # The hottest first: patterns are tried in order, fixed paths are found in one step anyway.
    routes.extend(RunRoutes(runs, studio).routes())
    routes.extend(MetricRoutes(metrics).routes())
    routes.extend(ExperimentRoutes(experiments).routes())
    artifacts = Artifacts(database=database, writer=writer, spool=spool, upstream=remote)
    routes.extend(ArtifactRoutes(artifacts).routes())
    direct = DirectArtifacts(
        database=database, writer=writer, storage=remote if settings.direct_artifacts else None
    )
    routes.extend(
        DirectArtifactRoutes(direct=direct, artifacts=artifacts, path_prefix=settings.path_prefix).routes()
    )
    routes.extend(RegistryRoutes(registry).routes())
    logged_models = LoggedModels(database=database, writer=writer, resends=resends)
    routes.extend(LoggedModelRoutes(logged_models).routes())
    routes.extend(_trace_routes(database, writer, artifacts).routes())
    routes.extend(_kept_routes(database, writer, services.outbound))
    routes.extend(own.routes())
    backups = Backups(database=database, spool=spool, clock=machine_clock())
    routes.extend(BackupRoutes(backups).routes())
    collection = GarbageCollection(database=database, writer=writer, spool=spool, clock=core.clock)
    routes.extend(GarbageCollectionRoutes(collection).routes())
    exports = Exports(database=database, artifacts=artifacts, clock=core.clock)
    imports = Imports(database=database, writer=writer, runs_service=runs)
    routes.extend(BundleRoutes(exports=exports, imports=imports).routes())
    routes.extend(_login_routes(settings, access))
    routes.extend(ParkedRoutes(Parked(database=database, writer=writer, spool=spool)).routes())
    routes.extend(_sync_routes(database, upstream, services.history).routes())
    routes.extend(_doctor_routes(settings, writer, spool, upstream).routes())
    routes.extend(UiCallRoutes(has_direct_artifacts=direct.is_offered).routes())
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


def routes_of_role(role: ServerRole, routes: list[Endpoint]) -> list[Endpoint]:
    """What a process in this role answers: one that only delivers has no clients, but operators."""
    if role is not ServerRole.REPLAY:
        return routes
    return [route for route in routes if route.path.startswith(_OPERATORS_PATHS)]


def _login_routes(settings: Settings, access: Access) -> list[Endpoint]:
    files = PageFileRoutes().routes()
    if access.sessions is None:
        return files
    login = LoginRoutes(
        authenticator=access.authenticator,
        sessions=access.sessions,
        attempts=Attempts(clock=SystemClock()),
        oidc=access.login,
        public_url=settings.public_url,
        path_prefix=settings.path_prefix,
    )
    return [*files, *login.routes()]


def _sync_routes(database: Database, upstream: Upstream | None, history: DeliveryHistory) -> SyncRoutes:
    studio_url = None if upstream is None else upstream.address.studio_url
    overview = DeliveryOverview(database=database, clock=SystemClock(), studio_url=studio_url)
    return SyncRoutes(overview=overview, history=history)


def _doctor_routes(
    settings: Settings, writer: Writer, spool: Spool, upstream: Upstream | None
) -> DoctorRoutes:
    clock = SystemClock()

    def open_doctor() -> Doctor:
        return Doctor(
            writer=writer,
            clock=clock,
            data_dir=settings.data_dir,
            spool=spool,
            database="SQLite" if settings.is_sqlite else "Postgres",
            workspace_address=None if upstream is None else upstream.address.canonical,
            workspace=None if upstream is None else probes_of(upstream, clock),
        )

    return DoctorRoutes(open_doctor)


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
        *_webhook_routes(database, writer, outbound),
        *WorkspaceRoutes().routes(),
    ]


def _webhook_routes(database: Database, writer: Writer, outbound: Outbound) -> list[Endpoint]:
    """The same calls twice: MLflow's, and this server's own, which know of runs besides."""
    routes: list[Endpoint] = []
    for prefixes, vocabulary in ((MLFLOW_2, MLFLOW_EVENTS), (OWN, ALL_EVENTS)):
        webhooks = Webhooks(
            database=database, writer=writer, clock=SystemClock(), outbound=outbound, vocabulary=vocabulary
        )
        routes += WebhookRoutes(webhooks, prefixes=prefixes).routes()
    return routes


def _readiness(core: Core) -> Callable[[], Awaitable[dict[str, object]]]:
    headroom = Headroom(
        folders=[core.settings.data_dir, core.spool.folder], least_free_bytes=core.settings.min_free_bytes
    )

    async def check() -> dict[str, object]:
        if core.stopping.is_set():
            return {"process": "is stopping"}
        problems: dict[str, object] = {}
        try:
            await core.writer.commit(
                Work(lambda transaction: facts.put(transaction, "probe", str(transaction.now_ms)))
            )
        except Exception as error:
            words = error.message if isinstance(error, MlflowError) else type(error).__name__
            problems["database"] = f"cannot be written: {words}"
        if (lack := headroom.lack()) is not None:
            problems["disk"] = lack
        return problems

    return check


def _rendering(core: Core, operations: Operations) -> Callable[[], Awaitable[bytes]]:
    async def render() -> bytes:
        status = await operations.status()
        gauges: dict[str, float | None] = {
            "uncertain": status.uncertain,
            "overflow": status.overflow,
            "dropped": status.dropped,
            "oldest_pending_age_seconds": status.lag_seconds,
            "pending_bytes": status.pending_bytes,
            "pending_limit_bytes": status.pending_limit_bytes,
            "spool_bytes": status.spool_bytes,
            "spool_limit_bytes": status.spool_limit_bytes,
            "wal_bytes": core.database.wal_bytes,
            "store_bytes": status.disk.store_bytes,
            "disk_free_bytes": status.disk.free_bytes,
            "disk_total_bytes": status.disk.total_bytes,
            "disk_headroom_bytes": status.disk.least_free_bytes,
        }
        # Prometheus' own word for "never": with the figure left out, the last one would stand for ever.
        days = status.disk.days_until_full
        gauges["disk_days_until_full"] = inf if days is None else days
        if status.workspace.reachable is not None:
            gauges["workspace_reachable"] = float(status.workspace.reachable)
        if status.token is not None:
            gauges["token_expiry_seconds"] = status.token.expires_in_seconds
            gauges["token_refresh_failures_total"] = status.token.failures
        workspace = (status.workspace.address or "").rpartition("/")[2]
        labelled: dict[str, dict[tuple[str, ...], float]] = {
            "pending": {(workspace, kind): count for kind, count in status.pending_by_kind.items()},
            "parked": {(reason,): count for reason, count in status.parked_by_reason.items()},
        }
        if status.workspace.last_success is not None:
            labelled["last_success_timestamp_seconds"] = {(workspace,): status.workspace.last_success / 1000}
        return core.telemetry.render(gauges, labelled)

    return render
