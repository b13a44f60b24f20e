"""The upstream package against a real local workspace, over real sockets."""

import asyncio
import hashlib
import json
import math
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from server.domain.entities import RunStatus
from server.domain.verdicts import Verdict
from server.upstream import reachability
from server.upstream.artifacts import UpstreamArtifacts
from server.upstream.blobs import BLOCK_BYTES, StoredArtifact
from server.upstream.channel import create_http_client
from server.upstream.connection import Connection
from server.upstream.credentials import TokenSource
from server.upstream.experiments import UpstreamExperiments
from server.upstream.failures import UpstreamFailure
from server.upstream.metrics import UpstreamMetrics
from server.upstream.models import UpstreamModels
from server.upstream.runs import MARKER_TAG, NewRun, UpstreamMetric, UpstreamRuns
from server.upstream.uris import parse_run_artifact, run_artifact_source
from server.upstream.workspace import ArmWorkspaceId, WorkspaceAddress, parse_workspace, resolve
from tests.support.attempts import quickest_of
from tests.support.emulator import EmulatorProcess

pytestmark = pytest.mark.asyncio

ODD_NAMES = [
    "with space",
    "prøve-实验-🎯",
    "a#b",
    "100%",
    "50%25",
    "a+b",
    "a&b=c;d",
    "q?x=1",
    'it\'s "quoted"',
]
BIG_BYTES = 80 * 1024 * 1024
DEFAULT_SAS_SECONDS = 8 * 3600.0


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """One emulator for the module."""
    with EmulatorProcess.start(tmp_path_factory.mktemp("workspace"), artifact_page_size=3) as emulator:
        yield emulator


@pytest.fixture
def emulator(workspace: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorProcess]:
    """The shared workspace, well-behaved again afterwards."""
    for name, value in workspace.environment().items():
        monkeypatch.setenv(name, value)
    workspace.clear_calls()
    yield workspace
    workspace.clear_faults()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """The client that the server uses."""
    async with create_http_client() as client:
        yield client


@pytest.fixture
def tokens(emulator: EmulatorProcess) -> TokenSource:
    """Real tokens of the emulator, through azure-identity."""
    return TokenSource("managed-identity")


@pytest.fixture
def connection(emulator: EmulatorProcess, http: httpx.AsyncClient, tokens: TokenSource) -> Connection:
    """A connection as the server makes it."""
    return Connection(address_of(emulator.tracking_uri), tokens, http)


@pytest.fixture
def experiments(connection: Connection) -> UpstreamExperiments:
    """Calls about experiments."""
    return UpstreamExperiments(connection)


@pytest.fixture
def runs(connection: Connection) -> UpstreamRuns:
    """Calls about runs."""
    return UpstreamRuns(connection)


@pytest.fixture
def models(connection: Connection) -> UpstreamModels:
    """Calls about models."""
    return UpstreamModels(connection)


@pytest_asyncio.fixture
async def artifacts(connection: Connection) -> AsyncIterator[UpstreamArtifacts]:
    """Calls about artifacts."""
    artifacts = UpstreamArtifacts(connection)
    yield artifacts
    await artifacts.aclose()


@pytest_asyncio.fixture
async def run(experiments: UpstreamExperiments, runs: UpstreamRuns) -> NewRun:
    """A run in an experiment of its own."""
    run = await new_run(experiments)
    await runs.create_or_modify(run)
    return run


