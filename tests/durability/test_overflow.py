"""What the workspace's limits cannot hold is kept, delivered as a file under the run, tagged and counted."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.durability.conftest import ask_to_drain, deliver_to, drain, drain_all
from tests.durability.crashing import CrashingServer
from tests.durability.overflowing import (
    OVERFLOW_TAG,
    assert_nothing_lost,
    last_call,
    overflow_files,
    refused_calls,
    remove_file,
)
from tests.durability.tracking import LoggedRun, Tracking, assert_waited_for_nobody
from tests.durability.turning import start_turned
from tests.support.databases import MakeDatabase
from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, run_client
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, wait_until

PARAMS, METRIC_NAMES, TAGS = 200, 50, 50
NAMES, STEPS = 60, 84


@pytest.fixture(params=["sqlite", "postgres"])
def fresh(
    request: pytest.FixtureRequest,
    emulator: EmulatorProcess,
    nursery: Nursery,
    make_database: MakeDatabase,
    tmp_path: Path,
) -> Iterator[ServerProcess]:
    """A server that has learned no limit yet, on each kind of database."""
    url = make_database(request.param)
    with deliver_to(emulator, tmp_path, nursery, MLPROXY_DATABASE_URL=url) as server:
        yield server


def log_too_much(client: Tracking, run: LoggedRun, *, first_step: int = 0, steps: int = STEPS) -> None:
    """More params, metric names and tags than a run takes, and a value that is too long."""
    for start in range(0, PARAMS + 60, 100):
        numbers = range(start, min(start + 100, PARAMS + 60))
        client.log_params(run, {f"p{number}": str(number) for number in numbers})
    for step in range(first_step, first_step + steps):
        client.log_points(run, [(f"m{name}", step + name / 7, step) for name in range(NAMES)])
    for number in range(TAGS + 20):
        client.set_tag(run, f"t{number}", f"value {number}")
    client.set_tag(run, "t3", "long " * 1000)


def is_equal(server: ServerProcess, run: LoggedRun) -> bool:
    """Whether `verify` finds the run, its overflow included, as it is here."""
    answer = httpx.get(f"{server.url}/api/2.0/mlproxy/verify/{run.run_id}", trust_env=False, timeout=60)
    assert answer.is_success, answer.text
    assert answer.json()["differences"] == []
    return bool(answer.json()["equal"])


def test_all_of_a_run_that_is_too_large_is_kept(emulator: EmulatorProcess, fresh: ServerProcess) -> None:
    """260 params, 60 metrics with 5,040 points, 70 tags, a long value: each is in one place, not parked."""
    client = Tracking(fresh.url)
    since = last_call(emulator)
    run = client.create_run(client.create_experiment(f"too much {fresh.port}"), "too much")
    log_too_much(client, run)
    client.log_points(run, [("m59", "NaN", STEPS), ("m59", "-Infinity", STEPS + 1)])  # type: ignore[list-item]
    client.upload(run, "notes.txt", b"beside it")
    client.end(run)
    drain_all(fresh)
    lines = assert_nothing_lost(emulator, run)
    held = run_of(emulator, run.run_id)
    assert (len(held.params), len({key for key, *_ in held.points})) == (PARAMS, METRIC_NAMES)
    limits = {(line["kind"], line["limit"]) for line in lines}
    assert limits == {
        ("param", "params_per_run"),
        ("metric", "metric_names_per_run"),
        ("tag", "tags_per_run"),
        ("tag", "tag_value_length"),
    }
    assert held.tags[OVERFLOW_TAG] == str(len(lines))
    assert fresh.status()["overflow"] == len(lines)
    status = client.run_status(run.run_id)
    assert (status["overflow"], status["pending"], status["parked"]) == (len(lines), 0, 0)
    assert len(refused_calls(emulator, since)) <= 12
    verified = fresh.cli("verify", run.run_id)
    assert verified.returncode == 0, verified.stdout
    assert f"{len(lines)} values in overflow files" in verified.stdout
    shown = client.get("runs/get", run_id=run.run_id)["run"]["data"]
    assert len(shown["params"]) == PARAMS + 60
    assert len(shown["metrics"]) == NAMES


@pytest.mark.parametrize("fresh", ["sqlite"], indirect=True)
def test_a_thousand_metric_names_cost_few_refused_calls(
    emulator: EmulatorProcess, fresh: ServerProcess
) -> None:
    """The first run finds the limit out with a refusal or two; the next, on the same server, with none."""
    client = Tracking(fresh.url)
    experiment = client.create_experiment(f"a thousand {fresh.port}")
    refused = []
    for number in range(2):
        since = last_call(emulator)
        run = client.create_run(experiment, f"run {number}")
        for step in range(5):
            client.log_points(run, [(f"m{name}", name / 3, step) for name in range(1000)])
        client.end(run)
        drain_all(fresh)
        lines = assert_nothing_lost(emulator, run)
        assert len(lines) == 950 * 5
        refused.append(len(refused_calls(emulator, since)))
    assert refused[0] <= 3
    assert refused[1] == 0


def test_names_that_come_one_after_the_other(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Batch by batch the run fills up; what is there already goes on, what is new goes into the file."""
    run = client.create_run(experiment, "filling up")
    for wave in range(4):
        client.log_points(run, [(f"m{name}", wave / 3, wave) for name in range(20 * (wave + 1))])
        client.log_params(run, {f"p{wave}-{number}": "x" for number in range(70)})
        for number in range(16):
            client.set_tag(run, f"t{wave}-{number}", str(wave))
        ask_to_drain(server)
    client.set_tag(run, "t0-0", "set anew")
    client.delete_tag(run, "t0-1")
    drain_all(server)
    client.set_tag(run, "in its place", "fits")
    client.end(run)
    drain_all(server)
    assert_nothing_lost(emulator, run)
    held = run_of(emulator, run.run_id)
    assert (len(held.params), len({key for key, *_ in held.points})) == (PARAMS, METRIC_NAMES)
    assert held.tags["t0-0"] == "set anew"
    assert held.tags["in its place"] == "fits"
    assert is_equal(server, run)


