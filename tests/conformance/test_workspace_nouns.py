"""Noun by noun: what stock clients did is in the workspace as it should be, or stays here on purpose."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.conformance.conftest import DRAIN_SECONDS
from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, run_client
from tests.support.server import ServerProcess
from tests.support.workspace import WorkspaceRun, point, run_of

VERSION_MARKER = "mlproxy.version_uid"
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Nouns:
    """What one client did, delivered; and both servers."""

    major: str
    record: Record
    server: ServerProcess
    emulator: EmulatorProcess
    http: httpx.Client

    def run(self, run_id: str) -> WorkspaceRun:
        return run_of(self.emulator, run_id)

    def experiment(self, name: str) -> Record:
        """The experiment in the workspace."""
        [found] = [held for held in self.emulator.experiments() if held["name"] == name]
        return dict(found)

    def model(self, name: str) -> Record:
        """The registered model in the workspace, with `tags` as a dictionary."""
        [found] = [held for held in self.emulator.registered_models() if held["name"] == name]
        return {**found, "tags": _tags(found)}

    def versions(self, name: str) -> dict[str, Record]:
        """The model's versions in the workspace by number, their tags without the proxy's marker."""
        return {held["version"]: {**held, "tags": _tags(held)} for held in self.model(name)["versions"]}

    def get(self, path: str) -> Record:
        """An answer of the proxy."""
        return dict(self.http.get(f"/api/2.0/{path}").raise_for_status().json())

    def post(self, path: str, **fields: Any) -> Record:
        return dict(self.http.post(f"/api/2.0/mlflow/{path}", json=fields).raise_for_status().json())

    def drain(self) -> None:
        """Wait until everything is in the workspace."""
        left = self.http.post("/api/2.0/mlproxy/drain", json={"timeout_seconds": DRAIN_SECONDS})
        assert left.json() == {"pending": 0, "uncertain": 0, "parked": 0}


def _tags(held: Record) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in held["tags"] if tag["key"] != VERSION_MARKER}


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    """A key for everyone here."""
    created = server.cli("keys", "create", "nouns", "--role", "admin")
    assert created.returncode == 0, created.stderr
    server.api_key = created.stdout.splitlines()[-1]
    return server.api_key


@pytest.fixture(scope="module", params=["mlflow3", "mlflow2"])
def nouns(
    request: pytest.FixtureRequest,
    server: ServerProcess,
    emulator: EmulatorProcess,
    key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Nouns]:
    """All nouns, done by one client and delivered."""
    folder = tmp_path_factory.mktemp(request.param)
    record_file = folder / "record.json"
    run_client(
        client_python(request.param),
        "nouns.py",
        str(record_file),
        folder=folder,
        MLFLOW_TRACKING_URI=server.url,
        MLFLOW_TRACKING_TOKEN=key,
    )
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(
        base_url=server.url, headers=headers, trust_env=False, timeout=2 * DRAIN_SECONDS
    ) as http:
        done = Nouns(request.param[-1], json.loads(record_file.read_text()), server, emulator, http)
        done.drain()
        yield done


def test_nothing_is_parked(nouns: Nouns) -> None:
    """The workspace takes everything that it is sent, and nothing is left to send."""
    status = nouns.server.status()
    assert {name: status[name] for name in ("pending", "uncertain", "parked", "overflow")} == dict.fromkeys(
        ("pending", "uncertain", "parked", "overflow"), 0
    )


# --- experiments ---


def test_experiment_keeps_its_name_there(nouns: Nouns) -> None:
    """A renamed experiment stays under its first name, with its last tags; a namesake gets another."""
    kept = nouns.experiment(f"{nouns.major} kept name")
    assert (kept["lifecycle_stage"], kept["tags"]) == ("active", {"team": "vision", "stage": "last"})
    assert nouns.experiment(f"{nouns.major} kept name-2")["lifecycle_stage"] == "active"
    assert f"{nouns.major} new name" not in [held["name"] for held in nouns.emulator.experiments()]


def test_experiment_is_deleted_and_restored(nouns: Nouns) -> None:
    """A deleted experiment is deleted there; a restored one is active, and so is its run."""
    assert nouns.experiment(f"{nouns.major} deleted")["lifecycle_stage"] == "deleted"
    assert nouns.experiment(f"{nouns.major} restored")["lifecycle_stage"] == "active"
    run = nouns.run(nouns.record["experiments"]["run of restored"])
    assert (run.document["lifecycle_stage"], run.status) == ("active", "FINISHED")


def test_experiment_in_a_folder_can_be_found(nouns: Nouns) -> None:
    """A name with slashes, which the workspace cannot find again, is delivered as a readable name."""
    names = [held["name"] for held in nouns.emulator.experiments()]
    assert [name for name in names if "/" in name] == []
    assert [name for name in names if name.startswith("folder-")] != []


# --- runs ---


def test_run_ends_as_it_ended(nouns: Nouns) -> None:
    """Status and name of a run are the client's; one that goes on goes on there."""
    runs = nouns.record["runs"]
    held = {status: nouns.run(run_id) for status, run_id in runs["ended"].items()}
    assert [run.status for run in held.values()] == list(held)
    assert [run.document["name"] for run in held.values()] == [f"ends {status}" for status in held]
    assert {run.tags["mlflow.note.content"] for run in held.values()} == {"said at the start"}
    going_on = nouns.run(runs["running"])
    assert (going_on.status, going_on.document["end_time"]) == ("RUNNING", None)