@pytest.fixture(scope="module")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 MiB of noise."""
    file = tmp_path_factory.mktemp("big") / "big.bin"
    file.write_bytes(os.urandom(BIG_BYTES))
    return file


def address_of(tracking_uri: str) -> WorkspaceAddress:
    """The address that a tracking URI means."""
    address = parse_workspace(tracking_uri)
    assert isinstance(address, WorkspaceAddress)
    return address


async def new_run(experiments: UpstreamExperiments, name: str | None = None) -> NewRun:
    """A run to be made, in an experiment that exists."""
    name = name or f"experiment-{uuid.uuid4()}"
    return NewRun(
        run_id=str(uuid.uuid4()),
        experiment_name=name,
        experiment_id=await experiments.create(name),
        name="a run",
        start_time_ms=1_700_000_000_123,
        tags={"team": "blue"},
        user_id="me",
    )


def content_of(file: Path) -> bytes:
    """All of a file."""
    return file.read_bytes()


def md5(content: bytes) -> bytes:
    """The MD5 of `content`."""
    return hashlib.md5(content, usedforsecurity=False).digest()


async def read_all(chunks: AsyncIterator[bytes]) -> bytes:
    """All chunks as one."""
    return b"".join([chunk async for chunk in chunks])


def puts(emulator: EmulatorProcess) -> int:
    """How many uploads, blocks and commits the emulator has seen."""
    return sum(count for call, count in emulator.calls_summary().items() if call.startswith("PUT "))


class TestTokens:
    async def test_a_revoked_token_is_renewed_once_for_all_callers(
        self, emulator: EmulatorProcess, connection: Connection, runs: UpstreamRuns, run: NewRun
    ) -> None:
        """Fifty calls that meet a revoked token all succeed, and the identity is asked once more."""
        emulator.revoke_tokens()
        emulator.clear_calls()
        found = await asyncio.gather(*(runs.find(run.run_id) for _ in range(50)))
        assert {one.run_id for one in found if one} == {run.run_id}
        assert emulator.calls_summary()["GET /msi/token"] == 1

    async def test_an_expired_token_is_not_sent(self, emulator: EmulatorProcess, runs: UpstreamRuns) -> None:
        """A token at its end is replaced before the call, so nothing is refused."""

        async def refusals() -> float:
            # One that ends between being checked here and being checked there is refused.
            emulator.clear_calls()
            await runs.find("nothing")
            await asyncio.sleep(1.1)
            await runs.find("nothing")
            assert emulator.calls_summary()["GET /msi/token"] >= 2
            return sum(call["status"] == 401 for call in emulator.calls())

        emulator.settings(token_seconds=1)
        try:
            assert await quickest_of(refusals, under=1) == 0
        finally:
            emulator.settings(token_seconds=3600)

    async def test_an_identity_that_fails_means_wait(
        self, emulator: EmulatorProcess, experiments: UpstreamExperiments
    ) -> None:
        """Without a token the verdict is WAIT, with advice."""
        emulator.add_fault(match="/msi/token", effect="status", status=400, body={"error": "invalid_request"})
        with pytest.raises(UpstreamFailure, match="managed identity gave no token") as caught:
            await experiments.find_by_name("x")
        assert caught.value.verdict is Verdict.WAIT

    async def test_the_default_chain_finds_the_managed_identity(
        self, emulator: EmulatorProcess, http: httpx.AsyncClient
    ) -> None:
        """The default credential works where a managed identity is."""
        connection = Connection(address_of(emulator.tracking_uri), TokenSource("default"), http)
        assert (await reachability.check(connection)).token_accepted

    @pytest.mark.parametrize("kind", ["service-principal", "workload-identity", "default"])
    async def test_an_application_gets_its_token_from_the_authority(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """A secret or a federated token is exchanged at `AZURE_AUTHORITY_HOST`, again at each renewal."""
        with EmulatorProcess.start(tmp_path / "tls", tls=True) as emulator:
            (tmp_path / "federated").write_text("a.b.c")
            monkeypatch.setenv("SSL_CERT_FILE", str(emulator.ca_file))
            monkeypatch.setenv("AZURE_AUTHORITY_HOST", emulator.https_url)
            monkeypatch.setenv("AZURE_TENANT_ID", "adfs")
            monkeypatch.setenv("AZURE_CLIENT_ID", "client")
            if kind == "workload-identity":
                monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "federated"))
            else:
                monkeypatch.setenv("AZURE_CLIENT_SECRET", "secret")
            async with create_http_client() as http:
                tokens = TokenSource(kind)
                first = await tokens.token()
                assert await tokens.renew(first) != first
                seen = await reachability.check(Connection(address_of(emulator.tracking_uri), tokens, http))
        assert seen.token_accepted

    async def test_the_azure_cli_gives_a_token(
        self,
        emulator: EmulatorProcess,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        http: httpx.AsyncClient,
    ) -> None:
        """What `az account get-access-token` prints is used, and never shown."""
        token = emulator.token()
        answer = json.dumps({"accessToken": token, "expires_on": 4_000_000_000, "tokenType": "Bearer"})
        program = tmp_path / "az"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        tokens = TokenSource("azure-cli")
        assert await tokens.token() == token
        with pytest.raises(UpstreamFailure) as caught:
            await tokens.renew(token)
        assert token not in str(caught.value) + repr(tokens._held)


class TestAddress:
    async def test_an_arm_id_leads_to_the_workspace(
        self, emulator: EmulatorProcess, http: httpx.AsyncClient, tokens: TokenSource
    ) -> None:
        """Azure Resource Manager is asked for the address, and the address works."""
        arm = address_of(emulator.tracking_uri).arm_id
        address = await resolve(arm, tokens, http, management_url=emulator.http_url)
        assert address.arm_id == arm
        assert isinstance(parse_workspace(arm.path), ArmWorkspaceId)

    async def test_the_workspace_is_reachable_until_it_stops(
        self, emulator: EmulatorProcess, connection: Connection, experiments: UpstreamExperiments
    ) -> None:
        """A stopped workspace is unreachable, and a write to it was certainly not sent."""
        assert (await reachability.check(connection)).reachable
        emulator.kill()
        try:
            with pytest.raises(UpstreamFailure) as caught:
                await experiments.create("x")
            assert not (await reachability.check(connection)).reachable
        finally:
            emulator.restart()
        assert caught.value.verdict in (Verdict.RETRY, Verdict.UNCERTAIN)
        assert (await reachability.check(connection)).reachable

    async def test_everything_works_over_tls_with_a_private_authority(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`SSL_CERT_FILE` is trusted for the workspace, for blob storage and for the identity."""
        with EmulatorProcess.start(tmp_path / "tls", tls=True) as emulator:
            monkeypatch.setenv("SSL_CERT_FILE", str(emulator.ca_file))
            for name, value in emulator.environment().items():
                monkeypatch.setenv(name, value)
            async with create_http_client() as http:
                address = address_of(f"https{emulator.tls_tracking_uri.removeprefix('azureml')}")
                connection = Connection(address, TokenSource("managed-identity"), http)
                run = await new_run(UpstreamExperiments(connection))
                await UpstreamRuns(connection).create_or_modify(run)
                artifacts = UpstreamArtifacts(connection)
                await artifacts.upload(run.experiment_id, run.run_id, "a", b"tls", 3, md5(b"tls"))
                held = await read_all(artifacts.open_read(run.experiment_id, run.run_id, "a"))
                await artifacts.aclose()
        assert held == b"tls"


