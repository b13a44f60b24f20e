"""What is parked can be retried, to the end that everything is in the workspace once, or dropped."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.database.engine import Database
from server.domain.access import user_name
from tests.durability.conftest import deliver_to, drain, drain_all
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered, train
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import JsonObject, ServerProcess
from tests.support.workspace import run_of, wait_until

OWN = "/api/2.0/mlproxy"
REFUSAL = {"error_code": "INVALID_PARAMETER_VALUE", "message": "not while this test runs"}


def refuse(emulator: EmulatorProcess, match: str) -> None:
    """The workspace refuses these calls for good."""
    emulator.add_fault(match=match, effect="status", status=409, body=REFUSAL)


def parked_of(server: ServerProcess, run_id: str) -> list[JsonObject]:
    """What is parked of a run."""
    headers = {} if server.api_key is None else {"Authorization": f"Bearer {server.api_key}"}
    listed = httpx.get(
        f"{server.url}{OWN}/parked", params={"run_id": run_id}, headers=headers, trust_env=False
    )
    assert listed.is_success, listed.text
    return list(listed.json()["parked"])


@pytest.mark.fault("10")
def test_what_was_refused_is_retried_and_arrives(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Everything that was logged while the workspace refused it arrives once after a retry."""
    run = client.create_run(experiment, "refused for a while")
    drain_all(server)
    refuse(emulator, "POST .*/runs/log-batch$")
    client.log_params(run, {"rate": "0.1", "depth": "3"})
    for step in range(5):
        client.log_metric(run, "loss", 1 / (step + 1), step)
        client.set_tag(run, "progress", str(step))
    client.upload(run, "notes.txt", b"all well")
    client.end(run)
    drained = server.cli("drain")
    assert drained.returncode == 0
    assert f"{run.run_id}  LogPoint loss" in drained.stdout
    parked = parked_of(server, run.run_id)
    assert {item["message"] for item in parked} == {f"{REFUSAL['error_code']}: {REFUSAL['message']}"}
    emulator.clear_faults()
    client.set_tag(run, "progress", "done")
    retried = server.cli("parked", "retry", "--run", run.run_id)
    assert retried.returncode == 0, retried.stderr
    assert retried.stdout.startswith("7 on their way again.")
    assert retried.stdout.count("is not sent, and decided: The tag 'progress' was changed") == 5
    drain_all(server)
    held = run_of(emulator, run.run_id)
    assert held.points_in_order == run.points
    assert (held.params, held.files) == (run.params, run.files)
    assert held.tags["progress"] == "done"
    shown = server.cli("parked", "show", str(parked[0]["parked_id"])).stdout
    assert f"decided by       {user_name(os.getuid())}\n" in shown
    assert "decision         retried\n" in shown
    line = f"decided_by={user_name(os.getuid())} decision=retried"
    wait_until(lambda: line in server.log_file.read_text(), within=60, what="the decision in the log")
    assert parked_of(server, run.run_id) == []


