"""Delivery, constructed: one way for each kind of lane, and the supervisor over them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from server.commit.writer import Work
from server.core import INSTALLATION, Core
from server.journal import leases
from server.journal.lanes import LaneKind
from server.replay.deliveries.artifacts import ArtifactDelivery
from server.replay.deliveries.capacity import RunCapacity
from server.replay.deliveries.delivery import Delivery, SettleTimes
from server.replay.deliveries.experiments import ExperimentDelivery
from server.replay.deliveries.models import ModelDelivery
from server.replay.deliveries.overflow import OverflowDelivery
from server.replay.deliveries.purges import Purges
from server.replay.deliveries.runs import RunDelivery
from server.replay.gate import Gate
from server.replay.restored.artifacts import RestoredArtifacts
from server.replay.restored.delivery import RestoredParts
from server.replay.restored.experiments import RestoredExperiments
from server.replay.restored.histories import RestoredHistories
from server.replay.restored.models import RestoredModels
from server.replay.restored.runs import RestoredRuns
from server.replay.supervisor import Supervisor
from server.replay.turns import LaneWriter
from server.replay.worker import ReplaySettings
from server.services.doctor import read_capabilities
from server.store import facts
from server.workspace_link import Upstream


async def build_supervisor(core: Core, gate: Gate, upstream: Upstream) -> Supervisor:
    """What delivers everything of this process."""
    if not core.database.is_postgres:
        # The folder's lock is ours: whoever held a lease on a lane is gone.
        await core.writer.commit(Work(leases.release_all))
    installation = await core.database.read(lambda transaction: facts.find(transaction, INSTALLATION))
    deliveries = _traced(core, _build_deliveries(core, upstream, installation or ""))
    return Supervisor(
        database=core.database,
        writer=core.writer,
        clock=core.clock,
        gate=gate,
        deliveries=deliveries,
        settings=ReplaySettings(lease=timedelta(seconds=core.settings.lease_seconds)),
        owner=core.replica.owner,
        watch=core.replica.watch,
        figures=core.telemetry,
    )


def _traced(core: Core, deliveries: dict[LaneKind, Delivery]) -> dict[LaneKind, Delivery]:
    """The same; in a process that is traced, with a span for each batch."""
    if core.tracing is None:
        return deliveries
    from server.replay.traced import TracedDelivery  # needs OpenTelemetry, which few install

    return {
        kind: TracedDelivery(delivery, core.tracing, core.database) for kind, delivery in deliveries.items()
    }


def _settle_times(core: Core, capabilities: Mapping[str, Any]) -> SettleTimes:
    """As set, and never shorter than thrice what `doctor` saw this workspace take."""
    seen = {
        name: 3 * float(capabilities.get(name) or 0) for name in ("point_lag_seconds", "search_lag_seconds")
    }
    return SettleTimes(
        content=timedelta(seconds=max(core.settings.settle_seconds, seen["point_lag_seconds"])),
        marker=timedelta(seconds=max(core.settings.marker_settle_seconds, seen["search_lag_seconds"])),
    )


def _build_deliveries(core: Core, upstream: Upstream, installation: str) -> dict[LaneKind, Delivery]:
    capabilities = read_capabilities(core.settings.data_dir, upstream.address.canonical)
    settle = _settle_times(core, capabilities)
    fenced = LaneWriter(core.writer)
    parts = RestoredParts(core.database, fenced, core.clock, settle)
    histories = RestoredHistories(upstream.metrics, core.database)
    return {
        LaneKind.EXPERIMENT: RestoredExperiments(
            ExperimentDelivery(
                database=core.database,
                writer=fenced,
                experiments=upstream.experiments,
                purges=Purges(runs=upstream.runs, artifacts=upstream.artifacts),
            ),
            parts,
            experiments=upstream.experiments,
        ),
        LaneKind.RUN_DATA: RestoredRuns(
            RunDelivery(
                database=core.database,
                writer=fenced,
                runs=upstream.runs,
                histories=histories,
                artifacts=upstream.artifacts,
                settle=settle,
                capacity=RunCapacity(database=core.database, clock=core.clock, runs=upstream.runs),
                takes_own_ids=capabilities.get("own_run_ids") is not False,
            ),
            parts,
            runs=upstream.runs,
            histories=histories,
        ),
        LaneKind.RUN_ARTIFACTS: RestoredArtifacts(
            ArtifactDelivery(
                database=core.database, writer=fenced, artifacts_upstream=upstream.artifacts, spool=core.spool
            ),
            parts,
            artifacts=upstream.artifacts,
        ),
        LaneKind.RUN_OVERFLOW: OverflowDelivery(
            database=core.database, writer=fenced, runs=upstream.runs, artifacts=upstream.artifacts
        ),
        LaneKind.REGISTERED_MODEL: RestoredModels(
            ModelDelivery(
                database=core.database,
                writer=fenced,
                models=upstream.models,
                settle=settle,
                installation=installation,
            ),
            parts,
            models=upstream.models,
        ),
    }
