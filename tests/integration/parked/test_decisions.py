"""Retrying and dropping: what goes where, what waits for what, what is written down."""

from typing import Any

import pytest

from server.domain.operations import (
    CreateExperiment,
    CreateModelVersion,
    CreateRun,
    LogParam,
    LogPoint,
    SetTag,
    UpdateRun,
    UploadArtifact,
)
from server.journal.barriers import ALL_RUNS_SETTLED
from tests.integration.parked.scene import LARGE, PARKED, SMALL, Scene
from tests.support.tracking import Tracking, journal_of, refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def last_positions(scene: Scene) -> dict[int, int]:
    """Lane → its last position."""
    async with journal_of(scene.server) as transaction:
        return dict(transaction.rows("SELECT lane_id, last_position FROM lanes"))


# --- retrying -------------------------------------------------------------------------------


async def test_everything_goes_out_again_in_its_old_order(scene: Scene) -> None:
    """Params, points, NaN, tags and the end of a run, mixed, have the same order behind one another."""
    await scene.post("runs/log-parameter", run_id=scene.run_id, key="p", value="1")
    for step, value in enumerate([1.5, "NaN", "Infinity", -2]):
        await scene.post("runs/log-metric", run_id=scene.run_id, key="m", value=value, timestamp=7, step=step)
        await scene.tag(str(step), key=f"t{step}")
    await scene.upload(SMALL)
    await scene.post("runs/update", run_id=scene.run_id, status="FINISHED", end_time=9)
    before = await scene.operations()
    assert {type(operation) for operation in before} >= {
        LogParam,
        LogPoint,
        SetTag,
        UploadArtifact,
        UpdateRun,
    }
    await scene.park_everything()
    await scene.tag("between", key="later")
    answer = await scene.retry(all=True)
    assert answer["retried"] == len(before)
    lanes = await scene.lanes()
    after = [
        operation
        for position, operation in sorted((await scene.pending()).items())
        if operation != SetTag("later", "between")
    ]
    assert after == before
    positions = sorted(
        position % 10_000 for position in await scene.pending() if position // 10_000 == lanes["data"]
    )
    assert positions == list(range(positions[0], positions[0] + len(positions)))


async def test_many_entries_are_decided_in_slices(scene: Scene) -> None:
    """Hundreds go out in their old order; each once."""
    tags = [{"key": f"t{number:04}", "value": "1"} for number in range(450)]
    for start in range(0, len(tags), 100):
        await scene.post("runs/log-batch", run_id=scene.run_id, tags=tags[start : start + 100])
    await scene.park_everything()
    assert (await scene.retry(run_id=scene.run_id))["retried"] == len(tags)
    assert await scene.operations() == [SetTag(tag["key"], "1") for tag in tags]


async def test_the_end_of_a_run_waits_for_files_retried_with_it(scene: Scene) -> None:
    """A terminal status awaits the end of the artifact lane, as it did at first."""
    await scene.upload(SMALL, "a")
    await scene.upload(LARGE, "b")
    await scene.post("runs/update", run_id=scene.run_id, status="FINISHED", end_time=9)
    await scene.park_everything()
    await scene.retry(all=True)
    lanes, last = await scene.lanes(), await last_positions(scene)
    assert await scene.barriers() == {
        (lanes["data"], last[lanes["data"]], lanes["artifacts"], last[lanes["artifacts"]])
    }


async def test_a_run_waits_for_its_experiment_and_its_parent(scene: Scene) -> None:
    """Creates that are retried together wait for one another; a file for its run."""
    experiment_id = await scene.server.experiment()
    parent = await scene.server.run(experiment_id=experiment_id)
    tags = [{"key": "mlflow.parentRunId", "value": parent}]
    child = Scene(
        scene.server, experiment_id, await scene.server.run(experiment_id=experiment_id, tags=tags), ""
    )
    await child.upload(SMALL)
    await scene.park_everything()
    assert (await scene.retry(all=True))["kept"] == []
    kinds = [type(operation) for operation in await scene.operations()]
    assert (kinds.count(CreateExperiment), kinds.count(CreateRun)) == (1, 2)
    parent_lanes = await Scene(scene.server, experiment_id, parent, "").lanes()
    lanes, last = await child.lanes(), await last_positions(scene)
    create = 2  # the run's second position: the first one was refused
    assert await scene.barriers() == {
        (parent_lanes["data"], create, lanes["experiment"], last[lanes["experiment"]]),
        (lanes["data"], create, lanes["experiment"], last[lanes["experiment"]]),
        (lanes["data"], create, parent_lanes["data"], create),
        (lanes["artifacts"], 2, lanes["data"], create),
    }


