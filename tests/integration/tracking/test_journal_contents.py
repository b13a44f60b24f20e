"""What the journal holds for what was asked: entries, points and barriers, in order."""

import pytest

from server.domain.operations import (
    CreateExperiment,
    CreateRun,
    DeleteExperiment,
    DeleteRun,
    DeleteTag,
    LogParam,
    RestoreExperiment,
    RestoreRun,
    SetExperimentTag,
    SetTag,
    UpdateRun,
    UploadArtifact,
)
from tests.support.tracking import Tracking

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _upload(tracking: Tracking, experiment_id: str, run_id: str, name: str) -> None:
    path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment_id}/{run_id}/artifacts/{name}"
    answer = await tracking.http.put(path, content=b"bytes")
    assert answer.status_code == 200, answer.text


async def test_a_run_with_everything_is_journaled_in_the_order_it_was_logged(tracking: Tracking) -> None:
    """The data lane holds one position per param, tag, point and change, gapless, as asked."""
    experiment_id = await tracking.experiment()
    run_id = await tracking.run(experiment_id=experiment_id, run_name="n", user_id="ann", start_time=5)
    await tracking.post("runs/log-parameter", run_id=run_id, key="p", value="1")
    await tracking.post("runs/log-metric", run_id=run_id, key="m", value=1.5, timestamp=7, step=2)
    await tracking.post(
        "runs/log-batch",
        run_id=run_id,
        metrics=[
            {"key": "m", "value": 1.5, "timestamp": 7, "step": 2},
            {"key": "m", "value": "NaN", "timestamp": 8, "step": 3},
        ],
        params=[{"key": "p", "value": "1"}, {"key": "q", "value": "2"}],
        tags=[{"key": "t", "value": "3"}],
    )
    await tracking.post("runs/delete-tag", run_id=run_id, key="t")
    await tracking.post("runs/update", run_id=run_id, status="FINISHED", end_time=9)
    await tracking.post("runs/delete", run_id=run_id)
    await tracking.post("runs/restore", run_id=run_id)
    lane = await tracking.journal.data_lane(run_id)
    assert lane.entries == {
        1: CreateRun("n", "ann", 5, None, {"mlflow.runName": "n"}),
        2: LogParam("p", "1"),
        4: LogParam("q", "2"),
        5: SetTag("t", "3"),
        7: DeleteTag("t"),
        8: UpdateRun("FINISHED", 9, None),
        9: DeleteRun(),
        10: RestoreRun(),
    }
    assert lane.points == {3: ("m", 1.5, 7, 2), 6: ("m", None, 8, 3)}
    assert lane.last_position == 10


async def test_a_run_awaits_its_experiment(tracking: Tracking) -> None:
    """The run's creation waits for the creation of its experiment."""
    experiment_id = await tracking.experiment()
    run_id = await tracking.run(experiment_id=experiment_id)
    experiment_lane = await tracking.journal.lane_of_experiment(experiment_id)
    assert (await tracking.journal.data_lane(run_id)).barriers == {(1, experiment_lane, 1)}


async def test_a_child_awaits_its_parent(tracking: Tracking) -> None:
    """The creation of a child run also waits for the creation of its parent."""
    experiment_id = await tracking.experiment()
    parent = await tracking.run(experiment_id=experiment_id)
    await tracking.post("runs/set-tag", run_id=parent, key="t", value="1")
    tags = [{"key": "mlflow.parentRunId", "value": parent}]
    child = await tracking.run(experiment_id=experiment_id, tags=tags)
    lane = await tracking.journal.data_lane(child)
    parent_lane, _ = await tracking.journal.lanes_of_run(parent)
    experiment_lane = await tracking.journal.lane_of_experiment(experiment_id)
    assert lane.barriers == {(1, experiment_lane, 1), (1, parent_lane, 1)}
    assert lane.entries[1].parent_run_id == parent


async def test_a_parent_that_is_not_known_here_is_not_awaited(tracking: Tracking) -> None:
    """A child of a run made elsewhere waits only for its experiment."""
    tags = [{"key": "mlflow.parentRunId", "value": "f" * 32}]
    lane = await tracking.journal.data_lane(await tracking.run(tags=tags))
    assert len(lane.barriers) == 1


