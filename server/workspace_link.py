"""Everything that talks to the workspace, constructed, and what the operator sees of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.clock import SystemClock
from server.domain.verdicts import Verdict
from server.protocol import operations as messages
from server.replay.gate import Gate
from server.settings import Settings, SettingsError
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


class WorkspaceView:
    """What the operator sees of the workspace."""

    def __init__(self, upstream: Upstream, gate: Gate, clock: SystemClock) -> None:
        self._upstream = upstream
        self._gate = gate
        self._clock = clock

    @property
    def address(self) -> str:
        """The workspace's canonical address."""
        return self._upstream.address.canonical

    def studio_url(self, upstream_run_id: str) -> str:
        """Where a run is shown in Azure ML studio."""
        return self._upstream.address.studio_url(upstream_run_id)

    @property
    def is_reachable(self) -> bool | None:
        """Whether the last exchange went well; None before the first."""
        if not self._gate.is_healthy:
            return False
        return None if self._gate.last_success_ms is None else True

    @property
    def last_failure(self) -> str | None:
        """What went wrong last, while it is wrong."""
        return self._gate.last_failure

    def token(self) -> messages.TokenStatus:
        """The token held now; never its text."""
        tokens = self._upstream.tokens
        expires = tokens.expires_at_ms
        left = None if expires is None else (expires - self._clock.now_ms()) / 1000
        return messages.TokenStatus(left, tokens.failures, tokens.last_error)


class UpstreamBytes:
    """Reads files of our runs from the workspace."""

    def __init__(self, database: Database, artifacts: UpstreamArtifacts) -> None:
        self._database = database
        self._artifacts = artifacts

    async def open_read(
        self, run_id: str, upstream_path: str, offset: int, length: int | None
    ) -> AsyncIterator[bytes]:
        """Bytes of a file under a run; `run_id` is ours.

        Raises:
            UpstreamFailure: the workspace cannot give them.
        """
        ids = await self._database.read(lambda transaction: upstream_ids.find_run_by_id(transaction, run_id))
        if ids is None or ids.upstream_id is None:
            raise UpstreamFailure(Verdict.PARK, "RUN_NOT_CREATED", "The run is not in the workspace.")
        experiment = ids.experiment.upstream_id or ids.experiment.upstream_name
        async for chunk in self._artifacts.open_read(
            experiment, ids.upstream_id, upstream_path, offset, length
        ):
            yield chunk


async def build_upstream(
    settings: Settings,
    database: Database,
    writer: Writer,
    telemetry: Telemetry,
    stops: list[Callable[[], Awaitable[None]]],
) -> Upstream | None:
    """Connect to the configured workspace; None where there is none. What must be closed joins `stops`.

    Raises:
        SettingsError: the workspace cannot be understood, or is not the one delivered to already.
    """
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