class TestExperiments:
    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_creating_twice_gives_one_experiment(
        self, experiments: UpstreamExperiments, name: str
    ) -> None:
        """A repeated create answers with the id of the first, whatever the name."""
        first = await experiments.create(name)
        assert await experiments.create(name) == first
        found = await experiments.find_by_name(name)
        assert found is not None
        assert (found.experiment_id, found.name) == (first, name)

    async def test_a_name_that_nobody_has_is_not_found(self, experiments: UpstreamExperiments) -> None:
        """An unknown name is `None`, not a failure."""
        assert await experiments.find_by_name(str(uuid.uuid4())) is None

    async def test_the_name_of_a_deleted_experiment_parks(self, experiments: UpstreamExperiments) -> None:
        """A name that only a deleted experiment has is the operator's to decide."""
        name = str(uuid.uuid4())
        experiment_id = await experiments.create(name)
        await experiments.delete(experiment_id)
        with pytest.raises(UpstreamFailure) as caught:
            await experiments.create(name)
        assert caught.value.verdict is Verdict.PARK
        await experiments.restore(experiment_id)
        assert await experiments.create(name) == experiment_id

    async def test_tags_are_set(self, emulator: EmulatorProcess, experiments: UpstreamExperiments) -> None:
        """A tag set twice has the last value."""
        experiment_id = await experiments.create(str(uuid.uuid4()))
        await experiments.set_tag(experiment_id, "k", "1")
        await experiments.set_tag(experiment_id, "k", "2")
        held = next(one for one in emulator.experiments() if one["experiment_id"] == experiment_id)
        assert held["tags"]["k"] == "2"

    async def test_all_are_listed_page_by_page(self, experiments: UpstreamExperiments) -> None:
        """Deleted experiments are in the list, and pages do not hide any."""
        made = {await experiments.create(str(uuid.uuid4())) for _ in range(5)}
        await experiments.delete(next(iter(made)))
        listed = [one.experiment_id async for one in experiments.list_all(page_size=2)]
        assert made <= set(listed)
        assert len(listed) == len(set(listed))

    async def test_a_create_whose_answer_is_lost_is_uncertain_and_repeatable(
        self, emulator: EmulatorProcess, experiments: UpstreamExperiments
    ) -> None:
        """After a lost answer the create can be sent again and finds what it made."""
        name = str(uuid.uuid4())
        emulator.add_fault(match="experiments/create", effect="drop_answer", when="after", times=1)
        with pytest.raises(UpstreamFailure) as caught:
            await experiments.create(name)
        assert caught.value.verdict is Verdict.UNCERTAIN
        found = await experiments.find_by_name(name)
        assert found is not None
        assert await experiments.create(name) == found.experiment_id


