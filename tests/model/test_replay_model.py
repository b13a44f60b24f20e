"""In any order of writes, crashes, faults and time, reads and at last the workspace equal the model.

A Hypothesis state machine drives a real proxy process and a real emulator process against the page of
`model.py`. `MLPROXY_TEST_EXAMPLES` is how many sequences are tried; without it they are always the same ones.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.durability.tracking import BASE_MS
from tests.model.model import RUNNING, Model, ModelRun
from tests.model.world import World
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.workspace import PARENT_TAG, run_of, runs_of

pytestmark = pytest.mark.fault("1", "5", "6", "8", "11", "13")
EXAMPLES = int(os.environ.get("MLPROXY_TEST_EXAMPLES") or 0)
STEPS = 30
# Less than the shortest settle time: what is hidden for longer may be sent twice.
LONGEST_HIDDEN = 45.0
CALLS = (
    "/mlflow/",
    "/history/",
    "/artifact/",
    "log-batch$",
    "PATCH .*/runs/",
    "runs/update$",
    "PUT ",
    "create$",
)
# What is refused here and retried later may come out of order, and nothing else.
REFUSABLE = ("POST .*/runs/log-batch$", "POST .*/runs/delete-tag$", "PUT .*/azureml/")
PLACES = (
    "commit.before",
    "commit.after",
    "send.before",
    "send.after",
    "run.made",
    "experiment.made",
    "spool.flushed",
    "upload.registered",
    "upload.committed",
    "upload.recorded",
    "uncertain.read",
)
keys = st.sampled_from(["a", "b", "c d", "é/x"])
values = st.sampled_from([0.0, -1.5, 0.1, 1e300, 3.0])
texts = st.sampled_from(["", "x", "ünï", "y" * 300])
steps = st.integers(0, 6)
paths = st.sampled_from(["a.txt", "dir/b.bin", "dir/deep/c d.txt"])
contents = st.sampled_from([b"", b"small", b"other", b"s" * 70_000])
statuses = st.sampled_from(["FINISHED", "FAILED", "KILLED"])


class ReplayMachine(RuleBasedStateMachine):
    """One sequence. The processes live on from sequence to sequence, the experiments are new."""

    sequences = 0

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model = Model()
        self.touched: ModelRun | None = None
        self.hidden = 0.0
        self.is_hiding = False
        self.was_refused = False

    # --- clients ---

    @initialize()
    def begin(self) -> None:
        ReplayMachine.sequences += 1
        self.create_experiment()
        self.create_run(0, None)

    @precondition(lambda self: len(self.model.experiments) < 3)
    @rule()
    def create_experiment(self) -> None:
        name = f"sequence {ReplayMachine.sequences} experiment {len(self.model.experiments)}"
        answer = self.world.insist(lambda: self.world.post("experiments/create", {"name": name}))
        if not answer.is_success:
            assert "already exists" in answer.text, answer.text
            answer = self.world.http.get(
                "/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": name}
            )
            self.model.experiments[name] = answer.json()["experiment"]["experiment_id"]
            return
        self.model.experiments[name] = answer.json()["experiment_id"]

    @precondition(lambda self: len(self.model.runs) < 5)
    @rule(experiment=st.integers(0, 2), parent=st.none() | st.integers(0, 4))
    def create_run(self, experiment: int, parent: int | None) -> None:
        ids = list(self.model.experiments.values())
        above = None if parent is None or not self.model.runs else self.pick(parent)
        number = len(self.model.runs)
        body: dict[str, Any] = {
            "experiment_id": ids[experiment % len(ids)],
            "run_name": f"run {number}",
            "start_time": BASE_MS + number,
        }
        if above is not None:
            body["tags"] = [{"key": PARENT_TAG, "value": above.run_id}]

        def lost() -> None:
            self.model.lost_creates += 1

        info = self.accepted(lambda: self.world.post("runs/create", body), lost=lost)["run"]["info"]
        root = info["artifact_uri"].partition(":")[2].strip("/")
        self.model.runs.append(ModelRun(info["run_id"], root, body["run_name"], above))

    @rule(run=st.integers(0, 4), points=st.lists(st.tuples(keys, steps, values), min_size=1, max_size=8))
    def log_points(self, run: int, points: list[tuple[str, int, float]]) -> None:
        told = self.pick(run)
        rows = [
            {"key": key, "value": value, "timestamp": BASE_MS + step, "step": step}
            for key, step, value in points
        ]
        self.accepted(lambda: self.world.post("runs/log-batch", {"run_id": told.run_id, "metrics": rows}))
        for key, step, value in points:
            told.log(key, step, value)

    @rule(run=st.integers(0, 4), key=keys, value=texts)
    def log_param(self, run: int, key: str, value: str) -> None:
        told = self.pick(run)
        body = {"run_id": told.run_id, "key": key, "value": value}
        answer = self.world.insist(lambda: self.world.post("runs/log-parameter", body))
        assert answer.status_code == (200 if told.accepts_param(key, value) else 400), answer.text
        told.params.setdefault(key, value)

    @rule(run=st.integers(0, 4), key=keys, value=texts)
    def set_tag(self, run: int, key: str, value: str) -> None:
        told = self.pick(run)
        body = {"run_id": told.run_id, "key": key, "value": value}
        self.accepted(lambda: self.world.post("runs/set-tag", body))
        told.tags[key] = value

    @rule(run=st.integers(0, 4), key=keys)
    def delete_tag(self, run: int, key: str) -> None:
        told = self.pick(run)
        lives = self.world.lives
        body = {"run_id": told.run_id, "key": key}
        answer = self.world.insist(lambda: self.world.post("runs/delete-tag", body))
        # After a death in the middle it may be gone already.
        assert answer.is_success is (key in told.tags) or self.world.lives > lives, answer.text
        told.tags.pop(key, None)

    @rule(run=st.integers(0, 4), status=statuses)
    def end(self, run: int, status: str) -> None:
        told = self.pick(run)
        told.end(status)
        body = {"run_id": told.run_id, "status": status, "end_time": told.end_time}
        self.accepted(lambda: self.world.post("runs/update", body))

    @rule(run=st.integers(0, 4))
    def resume(self, run: int) -> None:
        told = self.pick(run)
        told.status = RUNNING
        self.accepted(lambda: self.world.post("runs/update", {"run_id": told.run_id, "status": RUNNING}))

    @rule(run=st.integers(0, 4), path=paths, content=contents)
    def upload(self, run: int, path: str, content: bytes) -> None:
        told = self.pick(run)
        self.accepted(lambda: self.world.file("PUT", told.artifact_root, path, content))
        told.files[path] = content

    @rule(run=st.integers(0, 4), path=paths)
    def delete_file(self, run: int, path: str) -> None:
        told = self.pick(run)
        self.accepted(lambda: self.world.file("DELETE", told.artifact_root, path))
        told.files.pop(path, None)

    # --- the proxy ---

    @rule()
    def kill(self) -> None:
        self.world.kill()

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule(place=st.sampled_from(PLACES), count=st.integers(1, 4))
    def die_at(self, place: str, count: int) -> None:
        self.world.arm(f"{place}=kill@{count}")

    @rule()
    def deliver(self) -> None:
        self.world.deliver_for_a_while()

    @rule(seconds=st.sampled_from([1.0, 20.0, 301.0, 700.0, 100_000.0]))
    def let_time_pass(self, seconds: float) -> None:
        if self.is_hiding:
            seconds = min(seconds, LONGEST_HIDDEN - self.hidden)
            self.hidden += seconds
        self.world.turned.let_pass(seconds)

    # --- the workspace ---

    @rule(
        call=st.sampled_from(CALLS),
        effect=st.sampled_from(["drop_answer", "status", "html", "cut_body"]),
        when=st.sampled_from(["before", "after"]),
        status=st.sampled_from([500, 502, 503, 504]),
        times=st.integers(1, 2),
    )
    def break_calls(self, call: str, effect: str, when: str, status: int, times: int) -> None:
        fault: dict[str, object] = {"effect": effect, "when": when, "times": times}
        if effect == "status":
            fault["status"] = status
        self.world.emulator.add_fault(match=call, **fault)

    @rule(call=st.sampled_from(CALLS), status=st.sampled_from([401, 403, 408, 429]), after=st.booleans())
    def refuse_for_now(self, call: str, status: int, after: bool) -> None:
        headers = {"Retry-After": "30"} if after and status == 429 else {}
        self.world.emulator.add_fault(match=call, effect="status", status=status, headers=headers, times=2)

    @rule(call=st.sampled_from(REFUSABLE), times=st.integers(1, 3))
    def refuse_for_good(self, call: str, times: int) -> None:
        self.was_refused = True
        body = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Not today."}
        self.world.emulator.add_fault(match=call, effect="status", status=400, body=body, times=times)

    @precondition(lambda self: self.was_refused)
    @rule()
    def retry_what_is_parked(self) -> None:
        self.world.retry_parked()

    @rule()
    def cut_off(self) -> None:
        self.world.emulator.add_fault(match="", effect="drop_answer", when="before")

    @rule()
    def come_back(self) -> None:
        self.world.emulator.clear_faults()

    @precondition(lambda self: self.hidden == 0.0)
    @rule()
    def hide_what_is_new(self) -> None:
        self.is_hiding = True
        self.world.emulator.settings(search_lag_seconds=1e9, metric_lag_seconds=1e9)

    @precondition(lambda self: self.is_hiding)
    @rule()
    def show_it(self) -> None:
        self.is_hiding = False
        self.hidden = LONGEST_HIDDEN
        self.world.emulator.settings(search_lag_seconds=0.0, metric_lag_seconds=0.0)

    # --- what must hold ---

    @invariant()
    def reads_equal_the_model(self) -> None:
        if (run := self.touched) is None:
            return
        read = self.world.insist(lambda: self.world.get("runs/get", run_id=run.run_id))["run"]
        data = read["data"]
        tags = {tag["key"]: tag["value"] for tag in data["tags"] if not tag["key"].startswith("mlflow.")}
        assert tags == run.tags
        assert {param["key"]: param["value"] for param in data.get("params", [])} == run.params
        latest = {
            row["key"]: (row["step"], row["timestamp"], row["value"]) for row in data.get("metrics", [])
        }
        assert latest == {key: (at[1], at[2], float(at[3])) for key, at in run.latest.items()}
        assert (read["info"]["status"], read["info"].get("end_time")) == (run.status, run.end_time)
        for path, content in run.files.items():
            held = self.world.insist(lambda path=path: self.world.file("GET", run.artifact_root, path))
            assert held.status_code in (200, 503), held.text
            assert held.status_code == 503 or held.content == content
        self.touched = None

    def teardown(self) -> None:
        """Everything heals, what is parked is retried; then the workspace equals the model.

        A fresh write goes through at once.
        """
        if not self.model.runs:
            return
        self.world.heal()
        self.world.drain(may_park=self.was_refused)
        if self.was_refused:
            self.world.retry_parked()
            self.world.drain()
        for run in self.model.runs:
            self.compare(run)
        known = {run.run_id for run in self.model.runs}
        made = {held.run_id for name in self.model.experiments for held in runs_of(self.world.emulator, name)}
        assert known <= made
        assert len(made - known) <= self.model.lost_creates
        self.log_points(0, [("fresh", 0, 1.0)])
        self.world.drain()
        self.compare(self.model.runs[0])

    def compare(self, run: ModelRun) -> None:
        held = run_of(self.world.emulator, run.run_id)
        assert Counter(held.points_in_order) == Counter(run.points)
        assert self.was_refused or held.points_in_order == run.points
        assert held.params == run.params
        tags = {key: value for key, value in held.tags.items() if not key.startswith(("mlflow.", "mlproxy."))}
        assert tags == run.tags
        assert held.files == run.digests
        assert (held.status, held.document["end_time"]) == (run.status, run.end_time)
        assert held.document["parent_run_id"] == (run.parent.run_id if run.parent else None)

    # --- inside ---

    def pick(self, number: int) -> ModelRun:
        self.touched = self.model.runs[number % len(self.model.runs)]
        return self.touched

    def accepted(
        self, call: Callable[[], httpx.Response], *, lost: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        answer = self.world.insist(call, lost=lost)
        assert answer.is_success, f"{answer.request.url}: {answer.status_code} {answer.text}"
        return dict(answer.json())


@pytest.fixture
def world(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A proxy and a workspace."""
    with EmulatorProcess.start(tmp_path_factory.mktemp("emulator")) as emulator:
        running = World.start(emulator, tmp_path_factory.mktemp("model"), nursery)
        yield running
        running.close()


def test_reads_and_the_workspace_equal_the_model(world: World) -> None:
    """Every sequence ends with the workspace holding exactly what was acknowledged, each thing once."""
    run_state_machine_as_test(
        lambda: ReplayMachine(world),
        settings=settings(
            max_examples=EXAMPLES or 15,
            stateful_step_count=STEPS,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    print(f"{ReplayMachine.sequences} sequences, {world.lives} lives of the proxy")
    assert world.lives > 1
