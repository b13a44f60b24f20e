"""Features of MLflow's library, each used by an unmodified client that has no Azure package at all."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conformance.conftest import DRAIN_SECONDS
from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, run_client
from tests.support.server import ServerProcess
from tests.support.workspace import WorkspaceRun, point, run_of

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Features:
    """What came of every feature with one client, delivered."""

    major: str
    record: Record
    server: ServerProcess
    emulator: EmulatorProcess

    def of(self, name: str) -> Record:
        """What the client noted of one feature, which must have worked."""
        facts = dict(self.record[name])
        assert "raised" not in facts, facts["raised"]
        return facts

    def run(self, name: str) -> WorkspaceRun:
        """The feature's run in the workspace."""
        return run_of(self.emulator, self.of(name)["run_id"])


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    """A key for everyone here."""
    created = server.cli("keys", "create", "features")
    assert created.returncode == 0, created.stderr
    server.api_key = created.stdout.splitlines()[-1]
    return server.api_key


@pytest.fixture(scope="module", params=["mlflow3", "mlflow2"])
def features(
    request: pytest.FixtureRequest,
    server: ServerProcess,
    emulator: EmulatorProcess,
    key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Features:
    """All features, used by one client and delivered."""
    folder = tmp_path_factory.mktemp(request.param)
    record_file = folder / "record.json"
    run_client(
        client_python(request.param),
        "features.py",
        str(record_file),
        folder=folder,
        MLFLOW_TRACKING_URI=server.url,
        MLFLOW_TRACKING_TOKEN=key,
    )
    drained = server.cli("drain", "--timeout", str(DRAIN_SECONDS))
    assert drained.returncode == 0, drained.stdout + drained.stderr
    return Features(request.param[-1], json.loads(record_file.read_text()), server, emulator)


def test_the_client_has_no_azure_package(features: Features) -> None:
    """Everything here worked in an environment without any Azure package."""
    foreign = ("azure", "msal", "msrest")
    assert [name for name in features.record["packages"] if name.startswith(foreign)] == []


def test_nothing_is_parked(features: Features) -> None:
    """The workspace takes all that the features log."""
    assert features.server.status()["parked"] == 0


def test_sklearn_models_load_by_every_address(features: Features) -> None:
    """`runs:/`, `models:/name/1`, `models:/name@alias` and the model's own address give the same model."""
    model = features.of("sklearn_model")
    assert len(model["pyfunc"]) == len(model["native"]) == (4 if features.major == "3" else 3)
    answers = [*model["pyfunc"].values(), *model["native"].values()]
    assert answers == [model["expected"]] * len(answers)
    assert any(uri.startswith("models:/m-") for uri in model["pyfunc"]) == (features.major == "3")


def test_sklearn_model_arrives(features: Features) -> None:
    """The model's files, its input example included, are in the workspace, and its version of them."""
    model, run = features.of("sklearn_model"), features.run("sklearn_model")
    assert run.files == {f"model/{path}": digest for path, digest in model["files"].items()}
    assert {"model/MLmodel", "model/input_example.json"} <= set(run.files)
    assert _sources(features, f"{features.major}-sklearn") == [f"dcid.{run.run_id}/model"]


def test_pyfunc_models_load_with_their_artifacts(features: Features) -> None:
    """A model of one's own comes back with the file that it was logged with."""
    model = features.of("pyfunc_model")
    assert list(model["pyfunc"].values()) == [model["expected"]] * 3


def test_pyfunc_model_arrives(features: Features) -> None:
    """Its files are in the workspace, the one that was given to it among them."""
    model, run = features.of("pyfunc_model"), features.run("pyfunc_model")
    folder = "own model" if features.major == "3" else "nested/model"
    assert run.files == {f"{folder}/{path}": digest for path, digest in model["files"].items()}
    assert f"{folder}/artifacts/offset.txt" in run.files
    assert _sources(features, f"{features.major}-pyfunc") == [f"dcid.{run.run_id}/{folder}"]


def test_autologging_arrives(features: Features) -> None:
    """What scikit-learn logs by itself is in the workspace, each metric once, with its model."""
    logged, run = features.of("autologging"), features.run("autologging")
    assert run.params == logged["params"]
    assert run.params["C"] == "0.5"
    assert {key: value for key, _, _, value in run.points_in_order} == logged["metrics"]
    assert len(run.points_in_order) == len(logged["metrics"]) > 3
    assert {"model/MLmodel", "estimator.html"} <= set(run.files)
    assert logged["predicts"] == [0, 0, 1, 1]


def test_evaluation_arrives(features: Features) -> None:
    """The metrics and pictures of an evaluation are in the workspace, and are what the client was told."""
    evaluated, run = features.of("evaluation"), features.run("evaluation")
    assert {key: value for key, _, _, value in run.points_in_order} == evaluated["stored"]
    assert evaluated["stored"] == evaluated["metrics"]
    assert float(evaluated["metrics"]["accuracy_score"]) == 1.0
    assert run.files == evaluated["files"]
    assert any(path.endswith(".png") for path in run.files)


def test_images_tables_and_figures_arrive(features: Features) -> None:
    """What `log_image`, `log_table`, `log_figure`, `log_dict` and `log_text` write reads back and arrives."""
    logged, run = features.of("images_tables_figures"), features.run("images_tables_figures")
    assert logged["table"] == [["q", "a"], ["r", "b"]]
    assert (logged["settings"], logged["text"]) == ({"a": [1, None], "ü": "x"}, "text")
    assert logged["size"] == [4, 4]
    assert run.files == logged["files"]
    assert {"picture.png", "table.json", "plots/curve.png", "settings.json", "notes.md"} <= set(run.files)
    steps = [path for path in run.files if path.startswith("images/training")]
    assert len(steps) == 2 * 3  # a picture and a small one for each of three steps


def test_system_metrics_arrive(features: Features) -> None:
    """What MLflow's thread measures of the machine is in the workspace, each point once."""
    measured = features.of("system_metrics")
    if "absent" in measured:
        pytest.skip(f"the client's environment has no {measured['absent']}")
    assert any(key == "system/cpu_utilization_percentage" for key, *_ in measured["points"])
    assert features.run("system_metrics").points == Counter(point(*logged) for logged in measured["points"])


def test_traces_are_kept_here(features: Features) -> None:
    """A traced function's spans read back, its run arrives, and no trace goes to the workspace."""
    traced = features.of("tracing")
    if "absent" in traced:
        pytest.skip(f"the client's environment has no {traced['absent']}")
    run = features.run("tracing")
    assert traced["spans"] == ["inner", "outer"]
    assert (traced["inputs"], traced["outputs"]) == ({"x": 3}, traced["said"])
    assert (run.status, run.files) == ("FINISHED", {})
    assert not any("trace" in call["path"].lower() for call in features.emulator.calls())


def _sources(features: Features, name: str) -> list[str]:
    """Where the versions of a registered model come from in the workspace."""
    [model] = [held for held in features.emulator.registered_models() if held["name"] == name]
    return [held["source"].removeprefix("azureml://artifacts/ExperimentRun/") for held in model["versions"]]