class TestRuns:
    @pytest.mark.parametrize("experiment_name", ODD_NAMES)
    async def test_a_run_is_made_under_our_id_once(
        self,
        emulator: EmulatorProcess,
        experiments: UpstreamExperiments,
        runs: UpstreamRuns,
        experiment_name: str,
    ) -> None:
        """Created twice, the run is there once, running, with name, start, tags and user."""
        run = await new_run(experiments, experiment_name)
        await runs.create_or_modify(run)
        await runs.create_or_modify(run)
        found = await runs.find(run.run_id)
        assert found is not None
        assert (found.run_id, found.experiment_id, found.name) == (run.run_id, run.experiment_id, "a run")
        assert (found.status, found.start_time_ms, found.end_time_ms) == (
            RunStatus.RUNNING,
            run.start_time_ms,
            None,
        )
        assert found.tags["team"] == "blue"
        assert found.tags["mlflow.user"] == "me"
        assert len([one for one in emulator.runs() if one["run_id"] == run.run_id]) == 1

    async def test_a_child_knows_its_parent(
        self, experiments: UpstreamExperiments, runs: UpstreamRuns, run: NewRun
    ) -> None:
        """The parent given to Run History shows as MLflow's tag."""
        child = await new_run(experiments, run.experiment_name)
        child = NewRun(child.run_id, run.experiment_name, run.experiment_id, "child", 1, run.run_id)
        await runs.create_or_modify(child)
        found = await runs.find(child.run_id)
        assert found is not None
        assert found.tags["mlflow.parentRunId"] == run.run_id

    @pytest.mark.parametrize("status", [400, 404, 405])
    async def test_a_workspace_without_run_history_refuses_definitely(
        self, emulator: EmulatorProcess, experiments: UpstreamExperiments, runs: UpstreamRuns, status: int
    ) -> None:
        """A refused PATCH is a definite refusal, after which `runs/create` with a marker works."""
        run = await new_run(experiments)
        emulator.add_fault(match="^PATCH /history", effect="status", status=status)
        with pytest.raises(UpstreamFailure) as caught:
            await runs.create_or_modify(run)
        assert caught.value.is_definite_refusal
        assert caught.value.status == status
        marker = str(uuid.uuid4())
        upstream_run_id = await runs.create_with_marker(run, marker)
        assert upstream_run_id != run.run_id
        assert await runs.find_by_marker(run.experiment_id, marker) == [upstream_run_id]
        assert await runs.find_by_marker(run.experiment_id, str(uuid.uuid4())) == []
        found = await runs.find(upstream_run_id)
        assert found is not None
        assert (found.name, found.start_time_ms, found.tags[MARKER_TAG]) == (
            "a run",
            run.start_time_ms,
            marker,
        )

    async def test_two_runs_with_one_marker_are_both_found_oldest_first(
        self, experiments: UpstreamExperiments, runs: UpstreamRuns
    ) -> None:
        """A marker sent twice shows two runs, deleted ones included."""
        run = await new_run(experiments)
        marker = str(uuid.uuid4())
        made = [await runs.create_with_marker(run, marker) for _ in range(2)]
        await runs.delete(made[0])
        assert sorted(await runs.find_by_marker(run.experiment_id, marker)) == sorted(made)

    async def test_a_created_run_whose_answer_is_lost_is_found(
        self, emulator: EmulatorProcess, experiments: UpstreamExperiments, runs: UpstreamRuns
    ) -> None:
        """A lost answer is UNCERTAIN, and reading back settles it."""
        run = await new_run(experiments)
        emulator.add_fault(match="^PATCH /history", effect="drop_answer", when="after", times=1)
        with pytest.raises(UpstreamFailure) as caught:
            await runs.create_or_modify(run)
        assert caught.value.verdict is Verdict.UNCERTAIN
        assert await runs.find(run.run_id) is not None

    async def test_a_run_that_could_not_be_started_is_not_a_refused_run(
        self, emulator: EmulatorProcess, experiments: UpstreamExperiments, runs: UpstreamRuns
    ) -> None:
        """Once the run is made, no refusal of its start lets it fall back to another id."""
        run = await new_run(experiments)
        emulator.add_fault(match="/events$", effect="status", status=404, times=1)
        with pytest.raises(UpstreamFailure) as caught:
            await runs.create_or_modify(run)
        assert caught.value.verdict is Verdict.UNCERTAIN
        assert not caught.value.is_definite_refusal
        assert await runs.find(run.run_id) is not None

    async def test_an_unknown_run_is_not_found(self, runs: UpstreamRuns) -> None:
        """A run that the workspace does not know is `None`."""
        assert await runs.find(str(uuid.uuid4())) is None

    @pytest.mark.parametrize("run_id", ["", "..", "a/b", "a?b", "a%2Fb", "x" * 300])
    async def test_what_is_no_run_id_is_never_sent(
        self, emulator: EmulatorProcess, runs: UpstreamRuns, run_id: str
    ) -> None:
        """An id that could change the shape of an address is refused here."""
        with pytest.raises(UpstreamFailure):
            await runs.find(run_id)
        assert emulator.calls_summary() == {}

    async def test_a_batch_arrives_whole(self, runs: UpstreamRuns, run: NewRun) -> None:
        """Metrics with NaN and infinities, params and tags with any text are what was sent."""
        odd = dict(zip(map(str, range(len(ODD_NAMES))), ODD_NAMES, strict=True))
        points = [
            UpstreamMetric("m", value, 10 + step, step)
            for step, value in enumerate([1.5, math.nan, math.inf, -math.inf, 0.1 + 0.2, 1e308])
        ]
        await runs.log_batch(run.run_id, points, odd, odd)
        found = await runs.find(run.run_id)
        assert found is not None
        assert found.params == odd
        assert odd.items() <= found.tags.items()
        held = [point async for point in UpstreamMetrics(runs._connection).history(run.run_id, "m", 2)]
        assert [repr(point) for point in sorted(held, key=lambda point: point.step)] == [
            repr(point) for point in points
        ]
        assert found.metrics["m"].step == 5

    async def test_a_long_history_is_read_page_by_page(self, runs: UpstreamRuns, run: NewRun) -> None:
        """A history longer than a page comes whole, in pages that the workspace accepts."""
        for start in range(0, 2_000, 200):
            steps = range(start, start + 200)
            await runs.log_batch(run.run_id, [UpstreamMetric("m", float(step), step, step) for step in steps])
        held = [
            point.step async for point in UpstreamMetrics(runs._connection).history(run.run_id, "m", 5_000)
        ]
        assert sorted(held) == list(range(2_000))

    @pytest.mark.parametrize(
        ("fault", "verdict", "has_arrived"),
        [
            ({"effect": "drop_answer", "when": "after"}, Verdict.UNCERTAIN, True),
            ({"effect": "drop_answer", "when": "before"}, Verdict.UNCERTAIN, False),
            ({"effect": "status", "status": 500, "when": "after"}, Verdict.UNCERTAIN, True),
            ({"effect": "status", "status": 503}, Verdict.UNCERTAIN, False),
            ({"effect": "html", "status": 200, "when": "after"}, Verdict.UNCERTAIN, True),
            ({"effect": "html"}, Verdict.UNCERTAIN, False),
            ({"effect": "cut_body"}, Verdict.UNCERTAIN, True),
            ({"effect": "status", "status": 429, "headers": {"Retry-After": "7"}}, Verdict.RETRY, False),
            ({"effect": "status", "status": 403}, Verdict.WAIT, False),
            ({"effect": "status", "status": 413}, Verdict.PARK, False),
        ],
    )
    async def test_each_way_of_failing_has_its_verdict(
        self,
        emulator: EmulatorProcess,
        runs: UpstreamRuns,
        run: NewRun,
        fault: dict[str, object],
        verdict: Verdict,
        has_arrived: bool,
    ) -> None:
        """What an attempt asks of us depends on whether it may have arrived."""
        emulator.add_fault(match="runs/log-batch", times=1, **fault)
        with pytest.raises(UpstreamFailure) as caught:
            await runs.log_batch(run.run_id, [UpstreamMetric("m", 1.0, 1, 1)])
        assert caught.value.verdict is verdict
        assert caught.value.retry_after == (timedelta(seconds=7) if caught.value.status == 429 else None)
        found = await runs.find(run.run_id)
        assert found is not None
        assert ("m" in found.metrics) is has_arrived

    async def test_the_workspaces_refusal_parks_in_its_own_words(
        self, runs: UpstreamRuns, run: NewRun
    ) -> None:
        """A limit of the workspace is a definite refusal that quotes it."""
        points = [UpstreamMetric("m", 0.0, step, step) for step in range(251)]
        with pytest.raises(UpstreamFailure, match="Limit=250") as caught:
            await runs.log_batch(run.run_id, points)
        assert caught.value.is_definite_refusal

    async def test_a_param_keeps_its_first_value(self, runs: UpstreamRuns, run: NewRun) -> None:
        """The same value again is fine, another one is refused for good."""
        await runs.log_batch(run.run_id, params={"lr": "0.1"})
        await runs.log_batch(run.run_id, params={"lr": "0.1"})
        with pytest.raises(UpstreamFailure) as caught:
            await runs.log_batch(run.run_id, params={"lr": "0.2"})
        assert caught.value.verdict is Verdict.PARK

    async def test_a_tag_is_taken_off(self, runs: UpstreamRuns, run: NewRun) -> None:
        """A deleted tag is gone, and deleting it again is fine."""
        await runs.delete_tag(run.run_id, "team")
        await runs.delete_tag(run.run_id, "team")
        found = await runs.find(run.run_id)
        assert found is not None
        assert "team" not in found.tags

    async def test_a_run_is_ended_and_renamed(self, runs: UpstreamRuns, run: NewRun) -> None:
        """Status, end and name are what was last sent."""
        await runs.update(run.run_id, RunStatus.FINISHED, 1_700_000_009_000)
        await runs.update(run.run_id, name="another")
        found = await runs.find(run.run_id)
        assert found is not None
        assert (found.status, found.end_time_ms, found.name) == (
            RunStatus.FINISHED,
            1_700_000_009_000,
            "another",
        )

    async def test_a_run_is_deleted_and_restored(self, runs: UpstreamRuns, run: NewRun) -> None:
        """A deleted run is still found, and restored it is active again."""
        await runs.delete(run.run_id)
        found = await runs.find(run.run_id)
        assert found is not None
        assert found.lifecycle_stage == "deleted"
        await runs.restore(run.run_id)
        found = await runs.find(run.run_id)
        assert found is not None
        assert found.lifecycle_stage == "active"