def test_a_refused_create_is_retried_with_all_that_followed(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """The command names what can follow; in the end the whole run is there, the end last."""
    refuse(emulator, "PATCH .*/runs/[^/]+$")
    run = train(client, experiment, "not to be made")
    child = client.create_child(experiment, "its child", run)
    client.log_metric(child, "loss", 0.5, 0)
    client.end(child)
    assert drain(server) > 10
    emulator.clear_faults()
    create = next(item for item in parked_of(server, run.run_id) if item["kind"] == "CreateRun")
    retried = server.cli("parked", "retry", str(create["parked_id"])).stdout
    assert retried.startswith("1 on their way again.")
    assert f"mlproxy parked retry --run {run.run_id}" in retried
    for run_id in (run.run_id, child.run_id):
        assert server.cli("parked", "retry", "--run", run_id).returncode == 0
    drain_all(server)
    assert_delivered(emulator, run)
    assert_delivered(emulator, child)
    assert run_of(emulator, child.run_id).tags["mlflow.parentRunId"] == run.run_id
    assert server.cli("verify", run.run_id).returncode == 0


@pytest.mark.fault("10")
def test_what_is_refused_again_is_parked_again(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Under a new id; the first decision stands."""
    run = client.create_run(experiment, "refused twice")
    drain_all(server)
    refuse(emulator, "POST .*/runs/log-batch$")
    client.set_tag(run, "k", "1")
    assert drain(server) == 1
    first = parked_of(server, run.run_id)[0]["parked_id"]
    server.cli("parked", "retry", str(first))
    assert drain(server) == 1
    second = parked_of(server, run.run_id)[0]["parked_id"]
    assert second > first
    assert json.loads(server.cli("parked", "show", str(first), "--json").stdout)["decision"] == "retried"
    dropped = server.cli("parked", "drop", str(second), "--reason", "of no use")
    assert dropped.stdout == "1 dropped.\n"
    status = client.run_status(run.run_id)
    assert (status["parked"], status["dropped"], status["pending"]) == (0, 1, 0)
    assert "; 1 dropped" in server.cli("status").stdout


@pytest.fixture
def guarded(emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that wants keys."""
    with deliver_to(emulator, tmp_path / "guarded", nursery, MLPROXY_AUTH="keys") as running:
        yield running


def test_a_decision_over_http_is_its_keys(emulator: EmulatorProcess, guarded: ServerProcess) -> None:
    """Only an admin may decide, and the key's name stands with the decision."""
    keys = {
        role: guarded.cli("keys", "create", f"the {role}", "--role", role).stdout.strip()
        for role in ("write", "admin")
    }
    client = Tracking(guarded.url, api_key=keys["write"])
    run = client.create_run(client.create_experiment("guarded"), "guarded")
    refuse(emulator, "PATCH .*/runs/[^/]+$")
    guarded.cli("drain")
    guarded.api_key = keys["admin"]
    parked_id = parked_of(guarded, run.run_id)[0]["parked_id"]
    body = {"ids": [parked_id], "reason": "by hand"}
    answers = {
        role: httpx.post(
            f"{guarded.url}{OWN}/parked/drop",
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
        ).status_code
        for role, key in keys.items()
    }
    assert answers == {"write": 403, "admin": 200}
    shown = json.loads(guarded.cli("parked", "show", str(parked_id), "--json").stdout)
    assert (shown["decided_by"], shown["decision_reason"]) == ("the admin", "by hand")
    client.close()


@pytest.mark.fault("1")
def test_a_crash_in_a_retry_decides_nothing(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """Killed before its commit, everything is still parked; the next retry does it once."""
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("crash in a retry"), "crash in a retry")
        drain_all(server)
        refuse(emulator, "POST .*/runs/log-batch$")
        client.log_points(run, [("loss", step / 3, step) for step in range(20)])
        client.set_tag(run, "k", "1")
        assert drain(server) == 21
        emulator.clear_faults()
        server.restart(MLPROXY_TEST_FAILPOINTS="parked.retried=kill")
        assert server.cli("parked", "retry", "--all").returncode != 0
        server.wait()
        server.restart(MLPROXY_TEST_FAILPOINTS=None)
        assert len(parked_of(server, run.run_id)) == 21
        assert server.cli("parked", "retry", "--all").stdout == "21 on their way again.\n"
        drain_all(server)
        assert_delivered(emulator, run)
        client.close()


# --- rows that are not what was written -----------------------------------------------------


# Where a block of points has what (`server.journal.blocks`).
BLOCK_HEAD, POINT_BYTES, STEP_BYTE, VALUE_BYTE = 4, 33, 8, 24


def spoil(database: Database, run: LoggedRun) -> None:
    """Flip a bit of a param's payload and one of a tag's kind, and change two points."""
    at = "WHERE lane_id = ? AND position = ?"
    with database.writing(0) as transaction:
        lane = transaction.rows("SELECT data_lane_id FROM runs WHERE run_id = ?", (run.run_id,))[0][0]
        entries = transaction.rows(
            "SELECT kind, position, payload FROM journal_entries WHERE lane_id = ? ORDER BY position", (lane,)
        )
        first = {kind: (position, bytes(payload)) for kind, position, payload in reversed(entries)}
        position, payload = first["LogParam"]
        flipped = payload[:-1] + bytes([payload[-1] ^ 1])
        transaction.run(f"UPDATE journal_entries SET payload = ? {at}", (flipped, lane, position))
        # On SQLite the flipped byte makes it no text at all; Postgres would not have it.
        kind = "'SatTag'" if transaction.is_postgres else "CAST(x'D36574546167' AS TEXT)"
        transaction.run(f"UPDATE journal_entries SET kind = {kind} {at}", (lane, first["SetTag"][0]))
        ((first_position, packed),) = transaction.rows(
            "SELECT first_position, points FROM journal_blocks WHERE lane_id = ?", (lane,)
        )
        spoilt = bytearray(packed)
        for number, byte in ((3, VALUE_BYTE), (7, STEP_BYTE)):
            spoilt[BLOCK_HEAD + number * POINT_BYTES + byte] ^= 0x10
        transaction.run(
            "UPDATE journal_blocks SET points = ? WHERE lane_id = ? AND first_position = ?",
            (bytes(spoilt), lane, first_position),
        )


@pytest.mark.fault("4")
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_corrupt_row_is_parked_and_the_rest_goes_on(
    emulator: EmulatorProcess,
    nursery: Nursery,
    tmp_path: Path,
    make_database: Callable[[str], str],
    kind: str,
) -> None:
    """Of a spoilt journal, exactly the spoilt rows stay behind; they are never sent, and can be dropped."""
    url = make_database(kind)
    with deliver_to(
        emulator, tmp_path / "server", nursery, MLPROXY_WORKSPACE=None, MLPROXY_DATABASE_URL=url
    ) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment(f"spoilt {kind}"), "spoilt")
        client.log_params(run, {"spoilt": "1", "whole": "2"})
        client.set_tag(run, "spoilt", "1")
        client.set_tag(run, "whole", "2")
        client.log_points(run, [("loss", step / 3, step) for step in range(20)])
        client.upload(run, "notes.txt", b"all well")
        client.end(run)
        server.stop()
        database = Database(url)
        spoil(database, run)
        database.close()
        server.restart(MLPROXY_WORKSPACE=emulator.tracking_uri)
        assert drain(server) == 4
        parked = parked_of(server, run.run_id)
        assert {item["reason"] for item in parked} == {"corrupt_entry"}
        shown = server.cli("parked", "list", "--run", run.run_id, "--reason", "corrupt_entry").stdout
        assert [line.split()[0] for line in shown.splitlines()[1:]] == [
            str(item["parked_id"]) for item in parked
        ]
        retried = server.cli("parked", "retry", "--all").stdout
        assert retried.startswith("0 on their way again.")
        assert retried.count("stays parked: It cannot be read back") == 4
        assert server.cli("parked", "drop", "--all", "--reason", "bad disk").stdout == "4 dropped.\n"
        del run.params["spoilt"], run.tags["spoilt"]
        run.points = [logged for number, logged in enumerate(run.points) if number not in (3, 7)]
        assert_delivered(emulator, run)
        client.close()
