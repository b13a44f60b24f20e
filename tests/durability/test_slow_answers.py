"""Answers that take their time end in a bounded time, and what they were about is found out."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from server.domain.verdicts import Verdict
from server.replay.worker import ReplaySettings
from server.upstream.channel import LONGEST_CALL_SECONDS, create_http_client
from server.upstream.connection import Connection
from server.upstream.credentials import TokenSource
from server.upstream.failures import UpstreamFailure
from server.upstream.runs import UpstreamMetric, UpstreamRuns
from server.upstream.workspace import WorkspaceAddress, parse_workspace
from tests.durability.conftest import drain_all
from tests.durability.tracking import Tracking, assert_delivered, assert_waited_for_nobody, train
from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, wait_until

pytestmark = pytest.mark.fault("7")
PATIENCE_SECONDS = 2.0
NEVER_SECONDS = 10 * PATIENCE_SECONDS


def call_with_little_patience(
    emulator: EmulatorProcess, call: Callable[[UpstreamRuns], Awaitable[object]]
) -> tuple[UpstreamFailure, float]:
    """How a call to a real workspace fails, and after how many seconds."""
    address = parse_workspace(emulator.tracking_uri)
    assert isinstance(address, WorkspaceAddress)

    async def fail() -> tuple[UpstreamFailure, float]:
        async with create_http_client() as http:
            tokens = TokenSource("managed-identity", scope=address.token_scope)
            connection = Connection(address, tokens, http, patience_seconds=PATIENCE_SECONDS)
            await tokens.token()
            started = time.monotonic()
            with pytest.raises(UpstreamFailure) as caught:
                await call(UpstreamRuns(connection))
            await tokens.aclose()
            return caught.value, time.monotonic() - started

    return asyncio.run(fail())


@pytest.mark.parametrize("effect", ["drip", "delay"])
def test_a_body_that_never_ends(
    effect: str,
    emulator: EmulatorProcess,
    server: ServerProcess,
    client: Tracking,
    experiment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write whose answer drips, or does not begin, ends in time and is uncertain; a read is repeated."""
    run = client.create_run(experiment, effect)
    drain_all(server)
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    for route in ("POST .*/runs/log-batch$", "GET .*/runs/get$"):
        emulator.add_fault(match=route, effect=effect, when="after", delay_seconds=NEVER_SECONDS)
    point = UpstreamMetric("loss", 0.5, 1, 0)
    failure, seconds = call_with_little_patience(emulator, lambda runs: runs.log_batch(run.run_id, [point]))
    assert (failure.verdict, failure.code) == (Verdict.UNCERTAIN, "TIMEOUT")
    assert PATIENCE_SECONDS <= seconds < NEVER_SECONDS - PATIENCE_SECONDS
    wait_until(lambda: len(run_of(emulator, run.run_id).points) == 1, within=60, what="the point")
    failure, seconds = call_with_little_patience(emulator, lambda runs: runs.find(run.run_id))
    assert failure.verdict is Verdict.RETRY
    assert seconds < NEVER_SECONDS - PATIENCE_SECONDS


def test_a_call_ends_before_its_lease() -> None:
    """The longest call is shorter than a lease, so that its result still counts."""
    assert ReplaySettings().lease.total_seconds() * 0.8 > LONGEST_CALL_SECONDS


def test_answers_that_drip(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """While every answer comes a byte at a time, clients are served at once, and all arrives once."""
    emulator.add_fault(match="/mlflow/|/history/", effect="drip", delay_seconds=0.002)
    run = train(client, experiment, "dripping", steps=3)
    drain_all(server)
    assert_waited_for_nobody(client)
    assert emulator.faults()[0]["hits"] > 0
    assert_delivered(emulator, run)
