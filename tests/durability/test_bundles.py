"""Experiments travel between servers as a file: whole, once, and delivered where they arrive."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.durability.conftest import drain_all
from tests.durability.tracking import LoggedRun, Tracking, train
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import run_of

BIG_FILE = bytes(range(256)) * 1024


class Sites:
    """Servers on empty databases of one kind."""

    def __init__(
        self, kind: str, folder: Path, make_database: Callable[[str], str], nursery: Nursery, stack: ExitStack
    ) -> None:
        self._kind = kind
        self._folder = folder
        self._make_database = make_database
        self._nursery = nursery
        self._stack = stack

    def start(self, name: str, **settings: object) -> tuple[ServerProcess, Tracking]:
        """One more server, and a client of it."""
        if self._kind == "postgres":
            settings["MLPROXY_DATABASE_URL"] = self._make_database("postgres")
        server = ServerProcess.start(self._folder / name, nursery=self._nursery, **settings)
        self._stack.enter_context(server)
        client = Tracking(server.url)
        self._stack.callback(client.close)
        return server, client

    def start_delivering(
        self, name: str, emulator: EmulatorProcess, **settings: object
    ) -> tuple[ServerProcess, Tracking]:
        """One more server that delivers to the workspace."""
        return self.start(
            name,
            **{
                "MLPROXY_WORKSPACE": emulator.tracking_uri,
                "MLPROXY_CREDENTIAL": "managed-identity",
                "MLPROXY_SETTLE_SECONDS": 0.5,
                "MLPROXY_MARKER_SETTLE_SECONDS": 0.6,
                **emulator.environment(),
                **settings,
            },
        )


@pytest.fixture(params=["sqlite", "postgres"])
def sites(
    request: pytest.FixtureRequest, make_database: Callable[[str], str], nursery: Nursery, tmp_path: Path
) -> Iterator[Sites]:
    """Servers on each database."""
    with ExitStack() as stack:
        yield Sites(request.param, tmp_path, make_database, nursery, stack)


def export(server: ServerProcess, file: Path, *experiments: str) -> None:
    """`mlproxy export`."""
    done = server.cli("export", *experiments, "--output", str(file))
    assert done.returncode == 0, done.stderr


def history(client: Tracking, run: LoggedRun, key: str) -> list[Any]:
    """All points of a metric."""
    found = client.get("metrics/get-history", run_id=run.run_id, metric_key=key)
    return list(found["metrics"])


def shown(client: Tracking, run: LoggedRun) -> Any:
    """A run as clients see it, but for the id of its experiment here; metrics, params and tags by name."""
    text = json.dumps(client.get("runs/get", run_id=run.run_id)["run"])
    experiment_id = json.loads(text)["info"]["experiment_id"]
    found = json.loads(
        text.replace(f'"experiment_id": "{experiment_id}"', '"experiment_id": ""').replace(
            f"mlflow-artifacts:/{experiment_id}/", "mlflow-artifacts:/"
        )
    )
    for items in found["data"].values():
        items.sort(key=lambda item: item["key"])
    return found


def assert_arrived(emulator: EmulatorProcess, run: LoggedRun) -> None:
    """The workspace has all of the run, each thing once, and its end last."""
    held = run_of(emulator, run.run_id)
    assert held.points == Counter(run.points)
    assert (held.params, held.files, held.status) == (run.params, run.files, run.status)
    assert {key: held.tags.get(key) for key in run.tags} == run.tags
    assert held.ended_last


def log_everything(client: Tracking, experiment_id: str) -> LoggedRun:
    """A run with each kind of thing a bundle holds, not only what `train` logs."""
    run = train(client, experiment_id, "everything")
    odd = [
        {"key": "odd", "value": value, "timestamp": 5, "step": step}
        for step, value in ((-3, "NaN"), (0, "Infinity"), (0, "NaN"), (2**40, 1e-320))
    ]
    client.post("runs/log-batch", {"run_id": run.run_id, "metrics": odd})
    dataset = {"name": "wine", "digest": "d1", "source_type": "local", "source": "here", "schema": "{}"}
    used = {"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "train"}]}
    client.post("runs/log-inputs", {"run_id": run.run_id, "datasets": [used]})
    made = client.post(
        "logged-models",
        {
            "experiment_id": experiment_id,
            "name": "net",
            "source_run_id": run.run_id,
            "params": [{"key": "layers", "value": "2"}],
            "tags": [{"key": "stage", "value": "draft"}],
        },
    )
    model_id = made["model"]["info"]["model_id"]
    body = {"run_id": run.run_id, "models": [{"model_id": model_id, "step": 4}]}
    client.post("runs/outputs", body)
    scored = {"run_id": run.run_id, "key": "score", "value": 0.5, "timestamp": 1, "step": 0}
    client.post("runs/log-metric", {**scored, "model_id": model_id})
    run.tags["model"] = model_id
    client.post("runs/set-tag", {"run_id": run.run_id, "key": "model", "value": model_id})
    return run


def test_what_is_imported_reads_as_it_was(sites: Sites, tmp_path: Path) -> None:
    """Ids, names, times, points, params, tags, datasets, models and files are the same on both servers."""
    source, here = sites.start("source")
    target, there = sites.start("target")
    there.create_experiment("takes the next id")
    experiment_id = here.create_experiment("travels")
    run = log_everything(here, experiment_id)
    child = here.create_child(experiment_id, "child", run)
    gone = here.create_run(experiment_id, "deleted")
    here.post("runs/delete", {"run_id": gone.run_id})
    export(source, tmp_path / "bundle.tar.gz", "travels")
    done = target.cli("import", str(tmp_path / "bundle.tar.gz"))
    assert done.returncode == 0, done.stderr
    for one in (run, child):
        assert shown(there, one) == shown(here, one)
    for key in ("loss", "odd", "score"):
        assert history(there, run, key) == history(here, run, key)
    moved = LoggedRun(run.run_id, shown_root(there, run), run.name)
    assert there.download(moved, "model/weights.bin") == BIG_FILE
    was, now = (client.get(f"logged-models/{run.tags['model']}")["model"] for client in (here, there))
    assert now["data"] == was["data"]
    for name in ("creation_timestamp_ms", "status", "source_run_id", "tags", "name"):
        assert now["info"].get(name) == was["info"].get(name)
    assert there.try_post("runs/delete", {"run_id": gone.run_id}).status_code == 404


def shown_root(client: Tracking, run: LoggedRun) -> str:
    """The path of a run's files on a server."""
    uri = client.get("runs/get", run_id=run.run_id)["run"]["info"]["artifact_uri"]
    return str(uri.partition(":")[2].strip("/"))