class TestModels:
    async def test_a_model_made_twice_is_one(self, emulator: EmulatorProcess, models: UpstreamModels) -> None:
        """A repeated create changes nothing."""
        name = f"model-{uuid.uuid4()}"
        await models.create_model(name, "first", {"a": "1"})
        await models.create_model(name, "second", {"a": "2"})
        await models.update_model(name, "third")
        await models.set_model_tag(name, "b", "2")
        await models.delete_model_tag(name, "a")
        held = [one for one in emulator.registered_models() if one["name"] == name]
        assert len(held) == 1
        assert held[0]["description"] == "third"
        assert held[0]["tags"] == [{"key": "b", "value": "2"}]

    async def test_a_version_is_found_by_its_marker(self, models: UpstreamModels, run: NewRun) -> None:
        """Versions carry a marker tag by which a lost answer is settled."""
        name = f"model-{uuid.uuid4()}"
        await models.create_model(name)
        source = run_artifact_source(run.run_id, "model")
        made = [
            await models.create_version(name, source, run.run_id, "text", {"mlproxy.uid": uid})
            for uid in ("one", "two", "two")
        ]
        assert await models.find_versions_by_tag(name, "mlproxy.uid", "two") == made[1:]
        assert await models.find_versions_by_tag(name, "mlproxy.uid", "three") == []

    async def test_a_version_is_changed_and_deleted(
        self, emulator: EmulatorProcess, models: UpstreamModels, run: NewRun
    ) -> None:
        """Stage, description and tags are what was last sent; deleting twice is fine."""
        name = f"model-{uuid.uuid4()}"
        await models.create_model(name)
        version = await models.create_version(name, run_artifact_source(run.run_id, "model"), run.run_id)
        await models.transition_stage(name, version, "Staging", archive_existing=False)
        await models.update_version(name, version, "better")
        await models.set_version_tag(name, version, "k", "v")
        held = next(one for one in emulator.registered_models() if one["name"] == name)["versions"][0]
        assert (held["current_stage"], held["description"], held["tags"]) == (
            "Staging",
            "better",
            [{"key": "k", "value": "v"}],
        )
        await models.delete_version_tag(name, version, "k")
        await models.delete_version(name, version)
        await models.delete_version(name, version)
        assert await models.find_versions_by_tag(name, "k", "v") == []


