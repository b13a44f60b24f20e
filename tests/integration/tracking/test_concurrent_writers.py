"""Many writers at once: positions are gapless and in commit order, across replicas too."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ServerProcess
from tests.support.tracking import Bench, LaneView, Tracking, bench_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

_CLIENTS = 64
_WRITES = 6
_RUNS = 4


async def _log_as_client(api: Tracking | Bench, run_id: str, client: int) -> None:
    """One client's writes, each after the answer to the one before."""
    for number in range(_WRITES):
        await api.post("runs/set-tag", run_id=run_id, key=f"client-{client}", value=str(number))
        await api.post(
            "runs/log-metric", run_id=run_id, key=f"m{client}", value=number, timestamp=number, step=number
        )
        await api.post("runs/log-parameter", run_id=run_id, key=f"p{client}-{number}", value="1")


def _check_lane(lane: LaneView, clients: list[int]) -> None:
    """Every write holds one position, without gaps, in the order its client got its answers."""
    assert lane.positions == list(range(1, lane.last_position + 1))
    for client in clients:
        tags = [(p, e.value) for p, e in lane.entries.items() if getattr(e, "key", "") == f"client-{client}"]
        points = [(p, point[3]) for p, point in lane.points.items() if point[0] == f"m{client}"]
        assert [value for _, value in sorted(tags)] == [str(number) for number in range(_WRITES)]
        assert [step for _, step in sorted(points)] == list(range(_WRITES))
        for (tag, _), (point, _) in zip(sorted(tags), sorted(points), strict=True):
            assert tag < point


async def test_64_writers_give_gapless_positions_in_commit_order(tracking: Tracking) -> None:
    """No position is lost or given twice, and each client's writes stand in its own order."""
    experiment_id = await tracking.experiment()
    run_ids = [await tracking.run(experiment_id=experiment_id) for _ in range(_RUNS)]
    await asyncio.gather(
        *(_log_as_client(tracking, run_ids[client % _RUNS], client) for client in range(_CLIENTS))
    )
    for number, run_id in enumerate(run_ids):
        _check_lane(await tracking.journal.data_lane(run_id), list(range(number, _CLIENTS, _RUNS)))


async def test_of_64_conflicting_params_exactly_one_wins(tracking: Tracking) -> None:
    """However requests fall into groups, one value is kept and everyone else is refused."""
    run_id = await tracking.run()
    answers = await asyncio.gather(
        *(
            tracking.send("POST", "runs/log-parameter", {"run_id": run_id, "key": "p", "value": str(number)})
            for number in range(_CLIENTS)
        )
    )
    winners = [str(number) for number, answer in enumerate(answers) if answer.status_code == 200]
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: _CLIENTS - 1}
    assert [(await tracking.data(run_id))[1]["p"]] == winners


async def test_of_64_experiments_of_one_name_exactly_one_is_made(tracking: Tracking) -> None:
    """A name is given out once, however many ask for it together."""
    answers = await asyncio.gather(
        *(
            tracking.send("POST", "experiments/create", {"name": f"one of 64 {id(tracking)}"})
            for _ in range(64)
        )
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: 63}


# --- two replicas on one Postgres -------------------------------------------------------------


