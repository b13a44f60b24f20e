"""What is remembered of runs is never seen in an answer: it is what a server that remembers nothing says."""

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from server.commit.writer import Work
from server.database.engine import Transaction
from server.domain.entities import RunStatus
from server.domain.fact_names import RESTORED_AT
from server.protocol.runs import SearchRunsRequest
from server.protocol.wire import encode_page
from server.services.run_creates import add_run
from server.services.runs import Runs
from server.store import facts, removals, runs
from server.store.removals import Budget, RunRemoval
from server.store.runs import NewRun
from tests.support.tracking import Bench, Json, bench_server, resends_over

pytestmark = pytest.mark.asyncio(loop_scope="session")

STEPS = 120
RUNS_AT_FIRST = 4
PAGE = {"experiment_ids": ["0"], "run_view_type": "ALL"}


@pytest_asyncio.fixture(loop_scope="session")
async def other(bench: Bench, database_url: str) -> AsyncIterator[Bench]:
    """A second server on the same database, with a memory of its own."""
    async with bench_server(database_url) as made:
        yield made


async def answer_of(bench: Bench, **changed: Any) -> bytes:
    """The page as the server answers it."""
    answer = await bench.send("POST", "runs/search", {**PAGE, **changed})
    assert answer.status_code == 200
    return answer.content


async def answer_without_memory(bench: Bench) -> bytes:
    """The page as it is now, said by a service that has answered nothing before, and encoded as a whole."""
    service = Runs(
        database=bench.database, writer=bench.writer, resends=resends_over(bench.database, bench.writer)
    )
    found, token = await service.search(SearchRunsRequest(experiment_ids=["0"], run_view_type="ALL"))
    return bytes(encode_page("runs", found, token))


# --- random writes --------------------------------------------------------------------------


class Writes:
    """Random writes of every kind to a handful of runs; some are refused, as deleted runs are."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.run_ids: list[str] = []

    def server(self, servers: tuple[Bench, Bench]) -> Bench:
        """Who takes the next one."""
        return self._random.choice(servers)

    def next(self) -> tuple[str, Json]:
        """A path and what is sent there."""
        path, fields = self._random.choice(self._kinds)(self)
        if not path.startswith("experiments/"):
            fields["run_id"] = self._random.choice(self.run_ids)
        return path, fields

    def _word(self) -> str:
        return self._random.choice("abc")

    def _point(self) -> Json:
        value = self._random.choice([0.5, 1.5, "NaN", "Infinity"])
        return {"key": self._word(), "value": value, "timestamp": self._random.randrange(3), "step": 1}

    def _metric(self) -> tuple[str, Json]:
        return "runs/log-metric", self._point()

    def _param(self) -> tuple[str, Json]:
        return "runs/log-parameter", {"key": self._word() + str(self._random.randrange(9)), "value": "v"}

    def _batch(self) -> tuple[str, Json]:
        tags = [{"key": self._word(), "value": self._word()}]
        return "runs/log-batch", {"metrics": [self._point(), self._point()], "tags": tags}

    def _tag(self) -> tuple[str, Json]:
        return "runs/set-tag", {"key": self._word(), "value": self._word() * 3}

    def _no_tag(self) -> tuple[str, Json]:
        return "runs/delete-tag", {"key": self._word()}

    def _update(self) -> tuple[str, Json]:
        return "runs/update", {"run_name": self._word(), "status": self._random.choice(list(RunStatus))}

    def _model_history(self) -> tuple[str, Json]:
        model = (
            f'{{"run_id": "r", "artifact_path": "{self._word()}", "utc_time_created": "t", "flavors": {{}}}}'
        )
        return "runs/log-model", {"model_json": model}

    def _inputs(self) -> tuple[str, Json]:
        used = {"name": self._word(), "digest": "d", "source_type": "s", "source": "here"}
        context = [{"key": "mlflow.data.context", "value": self._word()}]
        models = [{"model_id": f"m-{self._word()}"}]
        return "runs/log-inputs", {"datasets": [{"tags": context, "dataset": used}], "models": models}

    def _outputs(self) -> tuple[str, Json]:
        return "runs/outputs", {
            "models": [{"model_id": f"m-{self._word()}", "step": self._random.randrange(3)}]
        }

    def _life(self) -> tuple[str, Json]:
        return self._random.choice(["runs/delete", "runs/restore", "runs/restore"]), {}

    _kinds: tuple[Callable[["Writes"], tuple[str, Json]], ...] = (
        _metric,
        _param,
        _batch,
        _tag,
        _no_tag,
        _update,
        _model_history,
        _inputs,
        _outputs,
        _life,
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_answers_are_those_of_a_server_that_remembers_nothing(
    bench: Bench, other: Bench, seed: int
) -> None:
    """After every write of any kind, through either server, both say, byte for byte, what is there."""
    writes = Writes(seed)
    for number in range(RUNS_AT_FIRST):
        writes.run_ids.append(await bench.run(experiment_id="0", start_time=number))
    taken: set[str] = set()
    for _ in range(STEPS):
        path, fields = writes.next()
        answer = await writes.server((bench, other)).send("POST", path, fields)
        assert answer.status_code in (200, 400, 404), answer.text
        if answer.status_code == 200:
            taken.add(path)
        expected = await answer_without_memory(bench)
        assert all(f'"run_id":"{run_id}"'.encode() in expected for run_id in writes.run_ids)
        assert await answer_of(bench) == expected
        assert await answer_of(other) == expected
    assert len(taken) >= 10  # the writes did reach the runs


# --- the memory is used, and not where it must not be ------------------------------------------


async def test_what_is_remembered_is_not_read_again(bench: Bench) -> None:
    """Rows that go behind the server's back are still answered, until a write of its own moves the run."""
    run_id = await bench.run(experiment_id="0")
    await bench.post("runs/log-parameter", run_id=run_id, key="p", value="v")
    before = await answer_of(bench)
    await bench.writer.commit(Work(lambda transaction: _run(transaction, "DELETE FROM params")))
    assert await answer_of(bench) == before
    await bench.post("runs/set-tag", run_id=run_id, key="t", value="v")
    assert b'"params"' not in await answer_of(bench)