async def test_the_end_of_a_run_awaits_the_artifacts_logged_before_it(tracking: Tracking) -> None:
    """A terminal status and a deletion wait for the artifact lane as it was; other changes do not."""
    experiment_id = await tracking.experiment()
    run_id = await tracking.run(experiment_id=experiment_id)
    _, artifact_lane = await tracking.journal.lanes_of_run(run_id)
    await tracking.post("runs/update", run_id=run_id, status="FAILED")
    await _upload(tracking, experiment_id, run_id, "a.txt")
    await tracking.post("runs/update", run_id=run_id, status="RUNNING")
    await tracking.post("runs/update", run_id=run_id, status="FINISHED")
    await _upload(tracking, experiment_id, run_id, "b.txt")
    await tracking.post("runs/delete", run_id=run_id)
    lane = await tracking.journal.data_lane(run_id)
    assert {barrier for barrier in lane.barriers if barrier[0] > 1} == {
        (4, artifact_lane, 1),
        (5, artifact_lane, 2),
    }


async def test_artifacts_have_a_lane_of_their_own_that_awaits_the_run(tracking: Tracking) -> None:
    """Uploads do not stand in the way of metrics, and none is sent before its run exists."""
    experiment_id = await tracking.experiment()
    run_id = await tracking.run(experiment_id=experiment_id)
    await _upload(tracking, experiment_id, run_id, "a.txt")
    data_lane, artifact_lane = await tracking.journal.lanes_of_run(run_id)
    lane = await tracking.journal.lane(artifact_lane)
    assert [type(entry) for entry in lane.entries.values()] == [UploadArtifact]
    assert lane.barriers == {(1, data_lane, 1)}
    assert (await tracking.journal.lane(data_lane)).last_position == 1


async def test_an_experiment_lane_begins_with_its_creation(tracking: Tracking) -> None:
    """Tags, deletion and restoring follow, and the deletion awaits all its runs, by one barrier."""
    experiment_id = await tracking.experiment(tags=[{"key": "a", "value": "1"}])
    run_id = await tracking.run(experiment_id=experiment_id)
    await _upload(tracking, experiment_id, run_id, "a.txt")
    await tracking.post("experiments/set-experiment-tag", experiment_id=experiment_id, key="b", value="2")
    await tracking.post("experiments/delete", experiment_id=experiment_id)
    await tracking.post("experiments/restore", experiment_id=experiment_id)
    own = int(experiment_id)
    lane = await tracking.journal.lane(await tracking.journal.lane_of_experiment(experiment_id))
    assert list(lane.entries.values()) == [
        CreateExperiment(own),
        SetExperimentTag(own, "a", "1"),
        SetExperimentTag(own, "b", "2"),
        DeleteExperiment(own),
        RestoreExperiment(own),
    ]
    assert lane.barriers == {(4, 0, 1)}


async def test_what_changes_nothing_is_not_journaled(tracking: Tracking) -> None:
    """A repeated param or point, a second deletion and an empty batch leave no entry."""
    run_id = await tracking.run()
    for _ in range(2):
        await tracking.post("runs/log-parameter", run_id=run_id, key="p", value="1")
        await tracking.post("runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1)
        await tracking.post("runs/log-batch", run_id=run_id)
    for route in ("restore", "delete", "delete"):
        await tracking.post(f"runs/{route}", run_id=run_id)
    lane = await tracking.journal.data_lane(run_id)
    assert lane.positions == [1, 2, 3, 4]
    assert lane.entries[4] == DeleteRun()


async def test_reading_writes_nothing(tracking: Tracking) -> None:
    """No read of a run appends to its lanes."""
    run_id = await tracking.run()
    await tracking.get("runs/get", run_id=run_id)
    await tracking.post("runs/search", experiment_ids=["0"])
    await tracking.get("metrics/get-history", run_id=run_id, metric_key="m")
    assert (await tracking.journal.data_lane(run_id)).last_position == 1