class TestArtifacts:
    @pytest.mark.parametrize("path", [*ODD_NAMES, "deep/er/with space/100%/a#b+c.txt", "model/MLmodel"])
    async def test_an_artifact_comes_back_as_it_was(
        self, artifacts: UpstreamArtifacts, runs: UpstreamRuns, run: NewRun, path: str
    ) -> None:
        """Whatever its path, an artifact is listed, described and read back byte for byte."""
        content = f"content of {path}".encode() * 3
        place = (run.experiment_id, run.run_id, path)
        stored = await artifacts.upload(*place, content, len(content), md5(content))
        assert stored == StoredArtifact(len(content), md5(content))
        assert await artifacts.info(*place) == stored
        assert await artifacts.list_paths(run.experiment_id, run.run_id) == [path]
        assert await read_all(artifacts.open_read(*place)) == content
        assert await read_all(artifacts.open_read(*place, 5, 7)) == content[5:12]
        assert await read_all(artifacts.open_read(*place, 5)) == content[5:]
        assert await read_all(artifacts.open_read(*place, len(content) + 5)) == b""
        found = await runs.find(run.run_id)
        assert found is not None
        assert parse_run_artifact(found.artifact_uri) == (run.run_id, "")

    async def test_an_empty_file_is_an_artifact(
        self, artifacts: UpstreamArtifacts, run: NewRun, tmp_path: Path
    ) -> None:
        """Nothing is something: size 0, readable, listed."""
        (tmp_path / "empty").touch()
        place = (run.experiment_id, run.run_id, "empty")
        await artifacts.upload(*place, tmp_path / "empty", 0, md5(b""))
        assert await artifacts.info(*place) == StoredArtifact(0, md5(b""))
        assert await read_all(artifacts.open_read(*place)) == b""
        assert await read_all(artifacts.open_read(*place, 0, 10)) == b""

    async def test_the_same_content_is_not_sent_again(
        self, emulator: EmulatorProcess, artifacts: UpstreamArtifacts, run: NewRun
    ) -> None:
        """What is there with the same size and MD5 is left alone."""
        place = (run.experiment_id, run.run_id, "same.txt")
        for _ in range(2):
            await artifacts.upload(*place, b"same", 4, md5(b"same"))
        assert puts(emulator) == 1

    async def test_other_content_replaces_what_was_there(
        self, artifacts: UpstreamArtifacts, run: NewRun
    ) -> None:
        """A path that is taken is overwritten, as MLflow does it."""
        place = (run.experiment_id, run.run_id, "taken.txt")
        for content in (b"first", b"other", b"longer than before"):
            await artifacts.upload(*place, content, len(content), md5(content))
            assert await read_all(artifacts.open_read(*place)) == content
        assert await artifacts.list_paths(run.experiment_id, run.run_id) == ["taken.txt"]

    async def test_an_artifact_is_deleted_with_its_bytes(
        self, artifacts: UpstreamArtifacts, run: NewRun
    ) -> None:
        """A deleted artifact is gone, and deleting it again is fine."""
        place = (run.experiment_id, run.run_id, "a b/gone.txt")
        await artifacts.upload(*place, b"x", 1, md5(b"x"))
        await artifacts.delete(run.run_id, place[2])
        await artifacts.delete(run.run_id, place[2])
        assert await artifacts.info(*place) is None
        assert await artifacts.list_paths(run.experiment_id, run.run_id) == []
        with pytest.raises(UpstreamFailure) as caught:
            await read_all(artifacts.open_read(*place))
        assert caught.value.is_missing

    async def test_a_registered_path_without_bytes_is_not_there(
        self, artifacts: UpstreamArtifacts, run: NewRun
    ) -> None:
        """Metadata alone is no artifact; the upload that follows completes it."""
        place = (run.experiment_id, run.run_id, "half.txt")
        assert (await artifacts.register(*place)).is_new
        assert await artifacts.info(*place) is None
        await artifacts.upload(*place, b"x", 1, md5(b"x"))
        assert await artifacts.info(*place) == StoredArtifact(1, md5(b"x"))

    async def test_a_long_listing_is_followed(self, artifacts: UpstreamArtifacts, run: NewRun) -> None:
        """Every page of the listing is read (the emulator's pages hold three)."""
        paths = [f"f{number}" for number in range(8)]
        for path in paths:
            await artifacts.upload(run.experiment_id, run.run_id, path, b"x", 1, md5(b"x"))
        assert await artifacts.list_paths(run.experiment_id, run.run_id) == paths

    @pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "a/../b", "a\\b", "a\nb", ""])
    async def test_a_path_that_leaves_its_run_is_never_sent(
        self, emulator: EmulatorProcess, artifacts: UpstreamArtifacts, path: str
    ) -> None:
        """A path that would mean another place is refused here."""
        with pytest.raises(UpstreamFailure):
            await artifacts.upload("e", "r", path, b"x", 1, md5(b"x"))
        assert emulator.calls_summary() == {}

    async def test_bytes_that_changed_here_are_not_delivered(
        self, artifacts: UpstreamArtifacts, run: NewRun, tmp_path: Path
    ) -> None:
        """A source that is not what was accepted is parked, small or big, and nothing is committed."""
        for size in (10, 9 * 1024 * 1024):
            content = bytes(size)
            file = tmp_path / f"{size}"
            file.write_bytes(content[:-1] + b"x")
            with pytest.raises(UpstreamFailure, match="not the bytes") as caught:
                await artifacts.upload(run.experiment_id, run.run_id, file.name, file, size, md5(content))
            assert caught.value.verdict is Verdict.PARK
            assert await artifacts.info(run.experiment_id, run.run_id, file.name) is None

    async def test_an_expired_address_is_asked_for_again(
        self, emulator: EmulatorProcess, artifacts: UpstreamArtifacts, run: NewRun
    ) -> None:
        """A write address that storage refuses is replaced, and the upload ends well."""
        emulator.add_fault(
            match="^PUT ",
            effect="status",
            status=403,
            times=1,
            headers={"x-ms-error-code": "AuthenticationFailed"},
        )
        place = (run.experiment_id, run.run_id, "late.txt")
        await artifacts.upload(*place, b"late", 4, md5(b"late"))
        assert sum(count for call, count in emulator.calls_summary().items() if call.endswith("/write")) == 1
        assert await artifacts.info(*place) == StoredArtifact(4, md5(b"late"))

    async def test_addresses_that_are_always_refused_mean_wait(
        self, emulator: EmulatorProcess, artifacts: UpstreamArtifacts, run: NewRun
    ) -> None:
        """Storage that takes no address of ours is our standing, not the artifact's fault."""
        emulator.add_fault(match="^PUT ", effect="status", status=403)
        with pytest.raises(UpstreamFailure) as caught:
            await artifacts.upload(run.experiment_id, run.run_id, "x", b"x", 1, md5(b"x"))
        assert (caught.value.verdict, caught.value.status) == (Verdict.WAIT, 403)
        assert puts(emulator) == 3

    async def test_a_lost_answer_to_an_upload_is_settled_by_looking(
        self, emulator: EmulatorProcess, artifacts: UpstreamArtifacts, run: NewRun
    ) -> None:
        """Bytes that arrived without an answer count as delivered once they have been seen."""
        emulator.add_fault(match="^PUT ", effect="drop_answer", when="after")
        place = (run.experiment_id, run.run_id, "lost.txt")
        assert await artifacts.upload(*place, b"lost", 4, md5(b"lost")) == StoredArtifact(4, md5(b"lost"))

    async def test_a_lost_upload_is_uncertain(
        self, emulator: EmulatorProcess, artifacts: UpstreamArtifacts, run: NewRun
    ) -> None:
        """Bytes that cannot be seen after a lost answer are read back later."""
        emulator.add_fault(match="^PUT ", effect="drop_answer", when="before")
        with pytest.raises(UpstreamFailure) as caught:
            await artifacts.upload(run.experiment_id, run.run_id, "x", b"x", 1, md5(b"x"))
        assert caught.value.verdict is Verdict.UNCERTAIN