def test_run_is_nested(nouns: Nouns) -> None:
    """Runs are nested as deeply there as here."""
    outer, middle, inner = (nouns.run(nouns.record["runs"][name]) for name in ("outer", "middle", "inner"))
    assert [run.document["parent_run_id"] for run in (outer, middle, inner)] == [
        None,
        outer.run_id,
        middle.run_id,
    ]
    assert inner.document["root_run_id"] == outer.run_id


def test_run_is_deleted_and_restored(nouns: Nouns) -> None:
    """A deleted run is deleted there with all it holds; a restored one is active."""
    deleted, restored = (nouns.run(nouns.record["runs"][name]) for name in ("deleted", "restored"))
    stages = [run.document["lifecycle_stage"] for run in (deleted, restored)]
    assert stages == ["deleted", "active"]
    assert deleted.params == restored.params == {"kept": "yes"}


def test_run_is_resumed(nouns: Nouns) -> None:
    """A run that was resumed after its end holds both parts once and ends at its last end."""
    run = nouns.run(nouns.record["runs"]["resumed"])
    assert [(key, step) for key, step, _, _ in run.points_in_order] == [("loss", 0), ("loss", 1)]
    assert (run.status, run.document["end_time"]) == ("FINISHED", nouns.record["runs"]["resumed end"])
    assert run.document["name"] == run.tags["mlflow.runName"] == "resumed and renamed"


# --- what is logged ---


def test_params_arrive(nouns: Nouns) -> None:
    """Every param is there, odd names and long values included."""
    params = nouns.record["params"]
    assert nouns.run(params["run_id"]).params == params["expected"]


def test_metrics_arrive_once(nouns: Nouns) -> None:
    """Every point is there once, NaN and infinities included; the same point logged twice is one."""
    metrics = nouns.record["metrics"]
    assert nouns.run(metrics["run_id"]).points_in_order == [point(*logged) for logged in metrics["expected"]]


def test_metrics_of_models_arrive_once(nouns: Nouns) -> None:
    """What MLflow 3 sends again, as metrics of a model or of a dataset, is not delivered twice."""
    metrics = nouns.record["metrics"]
    expected = Counter(point(*logged) for logged in metrics["expected of model run"])
    assert nouns.run(metrics["model run"]).points == expected


