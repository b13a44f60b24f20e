"""The workspace does not show at once what it has: nothing is made twice while that lasts less than we wait.

The server's clock is turned, its settle times are the real ones: ten minutes for what is found by a marker,
one for points. What stays hidden for longer is made again; `verify` then tells of it.
"""

from collections.abc import Iterator

import httpx
import pytest

from tests.durability.conftest import ask_to_drain, drain_all
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered
from tests.durability.turning import TurnedServer, start_turned
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.workspace import RUN_MARKER_TAG, run_of, wait_until

pytestmark = pytest.mark.fault("11")
FOR_EVER = 1e9
EMPTY_READS_NEEDED = 3
# The machine's own time passes as well: what is to be less than a settle time leaves room for that, and what
# is to be more lasts for a further question.
MARKER_LAGS = {"0": 0.0, "5 s": 5.0, "8 min": 480.0, "15 min": 900.0}
POINT_LAGS = {"0": 0.0, "5 s": 5.0, "30 s": 30.0, "90 s": 90.0}
MARKER_SETTLE, POINT_SETTLE = 600.0, 60.0
QUESTIONS = ("runs/search", "model-versions/search", "metrics/get-history")


@pytest.fixture(scope="module")
def module_turned(
    module_emulator: EmulatorProcess, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TurnedServer]:
    """The module's proxy, whose clock can be turned."""
    turned = start_turned(module_emulator, tmp_path_factory.mktemp("turned"), nursery)
    with turned.server:
        yield turned


@pytest.fixture
def turned(module_turned: TurnedServer, emulator: EmulatorProcess) -> TurnedServer:
    """The same; the workspace behaves well before and after, and its calls are those of the test."""
    emulator.clear_calls()
    return module_turned


@pytest.fixture
def client(turned: TurnedServer) -> Iterator[Tracking]:
    """A connection to it."""
    connection = Tracking(turned.server.url)
    yield connection
    connection.close()


def drain_over_time(turned: TurnedServer, emulator: EmulatorProcess, lag: float, settle: float) -> None:
    """Let time pass until all is delivered; the workspace shows what it has after the lag.

    The lag is counted from when the workspace was asked first. After every step of time it is asked again.
    """
    asked = await_question(turned, emulator, 0)
    elapsed = 0.0
    while elapsed < lag:
        step = min(settle / EMPTY_READS_NEEDED + 1, lag - elapsed)
        turned.let_pass(step)
        elapsed += step
        if elapsed < lag:
            asked = await_question(turned, emulator, asked)
    emulator.settings(search_lag_seconds=0.0, metric_lag_seconds=0.0)
    for _ in range(60):
        left = ask_to_drain(turned.server)
        if (left["pending"], left["uncertain"]) == (0, 0):
            assert left["parked"] == 0
            return
        turned.let_pass(settle)
    raise AssertionError(f"not delivered: {left}\n{turned.server.log_file.read_text()[-3000:]}")


def await_question(turned: TurnedServer, emulator: EmulatorProcess, before: int) -> int:
    """Wait until the workspace was asked (again) for what may be hidden, or all is delivered; how often."""

    def look() -> int:
        left = ask_to_drain(turned.server)
        asked = sum(call["path"].endswith(QUESTIONS) for call in emulator.calls())
        return asked if asked > before or (left["pending"], left["uncertain"]) == (0, 0) else 0

    return int(wait_until(look, within=120, what="a question"))


def verify(turned: TurnedServer, run: LoggedRun) -> dict[str, str]:
    """What `verify` finds different, by what it is."""
    url = f"{turned.server.url}/api/2.0/mlproxy/verify/{run.run_id}"
    answer = httpx.get(url, trust_env=False, timeout=30).raise_for_status().json()
    assert answer["equal"] == (not answer["differences"])
    return {difference["what"]: difference["there"] for difference in answer["differences"]}


@pytest.mark.parametrize("name", MARKER_LAGS)
def test_a_run_found_by_its_marker(
    name: str, turned: TurnedServer, emulator: EmulatorProcess, client: Tracking
) -> None:
    """A run whose create nobody answered is made once if it shows within ten minutes, or is reported."""
    lag = MARKER_LAGS[name]
    experiment = client.create_experiment(f"a run hidden for {name}")
    emulator.settings(history_patch_status=405, search_lag_seconds=FOR_EVER if lag else 0.0)
    emulator.add_fault(match="POST .*/runs/create$", effect="drop_answer", when="after", times=1)
    run = client.create_run(experiment, "hidden")
    client.log_metric(run, "loss", 0.5, 0)
    drain_over_time(turned, emulator, lag, MARKER_SETTLE)
    made = [held["run_id"] for held in emulator.runs() if held["tags"].get(RUN_MARKER_TAG) == run.run_id]
    assert len(made) == (1 if lag < MARKER_SETTLE else 2)
    known = client.run_status(run.run_id)["upstream_run_id"]
    assert_delivered(emulator, run, upstream_id=known)
    differences = verify(turned, run)
    assert differences.keys() == ({"run"} if len(made) > 1 else set())
    assert all(upstream_id in differences["run"] for upstream_id in made if upstream_id != known)


@pytest.mark.parametrize("name", MARKER_LAGS)
def test_a_model_version_found_by_its_marker(
    name: str, turned: TurnedServer, emulator: EmulatorProcess, client: Tracking
) -> None:
    """A version whose create was answered by nobody is made once if it shows within ten minutes."""
    lag = MARKER_LAGS[name]
    model = f"hidden-for-{name}".replace(" ", "-")
    experiment = client.create_experiment(f"a version hidden for {name}")
    run = client.create_run(experiment, "hidden")
    client.upload(run, "model/MLmodel", b"flavors: {}")
    client.post("registered-models/create", {"name": model})
    emulator.settings(search_lag_seconds=FOR_EVER if lag else 0.0)
    emulator.add_fault(match="POST .*/model-versions/create$", effect="drop_answer", when="after", times=1)
    source = f"mlflow-artifacts:/{run.artifact_root}/model"
    client.post("model-versions/create", {"name": model, "source": source, "run_id": run.run_id})
    drain_over_time(turned, emulator, lag, MARKER_SETTLE)
    (held,) = (one for one in emulator.registered_models() if one["name"] == model)
    assert len(held["versions"]) == (1 if lag < MARKER_SETTLE else 2)


@pytest.mark.parametrize("name", POINT_LAGS)
def test_points(name: str, turned: TurnedServer, emulator: EmulatorProcess, client: Tracking) -> None:
    """Points whose batch was answered by nobody are there once if they show within a minute, or reported."""
    lag = POINT_LAGS[name]
    run = client.create_run(client.create_experiment(f"points hidden for {name}"), "hidden")
    drain_all(turned.server)
    emulator.settings(metric_lag_seconds=FOR_EVER if lag else 0.0)
    emulator.add_fault(match="POST .*/runs/log-batch$", effect="drop_answer", when="after", times=1)
    client.log_points(run, [("loss", step / 7, step) for step in range(5)])
    drain_over_time(turned, emulator, lag, POINT_SETTLE)
    counts = set(run_of(emulator, run.run_id).points.values())
    if lag < POINT_SETTLE:
        assert_delivered(emulator, run)
        assert verify(turned, run) == {}
    else:
        assert counts == {2}
        assert verify(turned, run).keys() == {"metric loss"}