class TestBigArtifacts:
    async def test_an_upload_that_breaks_off_goes_on_where_it_stopped(
        self, emulator: EmulatorProcess, artifacts: UpstreamArtifacts, run: NewRun, big_file: Path
    ) -> None:
        """After a fault in the middle of 80 MiB only the missing blocks are sent, and MD5 is right."""
        digest = md5(content_of(big_file))
        place = (run.experiment_id, run.run_id, "big #1+%.bin")
        emulator.add_fault(match="^PUT ", effect="status", status=503, after_calls=8)
        with pytest.raises(UpstreamFailure) as caught:
            await artifacts.upload(*place, big_file, BIG_BYTES, digest)
        assert caught.value.verdict is Verdict.RETRY
        assert await artifacts.info(*place) is None
        emulator.clear_faults()
        emulator.clear_calls()
        progress: list[int] = []
        stored = await artifacts.upload(*place, big_file, BIG_BYTES, digest, progress.append)
        assert stored == StoredArtifact(BIG_BYTES, digest)
        assert puts(emulator) == BIG_BYTES // BLOCK_BYTES - 8 + 1
        assert progress == sorted(progress)
        assert progress[-1] == BIG_BYTES
        held = hashlib.md5(usedforsecurity=False)
        async for chunk in artifacts.open_read(*place):
            held.update(chunk)
        assert held.digest() == digest
        middle = await read_all(artifacts.open_read(*place, BLOCK_BYTES - 3, 6))
        assert middle == content_of(big_file)[BLOCK_BYTES - 3 : BLOCK_BYTES + 3]

    async def test_a_cancelled_upload_stops_and_can_go_on(
        self, emulator: EmulatorProcess, artifacts: UpstreamArtifacts, run: NewRun, big_file: Path
    ) -> None:
        """Cancelling ends the sending soon; what was staged is used by the next upload."""
        digest = md5(content_of(big_file))
        place = (run.experiment_id, run.run_id, "cancelled.bin")
        emulator.add_fault(match="^PUT ", effect="delay", delay_seconds=0.05)
        reached = asyncio.Event()
        upload = asyncio.create_task(
            artifacts.upload(*place, big_file, BIG_BYTES, digest, _when(6 * BLOCK_BYTES, reached))
        )
        await reached.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        emulator.clear_faults()
        sent = -1
        while sent != puts(emulator):  # what was on its way when it was cancelled may still arrive
            sent = puts(emulator)
            await asyncio.sleep(0.5)
        assert sent < BIG_BYTES // BLOCK_BYTES
        stored = await artifacts.upload(*place, big_file, BIG_BYTES, digest)
        assert stored == StoredArtifact(BIG_BYTES, digest)
        assert puts(emulator) == BIG_BYTES // BLOCK_BYTES + 1

    async def test_big_content_replaces_other_content(
        self, emulator: EmulatorProcess, artifacts: UpstreamArtifacts, run: NewRun, big_file: Path
    ) -> None:
        """A committed file stays readable until the new one is whole, and blocks are not mixed up."""
        place = (run.experiment_id, run.run_id, "replaced.bin")
        old = bytes(9 * 1024 * 1024)
        await artifacts.upload(*place, old, len(old), md5(old))
        emulator.add_fault(match="^PUT ", effect="status", status=503, after_calls=5)
        content = content_of(big_file)
        with pytest.raises(UpstreamFailure):
            await artifacts.upload(*place, content, BIG_BYTES, md5(content))
        assert await artifacts.info(*place) == StoredArtifact(len(old), md5(old))
        emulator.clear_faults()
        other = content[::-1]
        stored = await artifacts.upload(*place, other, BIG_BYTES, md5(other))
        assert stored == StoredArtifact(BIG_BYTES, md5(other))
        assert md5(await read_all(artifacts.open_read(*place))) == md5(other)


def _when(threshold: int, reached: asyncio.Event) -> Callable[[int], None]:
    def progress(done_bytes: int) -> None:
        if done_bytes >= threshold:
            reached.set()

    return progress