async def test_two_replicas_write_the_same_runs_without_gaps_or_deadlocks(make_database: Any) -> None:
    """Two writers on one database share the lanes: gapless positions, and nobody is failed."""
    url = make_database("postgres")
    async with bench_server(url) as one, bench_server(url) as other:
        run_ids = [await one.run() for _ in range(_RUNS)]
        await asyncio.gather(
            *(
                _log_as_client((one, other)[client // _RUNS % 2], run_ids[client % _RUNS], client)
                for client in range(_CLIENTS // 2)
            )
        )
        for number, run_id in enumerate(run_ids):
            _check_lane(await one.journal.data_lane(run_id), list(range(number, _CLIENTS // 2, _RUNS)))


async def test_two_replicas_agree_on_a_param(make_database: Any) -> None:
    """Immutability holds across replicas: one value wins on both."""
    url = make_database("postgres")
    async with bench_server(url) as one, bench_server(url) as other:
        run_id = await one.run()
        answers = await asyncio.gather(
            *(
                (one, other)[number % 2].send(
                    "POST", "runs/log-parameter", {"run_id": run_id, "key": "p", "value": str(number % 2)}
                )
                for number in range(40)
            )
        )
        accepted = {str(number % 2) for number, answer in enumerate(answers) if answer.status_code == 200}
        assert Counter(answer.status_code for answer in answers) == {200: 20, 400: 20}
        assert {(await other.data(run_id))[1]["p"]} == accepted


async def test_replicas_that_get_in_each_others_way_try_again(make_database: Any) -> None:
    """Deleting, restoring and ending the same runs on two replicas at once fails no request."""
    url = make_database("postgres")
    async with bench_server(url) as one, bench_server(url) as other:
        experiment_id = await one.experiment()
        run_ids = [await one.run(experiment_id=experiment_id) for _ in range(3)]

        async def churn(api: Bench, run_id: str) -> list[int]:
            statuses = []
            for number in range(8):
                for route, fields in (
                    ("runs/delete", {"run_id": run_id}),
                    ("runs/restore", {"run_id": run_id}),
                    ("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": number}),
                    ("runs/set-tag", {"run_id": run_id, "key": "t", "value": str(number)}),
                    (
                        "experiments/set-experiment-tag",
                        {"experiment_id": experiment_id, "key": "k", "value": "v"},
                    ),
                    ("runs/create", {"experiment_id": experiment_id}),
                ):
                    statuses.append((await api.send("POST", route, fields)).status_code)
            return statuses

        found = await asyncio.gather(*(churn(api, run_id) for api in (one, other) for run_id in run_ids))
        assert {status for statuses in found for status in statuses} <= {200, 400}
        for run_id in run_ids:
            lane = await one.journal.data_lane(run_id)
            assert lane.positions == list(range(1, lane.last_position + 1))


async def test_the_first_runs_of_an_experiment_on_two_replicas_all_succeed(make_database: Any) -> None:
    """Announcing one experiment from two replicas at once loses no run and leaves no gap."""
    url = make_database("postgres")
    async with bench_server(url) as one, bench_server(url) as other:
        asked = [api.send("POST", "runs/create", {"experiment_id": "0"}) for api in (one, other) * 10]
        answers = await asyncio.gather(*asked)
        lane = await one.journal.lane(await one.journal.lane_of_experiment("0"))
        assert {answer.status_code for answer in answers} == {200}
        assert lane.positions == list(range(1, lane.last_position + 1))


async def test_two_server_processes_share_one_postgres(make_database: Any, tmp_path: Path) -> None:
    """Two real servers on one database: what one acknowledges, the other reads at once."""
    url = make_database("postgres")
    with (
        ServerProcess.start(tmp_path / "one", MLPROXY_DATABASE_URL=url) as one,
        ServerProcess.start(tmp_path / "other", MLPROXY_DATABASE_URL=url) as other,
    ):
        import httpx

        async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
            made = await http.post(f"{one.url}/api/2.0/mlflow/runs/create", json={"start_time": 1})
            run_id = made.json()["run"]["info"]["run_id"]
            answers = await asyncio.gather(
                *(
                    http.post(
                        f"{(one, other)[number % 2].url}/api/2.0/mlflow/runs/log-metric",
                        json={
                            "run_id": run_id,
                            "key": "m",
                            "value": number,
                            "timestamp": number,
                            "step": number,
                        },
                    )
                    for number in range(100)
                )
            )
            history = await http.get(
                f"{other.url}/api/2.0/mlflow/metrics/get-history",
                params={"run_id": run_id, "metric_key": "m"},
            )
    assert {answer.status_code for answer in answers} == {200}
    assert [point["step"] for point in history.json()["metrics"]] == list(range(100))