@pytest.mark.parametrize("point", ["import.applied=kill@3", "spool.flushed=kill@2"])
def test_an_import_that_is_killed_goes_on(
    point: str, sites: Sites, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    """After kill -9 in the middle, and twice more, the workspace has everything once."""
    source, here = sites.start("source")
    name = f"killed-{tmp_path.name}"
    experiment_id = here.create_experiment(name)
    runs = [train(here, experiment_id, f"run-{number}", steps=3) for number in range(3)]
    export(source, tmp_path / "bundle.tar", name)
    target, _ = sites.start_delivering("target", emulator, MLPROXY_TEST_FAILPOINTS=point)
    cut = target.cli("import", str(tmp_path / "bundle.tar"))
    assert cut.returncode != 0
    target.restart(MLPROXY_TEST_FAILPOINTS="")
    assert "Imported" in target.cli("import", str(tmp_path / "bundle.tar")).stdout
    drain_all(target)
    for run in runs:
        assert_arrived(emulator, run)
    pending = target.status()["pending"]
    assert "imported before" in target.cli("import", str(tmp_path / "bundle.tar")).stdout
    export(source, tmp_path / "again.tar", name)
    assert "Imported" in target.cli("import", str(tmp_path / "again.tar")).stdout
    assert target.status()["pending"] == pending == 0
    for run in runs:
        assert_arrived(emulator, run)


def test_a_stopped_server_takes_a_bundle_in_too(sites: Sites, tmp_path: Path) -> None:
    """With no server running, both commands work on the database itself."""
    source, here = sites.start("source")
    run = train(here, here.create_experiment("offline"), "one")
    source.stop()
    export(source, tmp_path / "bundle.tar", "offline")
    target, there = sites.start("target")
    target.stop()
    done = target.cli("import", str(tmp_path / "bundle.tar"))
    assert done.returncode == 0, done.stderr
    target.launch()
    assert there.get("runs/get", run_id=run.run_id)["run"]["info"]["run_name"] == "one"


def test_a_deleted_experiment_of_that_name_refuses_the_bundle(sites: Sites, tmp_path: Path) -> None:
    """Nothing is put into what was deleted."""
    server, client = sites.start("one")
    experiment_id = client.create_experiment("deleted here")
    export(server, tmp_path / "bundle.tar", "deleted here")
    client.post("experiments/delete", {"experiment_id": experiment_id})
    done = server.cli("import", str(tmp_path / "bundle.tar"))
    assert done.returncode == 1
    assert "is deleted here" in done.stderr
