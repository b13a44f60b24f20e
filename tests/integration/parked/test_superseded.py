"""Retrying never undoes what came later, and brings back whatever still stands."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from server.domain.operations import UpdateRun
from tests.integration.parked.scene import LARGE, SMALL, Scene
from tests.support.tracking import Json

pytestmark = pytest.mark.asyncio(loop_scope="session")

Step = Callable[[Scene], Awaitable[Any]]


def call(path: str, method: str = "POST", **fields: Any) -> Step:
    """A call about the scene's run, experiment or model."""

    async def step(scene: Scene) -> None:
        answer = await scene.server.send(method, path, {**_named(scene, path), **fields})
        assert answer.status_code == 200, answer.text

    return step


def _named(scene: Scene, path: str) -> Json:
    if path.startswith("runs/"):
        return {"run_id": scene.run_id}
    if path.startswith("experiments/"):
        return {"experiment_id": scene.experiment_id}
    return {"name": scene.model}


def upload(content: bytes) -> Step:
    """Store the file."""
    return lambda scene: scene.upload(content)


async def delete_file(scene: Scene) -> None:
    """Delete the file."""
    await scene.delete_file()


async def version(scene: Scene) -> None:
    """Make version 1."""
    await scene.version()


async def nothing(scene: Scene) -> None:
    """Nothing to prepare."""


@dataclass(frozen=True, slots=True)
class Case:
    """An operation that is refused, and one that takes its place; `before` has arrived already."""

    kind: str
    refused: Step
    later: Step
    before: Step = nothing


set_tag = call("runs/set-tag", key="k", value="1")
delete_tag = call("runs/delete-tag", key="k")
set_model_tag = call("registered-models/set-tag", key="k", value="1")
delete_model_tag = call("registered-models/delete-tag", "DELETE", key="k")
set_version_tag = call("model-versions/set-tag", version="1", key="k", value="1")
delete_version_tag = call("model-versions/delete-tag", "DELETE", version="1", key="k")
delete_version = call("model-versions/delete", "DELETE", version="1")
delete_run, restore_run = call("runs/delete"), call("runs/restore")
delete_experiment, restore_experiment = call("experiments/delete"), call("experiments/restore")

CASES = {
    "a tag that was changed": Case("SetTag", set_tag, call("runs/set-tag", key="k", value="2")),
    "a tag that was deleted": Case("SetTag", set_tag, delete_tag),
    "a deleted tag that is back": Case("DeleteTag", delete_tag, set_tag, set_tag),
    "a status that was changed": Case(
        "UpdateRun", call("runs/update", status="FINISHED"), call("runs/update", status="RUNNING")
    ),
    "a name that was changed": Case(
        "UpdateRun", call("runs/update", run_name="a"), call("runs/update", run_name="b")
    ),
    "a deleted run that was restored": Case("DeleteRun", delete_run, restore_run),
    "a restored run that was deleted": Case("RestoreRun", restore_run, delete_run, delete_run),
    "a file that was replaced": Case("UploadArtifact", upload(SMALL), upload(b"other")),
    "a large file that was replaced": Case("UploadArtifact", upload(LARGE), upload(SMALL)),
    "a file that was deleted": Case("UploadArtifact", upload(SMALL), delete_file),
    "a deleted file that is back": Case("DeleteArtifact", delete_file, upload(SMALL), upload(SMALL)),
    "an experiment's tag that was changed": Case(
        "SetExperimentTag",
        call("experiments/set-experiment-tag", key="k", value="1"),
        call("experiments/set-experiment-tag", key="k", value="2"),
    ),
    "a deleted experiment that was restored": Case("DeleteExperiment", delete_experiment, restore_experiment),
    "a restored experiment that was deleted": Case(
        "RestoreExperiment", restore_experiment, delete_experiment, delete_experiment
    ),
    "a model's description that was changed": Case(
        "UpdateRegisteredModel",
        call("registered-models/update", "PATCH", description="1"),
        call("registered-models/update", "PATCH", description="2"),
    ),
    "a model's tag that was deleted": Case("SetRegisteredModelTag", set_model_tag, delete_model_tag),
    "a model's deleted tag that is back": Case(
        "DeleteRegisteredModelTag", delete_model_tag, set_model_tag, set_model_tag
    ),
    "a version that was deleted": Case("CreateModelVersion", version, delete_version),
    "a stage that was changed": Case(
        "TransitionModelVersion",
        call("model-versions/transition-stage", version="1", stage="Staging"),
        call("model-versions/transition-stage", version="1", stage="Production"),
        version,
    ),
    "a version's description that was changed": Case(
        "UpdateModelVersion",
        call("model-versions/update", "PATCH", version="1", description="1"),
        call("model-versions/update", "PATCH", version="1", description="2"),
        version,
    ),
    "a version's tag that was changed": Case(
        "SetModelVersionTag",
        set_version_tag,
        call("model-versions/set-tag", version="1", key="k", value="2"),
        version,
    ),
    "a version's tag that was deleted": Case(
        "SetModelVersionTag", set_version_tag, delete_version_tag, version
    ),
}