async def test_a_version_waits_for_its_files(scene: Scene) -> None:
    """It is made after what is on its way in the run's artifact lane."""
    await scene.upload(SMALL, "m/MLmodel")
    await scene.version()
    await scene.park_everything()
    await scene.retry(all=True)
    assert any(isinstance(operation, CreateModelVersion) for operation in await scene.operations())
    lanes, last = await scene.lanes(), await last_positions(scene)
    assert (lanes["model"], last[lanes["model"]], lanes["artifacts"], last[lanes["artifacts"]]) in (
        await scene.barriers()
    )


async def test_a_deleted_experiment_waits_for_its_runs(scene: Scene) -> None:
    """As when it was deleted."""
    await scene.post("experiments/delete", experiment_id=scene.experiment_id)
    await scene.park_everything()
    await scene.retry(all=True)
    lanes, last = await scene.lanes(), await last_positions(scene)
    lane_id, position = ALL_RUNS_SETTLED.lane_id, ALL_RUNS_SETTLED.position
    assert await scene.barriers() == {(lanes["experiment"], last[lanes["experiment"]], lane_id, position)}


async def test_a_retried_create_names_what_can_follow(scene: Scene) -> None:
    """The answer has the other entries of the run and the command that lets them follow."""
    other = Scene(
        scene.server, scene.experiment_id, await scene.server.run(experiment_id=scene.experiment_id), ""
    )
    await other.tag("1")
    await other.upload(SMALL)
    await scene.park_everything()
    by_kind = {item["kind"]: item["parked_id"] for item in await scene.parked(run_id=other.run_id)}
    answer = await scene.retry(by_kind["CreateRun"])
    assert answer["followers"] == sorted([by_kind["SetTag"], by_kind["UploadArtifact"]])
    assert f"mlproxy parked retry --run {other.run_id}" in answer["suggestion"]
    assert (await scene.retry(by_kind["SetTag"]))["suggestion"] is None


async def test_an_uncertain_entry_is_read_back_before_it_is_sent(scene: Scene) -> None:
    """The workspace may have it after all: the lane is uncertain up to it."""
    await scene.tag("1")
    await scene.park_everything("uncertain_outcome")
    await scene.retry(all=True)
    lanes, last = await scene.lanes(), await last_positions(scene)
    async with journal_of(scene.server) as transaction:
        uncertain = dict(transaction.rows("SELECT lane_id, uncertain_through FROM lanes"))
    assert uncertain[lanes["data"]] == last[lanes["data"]]


async def test_a_corrupt_entry_stays(scene: Scene) -> None:
    """It is told that it cannot be sent; it can be shown and dropped."""
    await scene.tag("1")
    await scene.tag("2", key="other")
    await scene.park_everything("corrupt_entry")
    spoilt = (await scene.parked())[0]["parked_id"]
    async with journal_of(scene.server) as transaction:
        payload = bytes(transaction.rows("SELECT payload FROM parked WHERE parked_id = ?", (spoilt,))[0][0])
        flipped = payload[:-1] + bytes([payload[-1] ^ 1])
        transaction.run("UPDATE parked SET payload = ? WHERE parked_id = ?", (flipped, spoilt))
    answer = await scene.retry(all=True)
    assert (answer["retried"], [item["parked_id"] for item in answer["kept"]]) == (1, [spoilt])
    assert [item["parked_id"] for item in await scene.parked()] == [spoilt]
    assert "checksum" in (await scene.show(spoilt))["payload"]["fault"]
    assert (await scene.drop(spoilt))["dropped"] == 1


async def test_a_file_whose_bytes_are_lost_stays(scene: Scene) -> None:
    """Without its bytes there is nothing to send."""
    await scene.upload(LARGE)
    await scene.park_everything()
    async with journal_of(scene.server) as transaction:
        transaction.run("UPDATE artifacts SET spool_name = ? WHERE spool_name IS NOT NULL", ("0" * 40,))
    answer = await scene.retry(all=True)
    assert (answer["retried"], len(answer["kept"])) == (0, 1)