def test_tags_arrive(nouns: Nouns) -> None:
    """Every tag has its last value, and one that was deleted is gone."""
    tags = nouns.record["tags"]
    held = nouns.run(tags["run_id"]).tags
    assert {key: held.get(key) for key in tags["expected"]} == tags["expected"]
    assert not set(tags["deleted"]) & set(held)


def test_artifacts_arrive(nouns: Nouns) -> None:
    """Files have their last bytes, empty ones too; those deleted, alone or with their folder, are gone."""
    artifacts = nouns.record["artifacts"]
    assert nouns.run(artifacts["run_id"]).files == artifacts["expected"]


def test_artifacts_follow_what_is_there_already(nouns: Nouns) -> None:
    """A file that the workspace has is replaced there, or deleted, when it is replaced or deleted here."""
    experiment = nouns.post("experiments/create", name=f"{nouns.major} files")["experiment_id"]
    info = nouns.post("runs/create", experiment_id=experiment)["run"]["info"]
    folder = f"/api/2.0/{info['artifact_uri'].replace('mlflow-artifacts:', 'mlflow-artifacts/artifacts')}"
    for path in ("replaced.txt", "deleted.txt", "folder/deleted.txt"):
        assert nouns.http.put(f"{folder}/{path}", content=b"first").status_code == 200
    nouns.drain()
    assert len(nouns.run(info["run_id"]).files) == 3
    assert nouns.http.put(f"{folder}/replaced.txt", content=b"last").status_code == 200
    for path in ("deleted.txt", "folder"):
        assert nouns.http.delete(f"{folder}/{path}").status_code == 200
    nouns.drain()
    assert nouns.run(info["run_id"]).files == {"replaced.txt": hashlib.sha256(b"last").hexdigest()}


# --- registry ---


def test_registered_model_arrives(nouns: Nouns) -> None:
    """A registered model has its last description and tags."""
    expected = nouns.record["registered_models"]
    held = nouns.model(expected["name"])
    assert (held["description"], held["tags"]) == (expected["description"], expected["tags"])


def test_registered_model_of_an_odd_name(nouns: Nouns) -> None:
    """A name that the workspace does not take is delivered as another, which the proxy tells."""
    status = nouns.get(f"mlproxy/models/{nouns.record['registered_models']['odd']}")
    assert status["upstream_name"] != status["name"]
    assert nouns.model(status["upstream_name"])["versions"] == []


def test_model_versions_come_from_the_runs_folder(nouns: Nouns) -> None:
    """Whether from `runs:/` or from a logged model, a version is made of the run's files there."""
    expected = nouns.record["model_versions"]
    held = nouns.versions(expected["name"])
    assert {number: version["source"] for number, version in held.items()} == {
        number: f"azureml://artifacts/ExperimentRun/dcid.{expected['run_id']}/{folder}"
        for number, folder in expected["folders"].items()
    }
    assert {version["run_id"] for version in held.values()} == {expected["run_id"]}
    files = nouns.run(expected["run_id"]).files
    assert {f"{folder}/MLmodel" for folder in expected["folders"].values()} <= set(files)


def test_model_versions_have_their_stage_description_and_tags(nouns: Nouns) -> None:
    """Stages, with those that were archived on the way, description and tags; a deleted version is gone."""
    expected = nouns.record["model_versions"]
    held = nouns.versions(expected["name"])
    assert {number: version["current_stage"] for number, version in held.items()} == expected["stages"]
    assert (held["1"]["description"], held["2"]["tags"]) == ("the first", {"k": "w"})


def test_copied_version_comes_from_the_same_files(nouns: Nouns) -> None:
    """A copy of a version is made of the files that the version is made of."""
    expected = nouns.record["model_versions"]
    [copy] = nouns.versions(expected["copies"]).values()
    assert copy["source"] == nouns.versions(expected["name"])["2"]["source"]
    assert copy["tags"] == {"k": "w"}