def test_a_run_that_is_resumed_has_a_second_file(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Each end of a run follows the file with what had overflowed by then."""
    run = client.create_run(experiment, "resumed")
    log_too_much(client, run, steps=2)
    client.end(run)
    drain_all(server)
    first = assert_nothing_lost(emulator, run)
    client.post("runs/update", {"run_id": run.run_id, "status": "RUNNING"})
    client.log_points(run, [(f"m{name}", 0.5, 100) for name in range(NAMES)])
    client.set_tag(run, "t4", "long " * 900)
    client.end(run, "FAILED")
    drain_all(server)
    lines = assert_nothing_lost(emulator, run)
    held = run_of(emulator, run.run_id)
    files = overflow_files(emulator, held)
    assert [len(content) for content in files.values()] == [len(first), 11]
    assert held.tags[OVERFLOW_TAG] == str(len(lines))
    assert client.run_status(run.run_id)["overflow"] == len(lines)
    assert is_equal(server, run)


def test_a_deleted_run_gets_its_file_first(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """The workspace takes no files for a run that is deleted, so the deletion waits."""
    run = client.create_run(experiment, "deleted")
    log_too_much(client, run, steps=1)
    client.post("runs/delete", {"run_id": run.run_id})
    drain_all(server)
    assert_nothing_lost(emulator, run)
    assert run_of(emulator, run.run_id).document["lifecycle_stage"] == "deleted"


def test_while_the_workspace_is_down(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Too much is accepted like anything else, and sorted out when the workspace is back."""
    emulator.stop()
    client.seconds.clear()
    run = client.create_run(experiment, "logged in the dark")
    log_too_much(client, run, steps=3)
    client.end(run)
    assert_waited_for_nobody(client)
    status = client.run_status(run.run_id)
    assert status["pending"] > 0
    assert status["overflow"] == 0
    emulator.restart()
    drain_all(server)
    assert_nothing_lost(emulator, run)


@pytest.mark.parametrize("when", ["before", "after"])
def test_lost_answers(
    when: str, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A batch that goes over a limit and whose answer is lost is read back: nothing is in both places."""
    run = client.create_run(experiment, f"lost {when}")
    client.log_points(run, [(f"m{name}", 0.1, 0) for name in range(45)])
    drain_all(server)
    emulator.add_fault(match="POST .*/runs/log-batch$", effect="drop_answer", when=when, times=2)
    client.log_points(run, [(f"m{name}", 0.2, 1) for name in range(40, 60)])
    client.log_params(run, {f"p{number}": "x" for number in range(100)})
    for number in range(60):
        client.set_tag(run, f"t{number}", "x" * (1001 if number == 7 else 1))
    client.end(run)
    drain_all(server)
    lines = assert_nothing_lost(emulator, run)
    assert len([line for line in lines if line["kind"] == "metric"]) == 10


def test_words_without_figures_are_found_by_halving(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A refusal that names no figure costs a call for each halving; then its run is known to be full."""
    run = client.create_run(experiment, "no figures")
    drain(server)
    since = last_call(emulator)
    body = {"Error": {"Code": "UserError", "Message": "Too many metrics for this run"}}
    emulator.add_fault(match="POST .*/runs/log-batch$", effect="status", status=400, times=3, body=body)
    client.log_points(run, [(f"m{name}", 0.5, 0) for name in range(4)])
    drain(server)
    lines = assert_nothing_lost(emulator, run)
    assert [line["key"] for line in lines] == ["m0", "m1", "m2", "m3"]
    assert len(refused_calls(emulator, since)) == 3
    assert client.run_status(run.run_id)["parked"] == 0


def test_a_run_that_the_workspace_named_itself(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """The file lies under the workspace's run, and tags in it name runs as the workspace does."""
    emulator.settings(history_patch_status=404)
    run = client.create_run(experiment, "named there")
    model = {"run_id": run.run_id, "artifact_path": "m" * 1000, "flavors": {}, "utc_time_created": "now"}
    client.post("runs/log-model", {"run_id": run.run_id, "model_json": json.dumps(model)})
    client.end(run)
    drain(server)
    upstream_id = client.run_status(run.run_id)["upstream_run_id"]
    assert upstream_id != run.run_id
    ((line,),) = overflow_files(emulator, run_of(emulator, upstream_id)).values()
    assert (line["kind"], line["key"]) == ("tag", "mlflow.log-model.history")
    assert json.loads(line["value"]) == [model | {"run_id": upstream_id}]
    assert is_equal(server, run)


def test_what_else_is_refused_is_parked_as_ever(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A name that is too long for Run History is no value that a file could hold."""
    run = client.create_run(experiment, "renamed")
    long_name = "n" * 300
    emulator.add_fault(
        match="POST .*/runs/update$",
        effect="status",
        status=400,
        times=1,
        body={
            "error": {
                "code": "ValidationError",
                "message": "A field of the entity is over the size limit. "
                "FieldName=RunDto.DisplayName/Length, Limit=256, Size=300.",
            }
        },
    )
    before = server.status()["parked"]
    client.post("runs/update", {"run_id": run.run_id, "run_name": long_name})
    client.log_metric(run, "loss", 0.5, 0)
    wait_until(lambda: server.status()["parked"] == before + 1, within=120, what="one entry parked")
    assert client.run_status(run.run_id)["overflow"] == 0


def test_a_file_that_waits_for_nobody_goes_after_a_minute(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """A run that goes on and on gets its overflow every minute, not at its end."""
    turned = start_turned(emulator, tmp_path, nursery, MLPROXY_SETTLE_SECONDS=1)
    with turned.server as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("on and on"), "on and on")
        client.set_tag(run, "long", "x" * 4000)
        wait_until(lambda: client.run_status(run.run_id)["overflow"] == 1, within=120, what="overflow")
        turned.let_pass(40)
        time.sleep(2)
        assert not overflow_files(emulator, run_of(emulator, run.run_id))
        client.set_tag(run, "long too", "y" * 4000)
        wait_until(lambda: client.run_status(run.run_id)["overflow"] == 2, within=120, what="overflow")
        turned.let_pass(25)
        wait_until(
            lambda: overflow_files(emulator, run_of(emulator, run.run_id)), within=120, what="the file"
        )
        assert len(assert_nothing_lost(emulator, run)) == 2


def test_verify_misses_a_file_that_is_gone(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Overflow counts as delivered only as long as the workspace has it."""
    run = client.create_run(experiment, "file lost")
    client.set_tag(run, "long", "x" * 1001)
    client.end(run)
    drain(server)
    assert is_equal(server, run)
    remove_file(emulator, run.run_id, "mlproxy/overflow-1.jsonl")
    verified = server.cli("verify", run.run_id)
    assert verified.returncode == 1
    assert "artifact mlproxy/overflow-1.jsonl: here 1 values, there missing" in verified.stdout
    assert "tag long: here x" in verified.stdout


PLACES = {
    "sqlite": [
        "send.after@2",
        "overflow.decided",
        "overflow.kept",
        "overflow.closed",
        "upload.registered",
        "upload.committed",
        "overflow.uploaded",
        "overflow.delivered",
    ],
    # The same code runs; these are where commits and leases differ.
    "postgres": ["overflow.decided", "overflow.kept", "overflow.uploaded"],
}


def too_much_for(run: LoggedRun) -> Iterator[Callable[[Tracking], None]]:
    """What is logged to a run that overflows, call by call."""
    for step in range(3):
        points = [(f"m{name}", step / 3, step) for name in range(NAMES)]
        yield lambda client, points=points: client.log_points(run, points)
    yield lambda client: client.log_params(run, {"p": "x" * 6000})
    yield lambda client: client.set_tag(run, "t", "y" * 1001)
    yield lambda client: client.end(run)


@pytest.mark.fault("1")
@pytest.mark.parametrize("kind", PLACES)
def test_killed_around_overflow(
    kind: str, emulator: EmulatorProcess, nursery: Nursery, make_database: MakeDatabase, tmp_path: Path
) -> None:
    """`kill -9` at every step from the decision to the delivered file: each value ends in one place."""
    script = tmp_path / "failpoints"
    url = make_database(kind)
    with deliver_to(
        emulator,
        tmp_path / "data",
        nursery,
        MLPROXY_DATABASE_URL=url,
        MLPROXY_TEST_FAILPOINTS=f"@{script}",
        MLPROXY_SETTLE_SECONDS=0.2,
    ) as server:
        crashing = CrashingServer(server, script, url if kind == "postgres" else None)
        experiment = crashing.client.create_experiment(f"killed around overflow {kind}")
        for place in PLACES[kind]:
            run = crashing.client.create_run(experiment, place)
            drain_all(server)
            lives = crashing.lives
            name, _, count = place.partition("@")
            crashing.arm(f"{name}=kill@{count or 1}")
            for operation in too_much_for(run):
                crashing.survive(operation)
            if crashing.lives == lives:
                crashing.die_while_draining()
                crashing.revive()
            drain_all(server)
            lines = assert_nothing_lost(emulator, run)
            assert len(lines) == 3 * 10 + 1, place
            assert run_of(emulator, run.run_id).tags[OVERFLOW_TAG] == str(len(lines))
            assert is_equal(server, run)


def test_a_restored_backup_puts_nothing_into_two_places(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """What went into files after the backup is found there; what overflows anew is added to them."""
    with deliver_to(emulator, tmp_path / "first", nursery) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("restored"), "restored")
        drain_all(server)
        emulator.stop()
        log_too_much(client, run, steps=2)
        backup = server.cli("backup", str(tmp_path / "backup.tar"))
        assert backup.returncode == 0, backup.stderr
        emulator.restart()
        drain_all(server)
        client.log_points(run, [(f"m{name}", 0.5, 50) for name in range(NAMES)])
        drain_all(server)
        assert_nothing_lost(emulator, run)
    restored = ServerProcess.prepare(
        tmp_path / "second",
        nursery=nursery,
        MLPROXY_WORKSPACE=emulator.tracking_uri,
        MLPROXY_CREDENTIAL="managed-identity",
        MLPROXY_SETTLE_SECONDS=0.5,
        **emulator.environment(),
    )
    done = restored.cli("restore", str(tmp_path / "backup.tar"))
    assert done.returncode == 0, done.stderr
    with restored:
        restored.launch()
        client = Tracking(restored.url)
        drain_all(restored)
        assert_nothing_lost(emulator, run)
        client.log_points(run, [(f"m{name}", 0.5, 60) for name in range(NAMES)])
        client.end(run)
        drain_all(restored)
        assert_nothing_lost(emulator, run, files_in_order=False)  # file 1 was added to, after file 2


def test_a_client_cannot_write_where_the_files_go(
    server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """The folder `mlproxy` of a run is the proxy's own."""
    run = client.create_run(experiment, "intruder")
    answer = httpx.put(
        f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{run.artifact_root}/mlproxy/overflow-1.jsonl",
        content=b"{}",
        trust_env=False,
    )
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"


def test_a_stock_client_logs_too_much(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, tmp_path: Path
) -> None:
    """A stock client logs as autologging does, reads it all back, and notices nothing."""
    python = client_python("mlflow3")
    run_client(
        python, "overflowing.py", str(tmp_path / "run"), folder=tmp_path, MLFLOW_TRACKING_URI=server.url
    )
    run_id = (tmp_path / "run").read_text()
    drain(server)
    assert client.run_status(run_id)["parked"] == 0
    held = run_of(emulator, run_id)
    lines = [line for content in overflow_files(emulator, held).values() for line in content]
    assert len([line for line in lines if line["kind"] == "param"]) == 250 - PARAMS
    assert {line["key"] for line in lines if line["kind"] == "metric"} == {
        f"feature_{i}" for i in range(48, 70)
    }
    assert held.status == "FINISHED"
    assert held.ended_last
    verified = server.cli("verify", run_id)
    assert verified.returncode == 0, verified.stdout
