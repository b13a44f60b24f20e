"""A process that only accepts, alone on its SQLite file."""

from pathlib import Path

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import Tracking, assert_delivered, train
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery


def test_what_it_keeps_is_delivered_once_it_may(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """In the role `api` nothing reaches the workspace; started again in the role `all`, everything does."""
    emulator.clear_calls()
    with deliver_to(emulator, tmp_path / "server", nursery, MLPROXY_ROLE="api") as server:
        client = Tracking(server.url)
        run = train(client, client.create_experiment("accepted only"), "accepted only", steps=3)
        assert server.status()["pending"] > 10
        assert [call["path"] for call in emulator.calls() if "/emulator/" not in call["path"]] == []
        server.restart(MLPROXY_ROLE="all")
        drain_all(server)
    assert_delivered(emulator, run)
