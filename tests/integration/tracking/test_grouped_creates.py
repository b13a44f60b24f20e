"""Runs that are asked for while the writer is busy are made together, and come out as if made one by one."""

import asyncio
from typing import Any

import pytest

from server.commit.writer import Work
from server.database.engine import Transaction
from server.domain.operations import CreateExperiment, CreateRun, SetTag
from server.journal.lanes import LaneKind, open_lane
from server.services.resends import DEDUPED_TAG
from tests.support.tracking import Api, Bench, Json, client_at, refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

_START_MS = 1_700_000_000_000


def _ask(client: Api, experiment_id: str, **fields: Any) -> "asyncio.Task[Any]":
    body = {"experiment_id": experiment_id, "start_time": _START_MS, **fields}
    return asyncio.create_task(client.send("POST", "runs/create", body))


async def _run_of(asked: "asyncio.Task[Any]") -> Json:
    answer = await asked
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["run"])


async def _id_of(asked: "asyncio.Task[Any]") -> str:
    return str((await _run_of(asked))["info"]["run_id"])


async def _names_in(client: Api, experiment_id: str) -> set[str]:
    found = await client.post("runs/search", experiment_ids=[experiment_id])
    return {run["info"]["run_name"] for run in found.get("runs", [])}


async def _backlog_bytes(bench: Bench) -> tuple[int, int]:
    """What the lanes say that they hold, and what their rows come to."""

    def ask(transaction: Transaction) -> tuple[int, int]:
        told = transaction.rows("SELECT coalesce(sum(undelivered_bytes), 0) FROM lanes")[0][0]
        held = transaction.rows("SELECT coalesce(sum(64 + length(payload)), 0) FROM journal_entries")[0][0]
        return int(told), int(held)

    return await bench.database.read(ask)


async def test_each_run_of_a_group_is_what_was_asked_for(bench: Bench) -> None:
    """Answer, store and journal of every run are its own, in whatever experiment it is."""
    one, other = await bench.experiment(), await bench.experiment()
    async with bench.held():
        asked = []
        for number in range(6):
            tags = [{"key": "k", "value": str(number)}, {"key": "mlflow.user", "value": f"u{number}"}]
            home = one if number % 2 else other
            asked.append(_ask(bench, home, run_name=f"r{number}", tags=tags, start_time=number))
        await bench.until_waiting(6)
    runs = [await _run_of(task) for task in asked]
    assert bench.groups[-1] == 6
    assert [run["info"]["run_name"] for run in runs] == [f"r{number}" for number in range(6)]
    lanes = [await bench.journal.lanes_of_run(run["info"]["run_id"]) for run in runs]
    assert len({lane for pair in lanes for lane in pair}) == 12
    for number, run in enumerate(runs):
        info = run["info"]
        assert info["experiment_id"] == (one if number % 2 else other)
        assert (info["user_id"], info["start_time"]) == (f"u{number}", number)
        assert info["artifact_uri"].endswith(f"/{info['experiment_id']}/{info['run_id']}/artifacts")
        tags = {"k": str(number), "mlflow.user": f"u{number}", "mlflow.runName": f"r{number}"}
        assert (await bench.data(info["run_id"]))[2] == tags
        lane = await bench.journal.data_lane(info["run_id"])
        own = {"mlflow.user": f"u{number}", "mlflow.runName": f"r{number}"}
        assert lane.entries == {
            1: CreateRun(f"r{number}", f"u{number}", number, None, own),
            2: SetTag("k", str(number)),
        }
        home_lane = await bench.journal.lane_of_experiment(info["experiment_id"])
        assert (lane.last_position, lane.barriers) == (2, {(1, home_lane, 1)})
    told, held = await _backlog_bytes(bench)
    assert told == held


async def test_the_first_runs_of_an_experiment_announce_it_once(bench: Bench) -> None:
    """However many runs of an experiment that the workspace has not heard of are made together."""
    async with bench.held():
        asked = [_ask(bench, "0", start_time=number) for number in range(4)]
        await bench.until_waiting(4)
    assert len({await _id_of(task) for task in asked}) == 4
    lane = await bench.journal.lane(await bench.journal.lane_of_experiment("0"))
    assert lane.entries == {1: CreateExperiment(0)}


