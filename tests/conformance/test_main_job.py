"""Unmodified MLflow clients, two versions, against the proxy; then the workspace, point by point."""

from collections import Counter

from tests.conformance.conftest import MainJob
from tests.support.workspace import PARENT_TAG, WorkspaceRun, point, run_of, runs_of

USER_TAG = "mlproxy.user"
SET_BY_CLIENT = ("mlflow.user", "mlflow.source.", "mlflow.runName", "mlflow.log-model.history")


def test_the_client_has_no_azure_package(main_job: MainJob) -> None:
    """The training ran in an environment that holds no Azure package at all."""
    foreign = [name for name in main_job.record["packages"] if name.startswith(("azure", "msal", "msrest"))]
    assert foreign == []
    assert "mlflow" in main_job.record["packages"]


def test_run_ids_are_the_clients(main_job: MainJob) -> None:
    """Every run is in the workspace once, under the id that the client was given, and no other is."""
    held = Counter(run.run_id for run in runs_of(main_job.emulator, main_job.record["experiment"]))
    ours = {run["run_id"] for run in main_job.runs}
    assert {run_id: held[run_id] for run_id in ours} == dict.fromkeys(ours, 1)
    assert len(main_job.runs) == 4
    assert len(held) % 4 == 0


def test_points_arrive_once_and_in_order(main_job: MainJob) -> None:
    """Every point is there with its step, timestamp and value, exactly once, in the order of logging."""
    for run in main_job.runs:
        logged = [point(*logged_point) for logged_point in run["points"]]
        assert _workspace(main_job, run).points_in_order == logged


def test_params_arrive(main_job: MainJob) -> None:
    """The workspace holds exactly the params that were logged."""
    for run in main_job.runs:
        assert _workspace(main_job, run).params == run["params"]


def test_final_tags_arrive(main_job: MainJob) -> None:
    """The last value of every tag that was set, none that was deleted, and whose key made the run."""
    for run in main_job.runs:
        tags = _workspace(main_job, run).tags
        own = {
            key: value
            for key, value in tags.items()
            if not key.startswith(SET_BY_CLIENT) and key != PARENT_TAG
        }
        assert own == {**run["tags"], USER_TAG: main_job.key_name}
        assert tags["mlflow.runName"] == run["name"]
        assert not set(run["deleted_tags"]) & set(tags)


def test_status_and_times_arrive(main_job: MainJob) -> None:
    """Status, start and end of every run are the client's."""
    for run in main_job.runs:
        held = _workspace(main_job, run).document
        assert (held["status"], held["start_time"], held["end_time"]) == (
            run["status"],
            run["start_time"],
            run["end_time"],
        )
        assert main_job.record["started_ms"] <= held["start_time"] <= held["end_time"]
        assert held["end_time"] <= main_job.record["ended_ms"]


def test_terminal_status_comes_last(main_job: MainJob) -> None:
    """A run is ended in the workspace after everything else of it has arrived."""
    assert [_workspace(main_job, run).ended_last for run in main_job.runs] == [True] * len(main_job.runs)


def test_children_are_nested(main_job: MainJob) -> None:
    """Nested runs are children of the same parent in the workspace."""
    parent = main_job.record["runs"][0]
    for child in parent["children"]:
        assert _workspace(main_job, child).document["parent_run_id"] == parent["run_id"]


def test_artifacts_arrive_by_hash(main_job: MainJob) -> None:
    """Every file, those of the model included, has its bytes in the workspace, and there is no other file."""
    for run in main_job.runs:
        model = run.get("model", {"files": {}})
        files = run["files"] | {f"model/{path}": digest for path, digest in model["files"].items()}
        assert _workspace(main_job, run).files == files


def test_registered_version_arrives(main_job: MainJob) -> None:
    """The registered version is in the workspace, made from the run's model folder there."""
    parent = main_job.record["runs"][0]
    name, version = parent["model"]["name"], parent["model"]["version"]
    versions = [
        held
        for model in main_job.emulator.registered_models()
        if model["name"] == name
        for held in model["versions"]
        if held["run_id"] == parent["run_id"]
    ]
    assert [(held["version"], held["source"]) for held in versions] == [
        (version, f"azureml://artifacts/ExperimentRun/dcid.{parent['run_id']}/model")
    ]


def test_verify_says_equal(main_job: MainJob) -> None:
    """`verify` finds every run the same on both sides."""
    for run in main_job.runs:
        verified = main_job.server.cli("verify", run["run_id"])
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert "is the same in the workspace" in verified.stdout


def _workspace(main_job: MainJob, run: dict[str, object]) -> WorkspaceRun:
    return run_of(main_job.emulator, str(run["run_id"]))
