"""The workspace's addresses of run artifacts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.upstream.failures import UpstreamFailure
from server.upstream.uris import parse_run_artifact, run_artifact_source

WS = "/subscriptions/s/resourceGroups/r/providers/Microsoft.MachineLearningServices/workspaces/w"


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        (f"azureml://h.ms/mlflow/v2.0{WS}/experiments/e-1/runs/run-1/artifacts", ("run-1", "")),
        (
            f"azureml://h.ms/mlflow/v1.0{WS}/experiments/e-1/runs/run-1/artifacts/m/MLmodel",
            ("run-1", "m/MLmodel"),
        ),
        (f"azureml://localhost:9443/mlflow/v2.0{WS}/experiments/e/runs/r_1/artifacts/a?x=1", ("r_1", "a")),
        (
            f"azureml://h.ms/mlflow/v2.0{WS}/experiments/e/runs/r1/artifacts/experiments/x/runs/y/artifacts/z",
            ("r1", "experiments/x/runs/y/artifacts/z"),
        ),
        (f"azureml://h.ms/mlflow/v2.0{WS}/experiments/e/runs/r1", ("r1", "")),
        ("azureml://experiments/name/runs/run-1/artifacts", ("run-1", "")),
        ("azureml://experiments/name/runs/run-1/artifacts/a/b", ("run-1", "a/b")),
        ("azureml://artifacts/ExperimentRun/dcid.run-1/model", ("run-1", "model")),
        ("azureml://artifacts/ExperimentRun/dcid.run-1", ("run-1", "")),
        ("azureml://jobs/bold_star_x/outputs/artifacts/paths/model/", ("bold_star_x", "model")),
        ("azureml://jobs/bold_star_x/outputs/artifacts/model", ("bold_star_x", "model")),
        (
            f"azureml:/{WS}/datastores/workspaceartifactstore/paths/ExperimentRun/dcid.run-1/m",
            ("run-1", "m"),
        ),
        ("azureml://artifacts/LocalUpload/260101T000000-ab12cd34/model", None),
        (f"azureml:/{WS}/datastores/workspaceblobstore/paths/x", None),
        ("azureml://h/mlflow/v2.0/registries/r/models/m/versions/1/storage/a/paths/c/p", None),
        ("mlflow-artifacts:/1/abc/artifacts", None),
        ("https://h/experiments/e/runs/r/artifacts", None),
        ("", None),
    ],
)
def test_every_form_of_a_run_artifact_is_understood(uri: str, found: tuple[str, str] | None) -> None:
    """All the forms that the workspace writes lead to run and path; anything else leads nowhere."""
    assert parse_run_artifact(uri) == found


@given(
    run_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,40}", fullmatch=True),
    path=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\?"), min_size=1),
        min_size=1,
    ).filter(lambda parts: not {".", ".."} & set(parts)),
)
def test_a_source_we_make_is_read_back(run_id: str, path: list[str]) -> None:
    """Making an address and reading it gives the same run and path."""
    joined = "/".join(path)
    assert parse_run_artifact(run_artifact_source(run_id, joined)) == (run_id, joined)


@pytest.mark.parametrize(
    ("run_id", "path"),
    [
        ("r", "../x"),
        ("r", "/x"),
        ("r", "a//b"),
        ("r", "a\\b"),
        ("r", "a/./b"),
        ("r", "a\0"),
        ("..", "a"),
        ("r/x", "a"),
    ],
)
def test_a_path_that_leaves_its_run_is_refused(run_id: str, path: str) -> None:
    """No address is made of something that would mean another place."""
    with pytest.raises(UpstreamFailure):
        run_artifact_source(run_id, path)