async def test_a_decision_is_made_once(scene: Scene) -> None:
    """Who comes second is told so, and nothing is done."""
    await scene.tag("1")
    await scene.tag("2", key="other")
    await scene.park_everything()
    first, second = (item["parked_id"] for item in await scene.parked())
    await scene.retry(first)
    for route in ("retry", "drop"):
        body = {"ids": [first, second], "reason": "x"}
        answer = await scene.server.send("POST", f"{PARKED}/{route}", body)
        assert refusal_of(answer)[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
        assert str(first) in answer.text
    assert [item["parked_id"] for item in await scene.parked()] == [second]


# --- dropping -------------------------------------------------------------------------------


async def test_what_is_dropped_is_kept_here_and_told(scene: Scene) -> None:
    """Reads show the value; the run and the whole say that something was dropped; the reason stands."""
    await scene.tag("1")
    await scene.park_everything()
    parked_id = await scene.parked_id("SetTag")
    before = (await scene.server.get("/api/2.0/mlproxy/status"))["dropped"]
    assert await scene.drop(parked_id, reason="too long") == {"dropped": 1, "freed_bytes": 0}
    shown = await scene.show(parked_id)
    assert (shown["decision"], shown["decided_by"], shown["decision_reason"]) == (
        "dropped",
        "anonymous",
        "too long",
    )
    assert shown["decided_at"] >= shown["parked_at"]
    assert (await scene.server.data(scene.run_id))[2]["k"] == "1"
    run = await scene.server.get(f"/api/2.0/mlproxy/runs/{scene.run_id}")
    assert (run["parked"], run["dropped"], run["pending"]) == (0, 1, 0)
    whole = await scene.server.get("/api/2.0/mlproxy/status")
    assert (whole["parked"], whole["dropped"]) == (0, before + 1)
    assert await scene.operations() == []


async def test_dropping_a_file_gives_its_room_back(scene: Scene) -> None:
    """The spooled bytes go; the file is still listed. A small one can still be read."""
    await scene.upload(LARGE, "large")
    await scene.upload(SMALL, "small")
    await scene.park_everything()
    spooled = (await scene.server.get("/api/2.0/mlproxy/status"))["spool_bytes"]
    assert (await scene.drop(all=True)) == {"dropped": 2, "freed_bytes": len(LARGE)}
    status = await scene.server.get("/api/2.0/mlproxy/status")
    assert status["spool_bytes"] == spooled - len(LARGE)
    listed = await scene.server.get("artifacts/list", run_id=scene.run_id)
    assert [item["path"] for item in listed["files"]] == ["large", "small"]
    assert (await scene.server.http.get(scene.file("small"))).content == SMALL
    assert (await scene.server.http.get(scene.file("large"))).status_code == 404


async def test_dropping_an_old_upload_leaves_its_successor(scene: Scene) -> None:
    """Bytes that a later upload put in place are not touched."""
    await scene.upload(LARGE)
    await scene.park_everything()
    await scene.upload(LARGE + b"more")
    assert (await scene.drop(all=True))["freed_bytes"] == 0
    assert (await scene.server.http.get(scene.file())).content == LARGE + b"more"


async def test_parked_bytes_stay_in_the_spool(scene: Scene) -> None:
    """A refused upload can be read, and sent again later."""
    await scene.upload(LARGE)
    await scene.park_everything()
    assert (await scene.server.http.get(scene.file())).content == LARGE
    assert (await scene.retry(all=True))["retried"] == 1


# --- looking --------------------------------------------------------------------------------


async def test_the_list_comes_in_pages_and_can_be_narrowed(scene: Scene) -> None:
    """By run and by reason; the total counts all pages."""
    for number in range(5):
        await scene.tag("1", key=f"t{number}")
    await scene.park_everything()
    other = Scene(
        scene.server, scene.experiment_id, await scene.server.run(experiment_id=scene.experiment_id), ""
    )
    await scene.park_everything("uncertain_outcome")
    found: list[Any] = []
    token = None
    while True:
        query = {"max_results": 2, **({"page_token": token} if token else {})}
        answer = await scene.server.get(PARKED, run_id=scene.run_id, **query)
        found += [item["what"] for item in answer["parked"]]
        assert (len(answer["parked"]) <= 2, answer["total"]) == (True, 5)
        if (token := answer["next_page_token"]) is None:
            break
    assert found == [f"SetTag t{number}" for number in range(5)]
    uncertain = await scene.parked(reason="uncertain_outcome")
    assert {item["run_id"] for item in uncertain} == {other.run_id}
    assert len(await scene.parked(reason="refused")) == 5


async def test_an_entry_is_shown_whole(scene: Scene) -> None:
    """With its operation in readable form, the workspace's words and when it was accepted."""
    await scene.upload(SMALL)
    await scene.park_everything()
    shown = await scene.show(await scene.parked_id("UploadArtifact"))
    assert (shown["kind"], shown["reason"], shown["message"]) == ("UploadArtifact", "refused", "NO: refused")
    assert (shown["payload"]["path"], shown["payload"]["size_bytes"]) == ("f", len(SMALL))
    assert shown["subject"] == f"run_artifacts {scene.run_id}"
    assert shown["accepted_at"] <= shown["parked_at"]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("retry", {}),
        ("retry", {"ids": []}),
        ("retry", {"ids": [1], "all": True}),
        ("drop", {"all": True}),
        ("drop", {"all": True, "reason": "  "}),
        ("drop", {"reason": "x"}),
    ],
)
async def test_a_decision_must_say_what_and_why(server: Tracking, route: str, body: dict[str, Any]) -> None:
    """Nothing, two things at once, or a drop without a reason is refused."""
    assert (await server.refusal("POST", f"{PARKED}/{route}", body))[:2] == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("name", ["0", "999999999", "x", "9" * 30])
async def test_an_entry_that_is_not_there(server: Tracking, name: str) -> None:
    """It is told so, whatever it is called."""
    assert (await server.refusal("GET", f"{PARKED}/{name}"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
