"""Everything that talks to the workspace, constructed, and what the operator sees of it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from server.commit.writer import Work
from server.core import Core
from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.domain.verdicts import Verdict
from server.protocol import operations as messages
from server.replay.gate import Gate
from server.replay.pace import Pace, TokenBucket
from server.settings import SettingsError
from server.store import facts, upstream_ids
from server.upstream.artifacts import UpstreamArtifacts, WriteTarget
from server.upstream.blobs import StoredArtifact
from server.upstream.channel import Admission, create_http_client
from server.upstream.connection import Connection
from server.upstream.credentials import TokenSource
from server.upstream.experiments import UpstreamExperiments
from server.upstream.failures import UpstreamFailure
from server.upstream.metrics import UpstreamMetrics
from server.upstream.models import UpstreamModels
from server.upstream.probes import WorkspaceProbes
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

    def __init__(self, upstream: Upstream, gate: Gate, bucket: TokenBucket, clock: Clock) -> None:
        self._upstream = upstream
        self._gate = gate
        self._bucket = bucket
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

    @property
    def last_success_ms(self) -> int | None:
        """When an exchange last went well, since this process started."""
        return self._gate.last_success_ms

    def pace(self) -> messages.PaceStatus:
        """How often it may be called, by what its 429s have taught."""
        rate, most = self._bucket.rate, self._bucket.ceiling
        waits = self._gate.wait_seconds
        return messages.PaceStatus(rate, most, is_throttled=rate < most, waits_seconds=waits)

    def token(self) -> messages.TokenStatus:
        """The token held now; never its text."""
        tokens = self._upstream.tokens
        expires = tokens.expires_at_ms
        left = None if expires is None else (expires - self._clock.now_ms()) / 1000
        return messages.TokenStatus(left, tokens.failures, tokens.last_error)


class UpstreamBytes:
    """Files of our runs in the workspace, and the addresses that clients reach their bytes by."""

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
        experiment, upstream_id = await self._ids_of(run_id)
        async for chunk in self._artifacts.open_read(experiment, upstream_id, upstream_path, offset, length):
            yield chunk

    async def read_address(self, run_id: str, upstream_path: str) -> str:
        """A signed address of a file's bytes.

        Raises:
            UpstreamFailure: the workspace cannot give one; `is_missing` when it has no such file.
        """
        return await self._artifacts.read_address(*await self._ids_of(run_id), upstream_path)

    async def register(self, run_id: str, upstream_path: str) -> WriteTarget:
        """A signed address that takes a file's bytes; the workspace lists the file from now on.

        Raises:
            UpstreamFailure: the workspace cannot give one.
        """
        return await self._artifacts.register(*await self._ids_of(run_id), upstream_path)

    async def commit_blocks(self, run_id: str, upstream_path: str, names: Sequence[str]) -> StoredArtifact:
        """Make a file of blocks that are in place; what storage then holds.

        Raises:
            UpstreamFailure: it cannot be made, or not now.
        """
        return await self._artifacts.commit_blocks(*await self._ids_of(run_id), upstream_path, names)

    async def _ids_of(self, run_id: str) -> tuple[str, str]:
        """The experiment and the run as the workspace knows them."""
        ids = await self._database.read(lambda transaction: upstream_ids.find_run_by_id(transaction, run_id))
        if ids is None or ids.upstream_id is None:
            raise UpstreamFailure(Verdict.PARK, "RUN_NOT_CREATED", "The run is not in the workspace.")
        return ids.experiment.upstream_id or ids.experiment.upstream_name, ids.upstream_id


def probes_of(upstream: Upstream, clock: Clock) -> WorkspaceProbes:
    """The checks that `doctor` makes of the workspace."""
    return WorkspaceProbes(
        connection=upstream.connection,
        tokens=upstream.tokens,
        experiments=upstream.experiments,
        runs=upstream.runs,
        metrics=upstream.metrics,
        artifacts=upstream.artifacts,
        clock=clock,
    )


def make_bucket(core: Core) -> TokenBucket:
    """How often the workspace may be called."""
    return TokenBucket(ceiling=core.settings.workspace_calls_per_second, clock=core.clock)


def make_pace(core: Core, bucket: TokenBucket) -> Pace:
    """Who lets calls to the workspace through, as often as the bucket allows."""
    return Pace(bucket, clock=core.clock, observe=core.telemetry.observe_pace)


async def build_upstream(core: Core, admission: Admission) -> Upstream | None:
    """Connect to the configured workspace; None where there is none.

    Raises:
        SettingsError: the workspace cannot be understood, or is not the one delivered to already.
    """
    settings, lifecycle = core.settings, core.lifecycle
    if settings.workspace is None:
        return None
    try:
        wanted = parse_workspace(settings.workspace)
    except ValueError as error:
        raise SettingsError(f"MLPROXY_WORKSPACE: {error}") from error
    http = create_http_client(core.tracing)
    lifecycle.on_stop(http.aclose)
    address = wanted
    if isinstance(address, ArmWorkspaceId):
        address = await _resolve_arm(core, address, http)
    tokens = TokenSource(settings.credential.value, scope=address.token_scope)
    lifecycle.on_stop(tokens.aclose)
    connection = Connection(
        address, tokens, http, observe=core.telemetry.observe_upstream, admission=admission
    )
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
    lifecycle.on_stop(upstream.artifacts.aclose)
    await core.writer.commit(
        Work(
            lambda transaction: _bind_workspace(transaction, address.canonical),
            alone=True,
            raises=(SettingsError,),
        )
    )
    return upstream


async def _resolve_arm(core: Core, arm_id: ArmWorkspaceId, http: Any) -> WorkspaceAddress:
    """The workspace's address; once found it is remembered, so that a later start needs no Azure."""
    settings = core.settings
    name = f"arm:{arm_id.path}"
    known = await core.database.read(lambda transaction: facts.find(transaction, name))
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
    await core.writer.commit(Work(lambda transaction: facts.put(transaction, name, found), alone=True))
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
