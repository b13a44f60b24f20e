"""The demo's comparison finds what differs; otherwise its EQUAL would mean nothing."""

from collections import Counter
from dataclasses import replace

import pytest

from demo.compare import RunContent, compare_runs

POINT = ("loss", "0.5", 1_700_000_000_000, 3)
CLIENT = RunContent(
    name="choose-settings",
    status="FINISHED",
    params={"epochs": "30"},
    tags={"team": "demo"},
    points=Counter([POINT]),
    files={"report/summary.txt": "1111"},
    model_files={"MLmodel": "2222", "model.skops": "3333"},
)
WORKSPACE = replace(
    CLIENT,
    tags={"team": "demo", "mlproxy.overflow": "0"},
    files={"report/summary.txt": "1111", "model/MLmodel": "2222", "model/model.skops": "3333"},
    model_files={},
)


def differences(workspace: RunContent) -> list[str]:
    """What the table would list below its lines."""
    return [difference for row in compare_runs(CLIENT, workspace) for difference in row.differences]


def test_same_content_has_no_difference() -> None:
    """Tags that the proxy adds and the folder a model went to do not count as differences."""
    assert differences(WORKSPACE) == []


@pytest.mark.parametrize(
    "workspace",
    [
        pytest.param(replace(WORKSPACE, name="other"), id="name"),
        pytest.param(replace(WORKSPACE, status="RUNNING"), id="status"),
        pytest.param(replace(WORKSPACE, params={}), id="param missing"),
        pytest.param(replace(WORKSPACE, params={"epochs": "31"}), id="param changed"),
        pytest.param(replace(WORKSPACE, tags={}), id="tag missing"),
        pytest.param(replace(WORKSPACE, tags=WORKSPACE.tags | {"stranger": "1"}), id="tag nobody logged"),
        pytest.param(replace(WORKSPACE, points=Counter()), id="point missing"),
        pytest.param(replace(WORKSPACE, points=Counter([POINT, POINT])), id="point doubled"),
        pytest.param(
            replace(WORKSPACE, files=WORKSPACE.files | {"report/summary.txt": "9"}), id="file changed"
        ),
        pytest.param(replace(WORKSPACE, files=WORKSPACE.files | {"stray.txt": "1"}), id="file nobody logged"),
        pytest.param(replace(WORKSPACE, files=CLIENT.files), id="model files missing"),
        pytest.param(
            replace(WORKSPACE, files=WORKSPACE.files | {"model/model.skops": "9"}), id="model file changed"
        ),
    ],
)
def test_any_difference_is_found(workspace: RunContent) -> None:
    """One thing missing, changed, doubled or added is one difference or more."""
    assert differences(workspace)
