"""The workspace is away, or our standing there is: clients notice nothing, and later all of it arrives."""

import asyncio
import time
from pathlib import Path

import pytest

from server.upstream.channel import create_http_client
from server.upstream.connection import Connection
from server.upstream.credentials import TokenSource
from server.upstream.runs import UpstreamRuns
from server.upstream.workspace import WorkspaceAddress, parse_workspace
from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import Tracking, assert_delivered, assert_waited_for_nobody, train
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import wait_until

TOKEN_SECONDS = 5.0
ANSWER_SECONDS = 10.0


@pytest.mark.fault("13")
def test_training_while_the_workspace_is_down(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A training without a workspace: no call waits for one; later all arrives once."""
    emulator.stop()
    try:
        runs = [train(client, experiment, f"offline {number}") for number in range(3)]
        child = client.create_child(experiment, "offline child", runs[0])
        client.log_metric(child, "loss", 0.5, 0)
        client.end(child)
        assert_waited_for_nobody(client)
        assert server.status()["pending"] > 0
    finally:
        emulator.restart()
    drain_all(server)
    for run in [*runs, child]:
        assert_delivered(emulator, run)


@pytest.mark.fault("13")
def test_the_workspace_goes_away_in_the_middle(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """The workspace is killed and comes back, twice, during one run: all arrives once, in order."""
    run = client.create_run(experiment, "interrupted")
    for step in range(120):
        client.log_metric(run, "loss", step / 3, step)
        time.sleep(0.02)
        if step in (40, 80):
            emulator.kill()
        if step in (60, 100):
            emulator.restart()
    client.end(run)
    assert_waited_for_nobody(client)
    drain_all(server)
    assert_delivered(emulator, run)


@pytest.mark.fault("9")
def test_tokens_that_live_five_seconds(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A training of sixteen seconds on tokens of five, revoked halfway, arrives as it goes on, once.

    Without another token nothing would arrive after the first five seconds.
    """
    emulator.settings(token_seconds=TOKEN_SECONDS)
    emulator.revoke_tokens()
    run = client.create_run(experiment, "short tokens")
    started = time.monotonic()
    is_revoked, step, on_the_first = False, 0, 0
    while (elapsed := time.monotonic() - started) < 3 * TOKEN_SECONDS + 1:
        client.log_metric(run, "loss", step / 3, step)
        step += 1
        on_the_first = step if elapsed < TOKEN_SECONDS else on_the_first
        time.sleep(0.1)
        if elapsed > 1.5 * TOKEN_SECONDS and not is_revoked:
            emulator.revoke_tokens()
            is_revoked = True
    wait_until(
        lambda: len(emulator.run(run.run_id)["metrics"]) > on_the_first + 1,
        within=60,
        what="points logged after the first token's end",
    )
    client.upload(run, "model.bin", b"x" * 200_000)
    client.end(run)
    assert_waited_for_nobody(client)
    drain_all(server)
    assert_delivered(emulator, run)


@pytest.mark.fault("9")
def test_fifty_refused_calls_renew_the_token_once(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty concurrent calls whose token is refused cause one renewal, and all of them succeed."""
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    address = parse_workspace(emulator.tracking_uri)
    assert isinstance(address, WorkspaceAddress)

    async def call_fifty_times() -> list[object]:
        async with create_http_client() as http:
            tokens = TokenSource("managed-identity", scope=address.token_scope)
            runs = UpstreamRuns(Connection(address, tokens, http))
            await runs.find("warm-up")
            emulator.revoke_tokens()
            emulator.clear_calls()
            found = await asyncio.gather(*(runs.find(f"nothing-{number}") for number in range(50)))
            await tokens.aclose()
            return list(found)

    assert asyncio.run(call_fifty_times()) == [None] * 50
    calls = emulator.calls()
    assert sum(call["path"].endswith("/msi/token") for call in calls) == 1
    assert sum(call["status"] == 401 for call in calls) > 1


@pytest.mark.fault("7")
def test_a_slow_workspace_slows_no_client(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """While every answer of the workspace takes many seconds, no client call takes as long as one of them."""
    emulator.add_fault(match="/mlflow/|/history/|/artifact/", effect="delay", delay_seconds=ANSWER_SECONDS)
    run = train(client, experiment, "slow workspace")
    assert_waited_for_nobody(client, longest=ANSWER_SECONDS)
    emulator.clear_faults()
    drain_all(server)
    assert_delivered(emulator, run)


def test_another_workspace_is_refused(emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path) -> None:
    """Once something was delivered, `serve` refuses another workspace and names both."""
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        client = Tracking(server.url)
        run = train(client, client.create_experiment("bound"), "bound", steps=1)
        drain_all(server)
        assert_delivered(emulator, run)
        server.stop()
        other = emulator.tracking_uri.replace("workspaces/emulator", "workspaces/another")
        refused = server.cli("serve", MLPROXY_WORKSPACE=other)
        assert refused.returncode != 0
        said = refused.stdout + refused.stderr
        assert "MLPROXY_WORKSPACE" in said
        assert "workspaces/another" in said
        assert "workspaces/emulator" in said
        assert "Traceback" not in said
        server.launch()
        again = train(client, client.create_experiment("bound again"), "again", steps=1)
        drain_all(server)
        assert_delivered(emulator, again)