async def test_a_refused_create_of_a_group_spoils_no_other(bench: Bench) -> None:
    """A deleted experiment, one that is not there and no id at all are refused; the others are made."""
    good, gone = await bench.experiment(), await bench.experiment()
    await bench.post("experiments/delete", experiment_id=gone)
    async with bench.held():
        asked = [
            _ask(bench, home, run_name=f"r{number}")
            for number, home in enumerate([good, gone, "77777", "not an id", good])
        ]
        await bench.until_waiting(5)
    answers = [await task for task in asked]
    assert [answer.status_code for answer in answers] == [200, 400, 404, 400, 200]
    assert "must be in the 'active' state" in refusal_of(answers[1])[2]
    assert refusal_of(answers[2])[2] == "No Experiment with id=77777 exists"
    assert await _names_in(bench, good) == {"r0", "r4"}
    assert await _names_in(bench, gone) == set()


async def test_a_refused_create_of_a_group_is_not_remembered(bench: Bench) -> None:
    """Its fingerprint is taken away again: once its experiment is back, it makes a run."""
    home, other = await bench.experiment(), await bench.experiment()
    await bench.post("experiments/delete", experiment_id=home)
    async with client_at(bench.door, "10.8.0.1") as client:
        async with bench.held():
            asked = [_ask(client, home), _ask(client, other)]
            await bench.until_waiting(2)
        assert [(await task).status_code for task in asked] == [400, 200]
        await bench.post("experiments/restore", experiment_id=home)
        run = await _run_of(_ask(client, home))
    assert DEDUPED_TAG not in {tag["key"] for tag in run["data"]["tags"]}


async def test_the_same_create_twice_in_a_group_makes_one_run(bench: Bench) -> None:
    """The second is answered with the first one's run, said in a tag; their neighbours are made as ever."""
    home = await bench.experiment()
    async with client_at(bench.door, "10.8.0.2") as client:
        async with bench.held():
            asked = [
                _ask(client, home, run_name="same"),
                _ask(client, home, run_name="other"),
                _ask(client, home, run_name="same"),
            ]
            await bench.until_waiting(3)
        first, other, again = [await _run_of(task) for task in asked]
    assert bench.groups[-1] == 3
    assert again["info"] == first["info"]
    assert other["info"]["run_id"] != first["info"]["run_id"]
    assert {"key": DEDUPED_TAG, "value": "true"} in again["data"]["tags"]
    lane = await bench.journal.data_lane(first["info"]["run_id"])
    assert lane.entries[2] == SetTag(DEDUPED_TAG, "true")
    assert await _names_in(bench, home) == {"same", "other"}
    told, held = await _backlog_bytes(bench)
    assert told == held


async def test_a_key_that_comes_back_in_a_group_stands_for_its_run(bench: Bench) -> None:
    """With the same body it gives the run it made; with another it is refused; neither harms a neighbour."""
    home = await bench.experiment()
    key = {"Idempotency-Key": "k1"}
    async with client_at(bench.door, "10.8.0.3", **key) as keyed, client_at(bench.door, "10.8.0.4") as plain:
        made = await _id_of(_ask(keyed, home, run_name="kept"))
        async with bench.held():
            asked = [
                _ask(plain, home, run_name="new"),
                _ask(keyed, home, run_name="kept"),
                _ask(keyed, home, run_name="another body"),
            ]
            await bench.until_waiting(3)
        new, again = await _id_of(asked[0]), await _id_of(asked[1])
        assert (again, new != made) == (made, True)
        assert (await asked[2]).status_code == 422
    assert await _names_in(bench, home) == {"kept", "new"}