def test_version_numbers_agree(nouns: Nouns) -> None:
    """The workspace numbers a model's versions as they are numbered here, a deleted one left out."""
    expected = nouns.record["model_versions"]
    status = nouns.get(f"mlproxy/models/{expected['name']}")
    assert status["versions"] == [{"version": number, "upstream_version": number} for number in "1235"]
    assert (status["pending"], status["parked"]) == (0, 0)


def test_version_mapping_is_shown(nouns: Nouns) -> None:
    """Where a name is used again the workspace counts on, and the proxy tells which version is which."""
    name, source = f"{nouns.major}-again", {"source": "https://example.com/model"}
    nouns.post("registered-models/create", name=name)
    nouns.post("model-versions/create", name=name, **source)
    nouns.drain()
    deleted = nouns.http.request("DELETE", "/api/2.0/mlflow/registered-models/delete", json={"name": name})
    assert deleted.status_code == 200
    nouns.post("registered-models/create", name=name)
    nouns.post("model-versions/create", name=name, **source)
    nouns.drain()
    status = nouns.get(f"mlproxy/models/{name}")
    assert status["versions"] == [{"version": "1", "upstream_version": "2"}]
    assert set(nouns.versions(status["upstream_name"])) == {"1", "2"}


def test_mapping_of_an_unknown_model_is_refused(nouns: Nouns) -> None:
    """A name that is not registered answers MLflow's 404."""
    answer = nouns.http.get("/api/2.0/mlproxy/models/absent")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


# --- logged models ---


def test_logged_models_files_arrive_under_the_run(nouns: Nouns) -> None:
    """A logged model's files are in a folder of its name; a second of that name has a folder of its own."""
    if "logged_models" not in nouns.record:
        pytest.skip("logged models came with MLflow 3")
    logged = nouns.record["logged_models"]
    first, second = logged["models"]
    folders = {first: "twin", second: f"twin-{second}"}
    assert nouns.run(logged["run_id"]).files == {
        f"{folders[model_id]}/{path}": digest
        for model_id, files in logged["files"].items()
        for path, digest in files.items()
    }
    [version] = nouns.versions(f"{nouns.major}-twin").values()
    assert version["source"] == f"azureml://artifacts/ExperimentRun/dcid.{logged['run_id']}/twin-{second}"


# --- what stays here ---


def test_renames_and_deletes_of_models_stay_here(nouns: Nouns) -> None:
    """The workspace keeps a model's first name, takes what comes after the renaming, and deletes none."""
    kept = nouns.record["kept"]
    [version] = nouns.versions(kept["renamed"]).values()
    assert version["tags"] == {"after": "renaming"}
    assert nouns.get(f"mlproxy/models/{kept['renamed']}-later")["upstream_name"] == kept["renamed"]
    held = {model["name"] for model in nouns.emulator.registered_models()}
    assert f"{kept['renamed']}-later" not in held


def test_prompts_aliases_datasets_and_model_records_stay_here(nouns: Nouns) -> None:
    """No call about them ever goes to the workspace, and here they are."""
    kept = nouns.record["kept"]
    words = ("alias", "logged-models", "log-inputs", "outputs", "log-model", "rename", "datasets", "traces")
    called = {call["path"].lower() for call in nouns.emulator.calls()}
    assert [path for path in called if any(word in path for word in words)] == []
    assert not any(path.endswith("registered-models/delete") for path in called)
    assert kept["prompt"] not in [model["name"] for model in nouns.emulator.registered_models()]
    assert nouns.run(kept["run_id"]).document["inputs"] == []
    assert kept["datasets"] == ["points"]
    alias = nouns.get(f"mlflow/registered-models/alias?name={kept['renamed']}-later&alias=champion")
    assert alias["model_version"]["version"] == "1"
    assert nouns.get(f"mlflow/model-versions/get?name={kept['prompt']}&version=2")["model_version"]["tags"]
