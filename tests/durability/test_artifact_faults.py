"""Files on their way to the workspace meet bad connections, ended addresses and each other."""

import hashlib
import threading

import httpx
import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import ARTIFACTS, Tracking, assert_delivered
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, wait_until

pytestmark = pytest.mark.fault("18")
MEBIBYTE = 1024 * 1024
BLOCKS = 5
# Five blocks of four mebibytes, the last of them short.
LARGE = b"".join(number.to_bytes(4) * (MEBIBYTE // 4) for number in range(4 * BLOCKS - 3))
PUT_LARGE = "PUT .*large.bin"
CUTS: dict[str, dict[str, object]] = {
    "the last block is refused": {"effect": "status", "status": 500, "after_calls": BLOCKS - 1},
    "the last block's connection breaks": {"effect": "drop_answer", "after_calls": BLOCKS - 1},
    "the end is refused": {"effect": "status", "status": 503, "after_calls": BLOCKS},
    "the end's answer is lost": {"effect": "drop_answer", "when": "after", "after_calls": BLOCKS},
    "the end is answered with 500": {
        "effect": "status",
        "status": 500,
        "when": "after",
        "after_calls": BLOCKS,
    },
}


@pytest.mark.parametrize("cut", CUTS)
def test_cut_shortly_before_the_end(
    cut: str, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """An upload that breaks at its last block, or at its very end, goes on from there: not from the start."""
    emulator.add_fault(match=PUT_LARGE, times=1, **CUTS[cut])
    run = client.create_run(experiment, cut)
    client.upload(run, "model/large.bin", LARGE)
    client.end(run)
    drain_all(server)
    assert_delivered(emulator, run)
    assert emulator.faults()[0]["hits"] == 1
    sent = sum(
        call["bytes"] for call in emulator.calls() if call["path"].endswith(f"{run.run_id}/model/large.bin")
    )
    assert sent < 1.5 * len(LARGE)


def test_the_signed_address_ends_in_the_middle(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """When the address for an upload ends while blocks are on their way, a fresh one is fetched, and used."""
    emulator.settings(write_sas_seconds=2.0)
    emulator.add_fault(match=PUT_LARGE, effect="delay", delay_seconds=1.2, times=BLOCKS)
    run = client.create_run(experiment, "address ended")
    client.upload(run, "model/large.bin", LARGE)
    client.end(run)
    drain_all(server)
    assert_delivered(emulator, run)
    refused = [call for call in emulator.calls() if call["status"] == 403 and call["method"] == "PUT"]
    assert refused


def test_blob_storage_goes_away_in_the_middle(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """The workspace is killed in the middle of an upload and comes back: the file is there, whole, once."""
    emulator.add_fault(match=PUT_LARGE, effect="delay", delay_seconds=0.5)
    run = client.create_run(experiment, "storage away")
    client.upload(run, "model/large.bin", LARGE)
    wait_until(lambda: emulator.faults()[0]["hits"] >= 2, within=120, what="the upload under way")
    emulator.kill()
    emulator.restart()
    drain_all(server)
    assert_delivered(emulator, run)


@pytest.mark.parametrize("size", [100_000, len(LARGE)])
def test_storage_says_that_it_has_it_and_has_not(
    size: int, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """An upload that storage confirms without keeping it is looked at, and done again."""
    emulator.add_fault(match="PUT .*(large|spooled).bin", effect="status", status=201, when="before", times=1)
    run = client.create_run(experiment, "lying storage")
    client.upload(run, "model/large.bin" if size == len(LARGE) else "model/spooled.bin", LARGE[:size])
    client.end(run)
    drain_all(server)
    assert emulator.faults()[0]["hits"] == 1
    assert_delivered(emulator, run)


def test_several_writers_to_one_path(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Of files put to one path at the same time the last acknowledged stays, here and in the workspace."""
    run = client.create_run(experiment, "one path")
    contents = [bytes([number]) * (150_000 + number) for number in range(8)]

    def put(content: bytes) -> None:
        url = f"{server.url}{ARTIFACTS}/{run.artifact_root}/shared.bin"
        httpx.put(url, content=content, trust_env=False, timeout=30).raise_for_status()

    writers = [threading.Thread(target=put, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    client.upload(run, "small.txt", b"one")
    client.upload(run, "small.txt", b"two")
    here = client.download(run, "shared.bin")
    assert here in contents
    run.files["shared.bin"] = hashlib.sha256(here).hexdigest()
    drain_all(server)
    assert_delivered(emulator, run)
    assert client.download(run, "shared.bin") == here
    spool = server.data_dir / "spool"
    wait_until(lambda: not any(path.is_file() for path in spool.rglob("*")), within=60, what="an empty spool")


def test_a_file_that_the_spool_cannot_hold(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A file larger than what is left is refused with 507 and leaves nothing; smaller ones go on."""
    folder = tmp_path_factory.mktemp("small spool")
    with deliver_to(emulator, folder, nursery, MLPROXY_MAX_SPOOL_BYTES=8 * MEBIBYTE) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("small spool"), "small spool")
        url = f"{server.url}{ARTIFACTS}/{run.artifact_root}/too-large.bin"
        refused = httpx.put(url, content=LARGE, trust_env=False, timeout=30)
        assert refused.status_code == 507
        client.upload(run, "fits.bin", b"x" * MEBIBYTE)
        client.end(run)
        drain_all(server)
        assert_delivered(emulator, run)
        assert run_of(emulator, run.run_id).files.keys() == {"fits.bin"}