async def test_what_runs_are_linked_to_is_read_each_time(bench: Bench) -> None:
    """Datasets and logged models move no version, so they are never remembered."""
    run_id = await bench.run(experiment_id="0")
    await answer_of(bench)
    await bench.post("runs/outputs", run_id=run_id, models=[{"model_id": "m-1", "step": 4}])
    assert b'"model_outputs":[{"model_id":"m-1","step":4}]' in await answer_of(bench)


async def test_deleted_runs_are_read_each_time(bench: Bench) -> None:
    """What is deleted may be on its way out, which moves no version either."""
    run_id = await bench.run(experiment_id="0")
    await bench.post("runs/log-parameter", run_id=run_id, key="p", value="v")
    await bench.post("runs/delete", run_id=run_id)
    assert b'"params"' in await answer_of(bench)
    await bench.writer.commit(Work(lambda transaction: _run(transaction, "DELETE FROM params")))
    assert b'"params"' not in await answer_of(bench)


async def test_a_restored_database_is_read_again(bench: Bench) -> None:
    """A restore under a process that had lost the database gives positions out again, to other writes."""
    run_id = await bench.run(experiment_id="0")
    await bench.post("runs/set-tag", run_id=run_id, key="t", value="before")
    assert b'"before"' in await answer_of(bench)

    def restore(transaction: Transaction) -> None:
        _run(transaction, "UPDATE tags SET value = 'after' WHERE key = 't'")
        facts.put(transaction, RESTORED_AT, "12345")

    await bench.writer.commit(Work(restore))
    assert b'"after"' in await answer_of(bench)


async def test_a_run_that_comes_back_is_another_run(bench: Bench) -> None:
    """Removed for good and made again under its id, as an import does, a run holds what it holds now."""
    run_id = await bench.run(experiment_id="0")
    await bench.post("runs/set-tag", run_id=run_id, key="t", value="before")
    assert b'"before"' in await answer_of(bench)

    def make_again(transaction: Transaction) -> None:
        place = runs.find_lanes(transaction, run_id)
        assert place is not None
        removal = RunRemoval(place.run_pk, run_id, 0, None, place.all_lanes, False, [])
        assert removals.remove_run_rows(transaction, removal, Budget(1000))
        again = NewRun(
            run_id, 0, "again", "", RunStatus.RUNNING, 1, "mlflow-artifacts:/0", None, None, [("t", "after")]
        )
        add_run(transaction, again)  # its lane ends where the old one did: a create and a tag

    await bench.writer.commit(Work(make_again))
    answer = await answer_of(bench)
    assert (b'"before"' in answer, b'"after"' in answer) == (False, True)
    assert answer == await answer_without_memory(bench)


def _run(transaction: Transaction, sql: str) -> None:
    transaction.run(sql)