async def test_children_of_a_group_wait_for_their_parents(bench: Bench) -> None:
    """Each for its own, as far as that is not delivered; one that nobody knows is waited for by nobody."""
    home = await bench.experiment()
    delivered, pending = (
        await bench.run(experiment_id=home),
        await bench.run(experiment_id=home, start_time=2),
    )
    lanes = {run_id: (await bench.journal.lanes_of_run(run_id))[0] for run_id in (delivered, pending)}
    await bench.writer.commit(
        Work(
            lambda transaction: transaction.run(
                "UPDATE lanes SET settled_position = 1 WHERE lane_id = ?", (lanes[delivered],)
            )
        )
    )
    async with bench.held():
        asked = [
            _ask(bench, home, start_time=number, tags=[{"key": "mlflow.parentRunId", "value": parent}])
            for number, parent in enumerate([delivered, pending, "0" * 32])
        ]
        await bench.until_waiting(3)
    on_experiment = (1, await bench.journal.lane_of_experiment(home), 1)
    barriers = [(await bench.journal.data_lane(await _id_of(task))).barriers for task in asked]
    assert barriers == [{on_experiment}, {on_experiment, (1, lanes[pending], 1)}, {on_experiment}]


async def test_creates_and_writes_share_a_group(bench: Bench) -> None:
    """Whatever stands between them, all creates and all writes of a group are kept, each where it belongs."""
    home = await bench.experiment()
    run_id = await bench.run(experiment_id=home, run_name="there")
    async with bench.held():
        asked = []
        for number in range(4):
            asked.append(_ask(bench, home, run_name=f"r{number}"))
            write = {"run_id": run_id, "key": f"p{number}", "value": str(number)}
            asked.append(asyncio.create_task(bench.send("POST", "runs/log-parameter", write)))
        await bench.until_waiting(8)
    assert {(await task).status_code for task in asked} == {200}
    assert bench.groups[-1] == 8
    assert await _names_in(bench, home) == {"there", "r0", "r1", "r2", "r3"}
    assert (await bench.data(run_id))[1] == {f"p{number}": str(number) for number in range(4)}
    assert (await bench.journal.data_lane(run_id)).positions == [1, 2, 3, 4, 5]


async def test_a_database_error_beside_them_spoils_no_create(bench: Bench) -> None:
    """The group is rolled back and worked one by one: each run is made once, under its claim."""
    home = await bench.experiment()

    def stumble(transaction: Transaction) -> None:
        transaction.run("INSERT INTO no_such_table VALUES (1)")

    async with client_at(bench.door, "10.8.0.5") as client:
        async with bench.held():
            asked = [_ask(client, home, run_name=f"r{number}") for number in range(3)]
            await bench.until_waiting(3)
            failing = asyncio.ensure_future(bench.writer.commit(Work(stumble)))
            await bench.until_waiting(4)
        with pytest.raises(Exception, match="could not be committed"):
            await failing
        ids = [await _id_of(task) for task in asked]
        assert len({*ids}) == 3
        again = [await _id_of(_ask(client, home, run_name=f"r{number}")) for number in range(3)]
    assert again == ids


async def test_an_experiment_deleted_earlier_in_the_group_refuses_what_follows(bench: Bench) -> None:
    """Creates before the deletion are made, those after it are refused."""
    home = await bench.experiment()
    async with bench.held():
        before = _ask(bench, home, run_name="before")
        await bench.until_waiting(1)
        deletion = asyncio.create_task(bench.send("POST", "experiments/delete", {"experiment_id": home}))
        await bench.until_waiting(2)
        after = _ask(bench, home, run_name="after")
        await bench.until_waiting(3)
    assert [(await task).status_code for task in (before, deletion, after)] == [200, 200, 400]
    run_id = await _id_of(before)
    assert (await bench.get("runs/get", run_id=run_id))["run"]["info"]["lifecycle_stage"] == "deleted"


async def test_lanes_that_are_numbered_later_get_numbers_of_their_own(bench: Bench) -> None:
    """Taking ids ahead leaves the database's own numbering where it should be."""
    home = await bench.experiment()
    taken = set(await bench.journal.lanes_of_run(await bench.run(experiment_id=home)))
    opened = await bench.writer.commit(
        Work(lambda transaction: open_lane(transaction, LaneKind.REGISTERED_MODEL, 1))
    )
    taken |= set(await bench.journal.lanes_of_run(await bench.run(experiment_id=home, start_time=2)))
    assert opened not in taken
    assert len(taken) == 4
