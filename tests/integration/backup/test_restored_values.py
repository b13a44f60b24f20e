"""What becomes of each kind of entry that a backup holds as undelivered and its server delivered later."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.integration.backup.conftest import Site, drained
from tests.support.tracking import Tracking
from tests.support.workspace import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = dict[str, Any]
Act = Callable[["Thing"], Awaitable[None]]
BIG = bytes(range(256)) * 512


async def nothing(thing: "Thing") -> None:
    """Nothing happens."""


@dataclass(slots=True)
class Thing:
    """A run, an experiment and a model of one story, and the server of the moment."""

    name: str
    server: Tracking
    run_id: str = ""
    experiment_id: str = ""
    model: str = ""

    async def post(self, path: str, **fields: Any) -> Json:
        return await self.server.post(path, **fields)

    async def run(self, path: str, **fields: Any) -> None:
        await self.post(f"runs/{path}", run_id=self.run_id, **fields)

    async def tag(self, value: str, key: str = "k") -> None:
        await self.run("set-tag", key=key, value=value)

    async def point(self, step: int, key: str = "m") -> None:
        await self.run("log-metric", key=key, value=step / 4, step=step, timestamp=1_700_000_000_000 + step)

    async def file(self, content: bytes, path: str = "f.bin") -> None:
        answer = await self.server.http.put(self._file_url(path), content=content)
        assert answer.status_code == 200, answer.text

    async def delete_file(self, path: str = "f.bin") -> None:
        answer = await self.server.http.delete(self._file_url(path))
        assert answer.status_code == 200, answer.text

    async def version(self) -> str:
        answer = await self.post("model-versions/create", name=self.model, source="s3://b/x")
        return str(answer["model_version"]["version"])

    async def change_model(self, method: str, path: str, **fields: Any) -> None:
        answer = await self.server.send(method, path, {"name": self.model, **fields})
        assert answer.status_code == 200, answer.text

    def _file_url(self, path: str) -> str:
        folder = f"{self.experiment_id}/{self.run_id}/artifacts"
        return f"/api/2.0/mlflow-artifacts/artifacts/{folder}/{path}"


@dataclass(frozen=True, slots=True)
class Story:
    """What was delivered `before` the backup, what it `held`, and what came `after`; and how that ends."""

    held: Act
    ends: Callable[[Json], object]
    expected: object
    before: Act = nothing
    after: Act = nothing
    parked: int = 0
    known: list[str] = field(default_factory=list)


def acts(*steps: Callable[["Thing"], Awaitable[Any]]) -> Act:
    """One thing after the other."""

    async def act(thing: Thing) -> None:
        for step in steps:
            await step(thing)

    return act


def tag_k(held: Json) -> object:
    """The tag that most stories are about."""
    return held["run"]["tags"].get("k")


def points(held: Json) -> object:
    """The steps of the metric, each as often as it is there."""
    return sorted(row["step"] for row in held["run"]["metrics"] if row["key"] == "m")


def sha(content: bytes) -> str:
    """How the workspace tells what a file holds."""
    return hashlib.sha256(content).hexdigest()


def file_sha(held: Json) -> object:
    """What the file holds."""
    return {item["path"]: item["sha256"] for item in held["run"]["artifacts"]}.get("f.bin")


def end(status: str, end_time: int) -> Callable[[Thing], Awaitable[None]]:
    """The end of the run."""
    return lambda thing: thing.run("update", status=status, end_time=end_time)


STORIES: dict[str, Story] = {
    "a tag that stayed": Story(lambda t: t.tag("b"), tag_k, "b", before=lambda t: t.tag("a")),
    "a tag set three times": Story(acts(*(lambda t, v=v: t.tag(v) for v in "abc")), tag_k, "c"),
    "a tag set and deleted": Story(
        acts(lambda t: t.tag("b"), lambda t: t.run("delete-tag", key="k")), tag_k, None
    ),
    "a newer tag, and nothing else to tell": Story(
        lambda t: t.tag("b"), tag_k, "c", after=lambda t: t.tag("c"), parked=1
    ),
    "a newer tag, and a newer point": Story(
        acts(lambda t: t.tag("b"), lambda t: t.point(1)),
        tag_k,
        "c",
        after=acts(lambda t: t.tag("c"), lambda t: t.point(2)),
    ),
    "a newer tag, and a newer param": Story(
        lambda t: t.tag("b"),
        tag_k,
        "c",
        after=acts(lambda t: t.tag("c"), lambda t: t.run("log-parameter", key="later", value="1")),
    ),
    "a deleted tag that is back": Story(
        lambda t: t.run("delete-tag", key="k"),
        tag_k,
        "c",
        before=lambda t: t.tag("a"),
        after=lambda t: t.tag("c"),
        parked=1,
    ),
    "a tag that is gone": Story(
        lambda t: t.tag("b"), tag_k, "b", after=lambda t: t.run("delete-tag", key="k")
    ),
    "points, and more points": Story(
        acts(*(lambda t, n=n: t.point(n) for n in range(5))),
        points,
        [0, 1, 2, 3, 4, 5, 6],
        before=lambda t: t.point(6),
        after=lambda t: t.point(5),
    ),
    "an end": Story(
        end("FINISHED", 7), lambda h: (h["run"]["status"], h["run"]["end_time"]), ("FINISHED", 7)
    ),
    "an end, resumed, and another end": Story(
        acts(lambda t: t.point(0), end("FINISHED", 7)),
        lambda h: (h["run"]["status"], h["run"]["end_time"]),
        ("FAILED", 9),
        after=acts(end("RUNNING", 7), lambda t: t.point(1), end("FAILED", 9)),
    ),
    "another end, and nothing else to tell": Story(
        end("FINISHED", 7),
        lambda h: h["run"]["status"],
        "FAILED",
        after=end("FAILED", 9),
        parked=1,
    ),
    "a newer name": Story(
        lambda t: t.run("update", run_name="b"),
        lambda h: h["run"]["name"],
        "c",
        after=lambda t: t.run("update", run_name="c"),
        parked=1,
    ),
    "a deleted run": Story(lambda t: t.run("delete"), lambda h: h["run"]["lifecycle_stage"], "deleted"),
    "a deleted and restored run": Story(
        acts(lambda t: t.run("delete"), lambda t: t.run("restore")),
        lambda h: h["run"]["lifecycle_stage"],
        "active",
    ),
    "a file": Story(lambda t: t.file(BIG + b"b"), file_sha, sha(BIG + b"b"), before=lambda t: t.file(BIG)),
    "a small file": Story(lambda t: t.file(b"b"), file_sha, sha(b"b")),
    "a file that was replaced": Story(
        lambda t: t.file(BIG + b"b"), file_sha, sha(b"c"), after=lambda t: t.file(b"c"), parked=1
    ),
    "a deleted file": Story(lambda t: t.delete_file(), file_sha, None, before=lambda t: t.file(BIG)),
    "a deleted file that is back": Story(
        lambda t: t.delete_file(),
        file_sha,
        sha(b"c"),
        before=lambda t: t.file(BIG),
        after=lambda t: t.file(b"c"),
        parked=1,
    ),
    "an experiment's tag": Story(
        lambda t: t.post("experiments/set-experiment-tag", experiment_id=t.experiment_id, key="k", value="b"),
        lambda h: h["experiment"]["tags"]["k"],
        "b",
    ),
    "an experiment's newer tag": Story(
        lambda t: t.post("experiments/set-experiment-tag", experiment_id=t.experiment_id, key="k", value="b"),
        lambda h: h["experiment"]["tags"]["k"],
        "c",
        after=lambda t: t.post(
            "experiments/set-experiment-tag", experiment_id=t.experiment_id, key="k", value="c"
        ),
        parked=1,
    ),
    "a version": Story(lambda t: t.version(), lambda h: len(h["model"]["versions"]), 1),
    "a version, and another": Story(
        lambda t: t.version(),
        lambda h: len(h["model"]["versions"]),
        3,
        before=lambda t: t.version(),
        after=lambda t: t.version(),
    ),
    "a model's newer description": Story(
        lambda t: t.change_model("PATCH", "registered-models/update", description="b"),
        lambda h: h["model"]["description"],
        "c",
        after=lambda t: t.change_model("PATCH", "registered-models/update", description="c"),
        parked=1,
    ),
    "a model's newer tag, and a newer version": Story(
        lambda t: t.change_model("POST", "registered-models/set-tag", key="k", value="b"),
        lambda h: [item["value"] for item in h["model"]["tags"] if item["key"] == "k"],
        ["c"],
        after=acts(
            lambda t: t.change_model("POST", "registered-models/set-tag", key="k", value="c"),
            lambda t: t.version(),
        ),
    ),
    "a version's newer stage": Story(
        lambda t: t.change_model("POST", "model-versions/transition-stage", version="1", stage="Staging"),
        lambda h: h["model"]["versions"][0]["current_stage"],
        "Production",
        before=lambda t: t.version(),
        after=lambda t: t.change_model(
            "POST", "model-versions/transition-stage", version="1", stage="Production"
        ),
        parked=1,
    ),
}


async def _thing(server: Tracking, site: Site, name: str) -> Thing:
    title = re.sub("[^a-z]+", "-", f"{name} on {site.kind}")
    thing = Thing(title, server, model=title)
    thing.experiment_id = await server.experiment(name=title)
    thing.run_id = await server.run(experiment_id=thing.experiment_id, run_name="a")
    await server.post("registered-models/create", name=title)
    return thing


def _held(site: Site, thing: Thing) -> Json:
    """What the workspace has of it."""
    experiments = {item["name"]: item for item in site.emulator.experiments()}
    models = {item["name"]: item for item in site.emulator.registered_models()}
    return {
        "run": site.emulator.run(thing.run_id),
        "experiment": experiments[thing.name],
        "model": models[thing.model],
    }


async def _parked(server: Tracking) -> list[Json]:
    answer = await server.get("/api/2.0/mlproxy/parked")
    return list(answer["parked"])


async def test_what_was_delivered_after_the_backup_stands(site: Site) -> None:
    """Whatever the workspace shows after the restored journal is drained is what the lost server left there;
    only what nobody can tell is parked.
    """
    first = site.place()
    async with site.server(first) as server:
        things = {name: await _thing(server, site, name) for name in STORIES}
        for name, story in STORIES.items():
            await story.before(things[name])
        assert await drained(server) == 0
        site.cut_off()
        for name, story in STORIES.items():
            await story.held(things[name])
        file = await site.back_up(first)
        site.emulator.clear_faults()
        for name, story in STORIES.items():
            await story.after(things[name])
        assert await drained(server) == 0
    left = {name: STORIES[name].ends(_held(site, thing)) for name, thing in things.items()}
    second = site.place()
    site.restore(file, second)
    async with site.server(second) as server:
        parked = await drained(server)
        expected = {name: story.expected for name, story in STORIES.items()}
        ended = {name: STORIES[name].ends(_held(site, thing)) for name, thing in things.items()}
        assert ended == expected
        assert {**left, "a tag that is gone": "b"} == expected
        listed = await _parked(server)
        assert parked == len(listed) == sum(story.parked for story in STORIES.values()), listed
        assert {item["reason"] for item in listed} == {"uncertain_outcome"}


async def test_numbers_given_out_again_do_not_meet(site: Site) -> None:
    """A version made after a restore is never taken for the lost version of the same number."""
    first = site.place()
    name = f"twice-two-on-{site.kind}"
    async with site.server(first) as server:
        thing = Thing(name, server, model=name)
        await server.post("registered-models/create", name=name)
        assert await thing.version() == "1"
        assert await drained(server) == 0
        file = await site.back_up(first)
        assert await thing.version() == "2"
        lost_experiment = int(await server.experiment(name=f"lost on {site.kind}"))
        assert await drained(server) == 0
    second = site.place()
    site.restore(file, second)
    async with site.server(second) as server:
        thing.server = server
        # Nobody knows what became of its creation, so it is looked for.
        site.emulator.add_fault(
            match="POST .*/model-versions/create$", effect="drop_answer", when="before", times=1
        )
        assert await thing.version() == "2"
        assert int(await server.experiment(name=f"found on {site.kind}")) > lost_experiment
        assert await drained(server) == 0
        here = (await server.get(f"/api/2.0/mlproxy/models/{name}"))["versions"]
        assert [item["upstream_version"] for item in here] == ["1", "3"]
    models = {item["name"]: item for item in site.emulator.registered_models()}
    assert len(models[name]["versions"]) == 3


async def test_a_parked_point_that_was_retried_since_is_not_doubled(site: Site) -> None:
    """What a backup holds as parked may have been retried and delivered: retried again, it is looked for."""
    first = site.place()
    async with site.server(first) as server:
        thing = await _thing(server, site, "a parked point")
        assert await drained(server) == 0
        refusal = {"error_code": "INVALID_PARAMETER_VALUE", "message": "not today"}
        site.emulator.add_fault(
            match="POST .*/log-batch$", effect="status", status=400, body=refusal, times=1
        )
        await thing.point(3)
        assert await drained(server) == 1
        file = await site.back_up(first)
        await server.post("/api/2.0/mlproxy/parked/retry", all=True)
        assert await drained(server) == 0
        assert points(_held(site, thing)) == [3]
    second = site.place()
    site.restore(file, second)
    async with site.server(second) as server:
        assert await drained(server) == 1
        await server.post("/api/2.0/mlproxy/parked/retry", all=True)
        assert await drained(server) == 0
        assert points(_held(site, thing)) == [3]


async def test_a_long_backlog_of_which_half_was_delivered(site: Site) -> None:
    """Of thousands of restored points those that had arrived stay, and the others follow, in order."""
    first, second = site.place(), site.place()
    async with site.server(first) as server:
        thing = await _thing(server, site, "a long backlog")
        assert await drained(server) == 0
        site.cut_off()
        for start in range(0, 2_000, 500):
            rows = [
                {"key": key, "value": step / 4, "step": step, "timestamp": 1_700_000_000_000 + step}
                for step in range(start, start + 500)
                for key in ("m", "other")
            ]
            await thing.run("log-batch", metrics=rows)
        file = await site.back_up(first)
        site.emulator.clear_faults()
        site.emulator.add_fault(match="POST .*/log-batch$", effect="status", status=503, after_calls=3)
        await asyncio.to_thread(_wait_for_hit, site)
    site.emulator.clear_faults()
    arrived = points(_held(site, thing))
    assert isinstance(arrived, list)
    assert 0 < len(arrived) < 2_000
    site.restore(file, second)
    async with site.server(second) as server:
        assert await drained(server) == 0
    rows = site.emulator.run(thing.run_id)["metrics"]
    for key in ("m", "other"):
        assert [row["step"] for row in rows if row["key"] == key] == list(range(2_000))


def _wait_for_hit(site: Site) -> None:
    """Until a call has met the workspace's one fault."""
    wait_until(lambda: site.emulator.faults()[0]["hits"], within=120, what="a call that fails")
