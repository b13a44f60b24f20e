"""Every route of the server, with the services behind it."""

import shutil
from collections.abc import Awaitable, Callable

from server.api.artifacts import ArtifactRoutes
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
from server.database.engine import Database
from server.domain.clock import SystemClock
from server.services.artifacts import Artifacts
from server.services.assessments import Assessments
from server.services.evaluation import EvaluationDatasets
from server.services.experiments import Experiments
from server.services.keys import KeyAuthenticator, Keys
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
from server.settings import Settings
from server.spool.spool import Spool
from server.store import facts
from server.telemetry.metrics import Telemetry
from server.webhooks.outbound import Outbound
from server.workspace_link import Upstream, UpstreamBytes

_LEAST_FREE_BYTES = 256 * 1024 * 1024


def build_routes(
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
    """The whole route table."""
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