async def park_the_refused(case: Case, scene: Scene) -> int:
    """Let `before` arrive and the rest be refused; the id of what was refused."""
    await case.before(scene)
    await scene.settle_everything()
    await case.refused(scene)
    await scene.park_everything()
    return await scene.parked_id(case.kind)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_came_later_stays(case: Case, scene: Scene) -> None:
    """The refused entry is not sent: its successor is on its way, and nothing follows it."""
    parked_id = await park_the_refused(case, scene)
    await case.later(scene)
    pending = await scene.operations()
    answer = await scene.retry(parked_id)
    assert [item["parked_id"] for item in answer["superseded"]] == [parked_id]
    assert (answer["retried"], answer["kept"]) == (0, [])
    assert await scene.operations() == pending
    shown = await scene.show(parked_id)
    assert (shown["decision"], shown["decision_reason"]) == ("superseded", answer["superseded"][0]["why"])
    assert await scene.parked() == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_came_later_stays_when_it_has_arrived(case: Case, scene: Scene) -> None:
    """The same when the successor is delivered, and no trace of it is left in the journal."""
    parked_id = await park_the_refused(case, scene)
    await case.later(scene)
    await scene.settle_everything()
    assert [item["parked_id"] for item in (await scene.retry(parked_id))["superseded"]] == [parked_id]
    assert await scene.operations() == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_still_stands_goes_out_again(case: Case, scene: Scene) -> None:
    """Without a successor the refused entry is at the end of its lane, as it was."""
    await case.before(scene)
    await scene.settle_everything()
    await case.refused(scene)
    wanted = [operation for operation in await scene.operations() if type(operation).__name__ == case.kind]
    await scene.park_everything()
    answer = await scene.retry(await scene.parked_id(case.kind))
    assert (answer["retried"], answer["superseded"], answer["kept"]) == (1, [], [])
    assert await scene.operations() == wanted[-1:]


async def test_of_an_update_only_what_still_stands_goes_out(scene: Scene) -> None:
    """A run that was ended and goes on keeps its new status and gets its end time and name."""
    await scene.post("runs/update", run_id=scene.run_id, status="FAILED", end_time=5, run_name="n")
    await scene.park_everything()
    await scene.post("runs/update", run_id=scene.run_id, status="RUNNING")
    await scene.settle_everything()
    assert (await scene.retry(await scene.parked_id("UpdateRun")))["retried"] == 1
    assert await scene.operations() == [UpdateRun(None, 5, "n")]


async def test_the_same_file_stored_elsewhere_supersedes_nothing(scene: Scene) -> None:
    """A file is superseded by its path, not by its bytes."""
    await scene.upload(SMALL, "a")
    await scene.park_everything()
    await scene.upload(SMALL, "b")
    await scene.settle_everything()
    assert (await scene.retry(await scene.parked_id("UploadArtifact")))["retried"] == 1


async def test_a_model_that_was_deleted_supersedes_all_of_it(scene: Scene) -> None:
    """Nothing of it is left to bring."""
    await scene.post("registered-models/set-tag", name=scene.model, key="k", value="1")
    await scene.park_everything()
    await scene.server.send("DELETE", "registered-models/delete", {"name": scene.model})
    answer = await scene.retry(all=True)
    assert (answer["retried"], len(answer["superseded"])) == (0, 1)
