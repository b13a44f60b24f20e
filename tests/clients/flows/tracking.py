"""Flows about experiments, runs, and what is logged to them."""

import math
import time
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from recording import VERSION, FlowSkippedError, Recorder, flow

BASE_MS = 1_700_000_000_000
MISSING_RUN = "0" * 32
IS_2 = VERSION >= (2, 0)


def experiment(name: str) -> str:
    """An experiment of this flow's own, made current."""
    return str(mlflow.set_experiment(name).experiment_id)


@flow
def set_experiment_new(record: Recorder) -> None:
    """An experiment that does not exist yet is made current."""
    record.note("set", mlflow.set_experiment("flows/new"))
    record.note("by name", mlflow.get_experiment_by_name("flows/new"))
    record.note("absent", mlflow.get_experiment_by_name("flows/absent"))


@flow
def set_experiment_existing(record: Recorder) -> None:
    """An experiment that exists is made current, by name and by id; bad names and ids are refused."""
    client = MlflowClient()
    created = client.create_experiment("flows/existing", tags={"team": "vision", "empty": ""})
    record.note("by name", mlflow.set_experiment("flows/existing"))
    record.note("by id", mlflow.set_experiment(experiment_id=created))
    record.error("again", lambda: client.create_experiment("flows/existing"))
    record.error("missing id", lambda: client.get_experiment("987654321"))
    record.error("odd id", lambda: client.get_experiment("abc"))
    record.error("long name", lambda: client.create_experiment("x" * 501))
    record.error("empty name", lambda: client.create_experiment(""))
    record.note("default", client.get_experiment("0"))


@flow
def experiment_admin(record: Recorder) -> None:
    """Experiments are tagged, renamed, deleted and restored."""
    client = MlflowClient()
    created = client.create_experiment("flows/admin")
    client.set_experiment_tag(created, "k", "v")
    client.set_experiment_tag(created, "k", "w")
    client.set_experiment_tag(created, "mlflow.note.content", "ünïcode “note”")
    record.error("long tag", lambda: client.set_experiment_tag(created, "x" * 251, "v"))
    record.error("odd tag", lambda: client.set_experiment_tag(created, "a//b", "v"))
    client.rename_experiment(created, "flows/renamed")
    record.note("renamed", client.get_experiment(created))
    client.create_experiment("flows/taken")
    record.error("taken", lambda: client.rename_experiment(created, "flows/taken"))
    if VERSION >= (3, 0):
        client.delete_experiment_tag(created, "k")
        record.error("tag is gone", lambda: client.delete_experiment_tag(created, "k"))
    client.delete_experiment(created)
    record.note("deleted", client.get_experiment(created))
    record.error("rename deleted", lambda: client.rename_experiment(created, "flows/other"))
    record.error("tag deleted", lambda: client.set_experiment_tag(created, "k", "v"))
    record.error("set deleted", lambda: mlflow.set_experiment("flows/renamed"))
    record.error("run in deleted", lambda: client.create_run(created))
    record.error("delete twice", lambda: client.delete_experiment(created))
    client.restore_experiment(created)
    record.error("restore twice", lambda: client.restore_experiment(created))
    record.note("restored", client.get_experiment(created))
    record.error("delete missing", lambda: client.delete_experiment("987654321"))
    record.error("restore missing", lambda: client.restore_experiment("987654321"))
    record.error("rename missing", lambda: client.rename_experiment("987654321", "flows/x"))
    record.error("tag missing", lambda: client.set_experiment_tag("987654321", "a", "b"))


@flow
def start_run(record: Recorder) -> None:
    """A run starts and ends, with a name and without one."""
    experiment("flows/runs")
    with mlflow.start_run(run_name="named", tags={"at-start": "yes"}, description="a note") as run:
        record.note("started", run)
        record.note("while it runs", mlflow.get_run(run.info.run_id))
    record.note("named", mlflow.get_run(run.info.run_id))
    with mlflow.start_run() as run:
        pass
    record.note("unnamed", mlflow.get_run(run.info.run_id))
    record.error("missing", lambda: mlflow.get_run(MISSING_RUN))
    record.error("odd id", lambda: mlflow.get_run("no such run"))


@flow
def create_run(record: Recorder) -> None:
    """Runs are created, ended and changed with the client, without the fluent API."""
    client, own = MlflowClient(), experiment("flows/create")
    run = record.note("plain", client.create_run(own))
    record.note("full", client.create_run(own, start_time=BASE_MS, tags={"a": "b", "mlflow.user": "someone"}))
    if IS_2:
        record.note("name", client.create_run(own, run_name="given"))
        record.error(
            "name and tag", lambda: client.create_run(own, {"mlflow.runName": "one"}, run_name="two")
        )
        record.note("name by tag", client.create_run(own, tags={"mlflow.runName": "by tag"}))
    record.error("missing experiment", lambda: client.create_run("987654321"))
    record.error("odd experiment", lambda: client.create_run("abc"))
    client.set_terminated(run.info.run_id, "KILLED", BASE_MS + 5)
    record.note("killed", client.get_run(run.info.run_id))
    if IS_2:
        client.update_run(run.info.run_id, status="RUNNING")
        client.update_run(run.info.run_id, name="renamed")
        record.note("updated", client.get_run(run.info.run_id))
        record.error("odd status", lambda: client.update_run(run.info.run_id, status="NONSENSE"))
    record.error("end missing", lambda: client.set_terminated(MISSING_RUN))


@flow
def nested_runs(record: Recorder) -> None:
    """Runs hold runs, which hold runs."""
    own = experiment("flows/nested")
    with mlflow.start_run(run_name="parent") as parent:
        for number in range(2):
            with mlflow.start_run(run_name=f"child {number}", nested=True) as child:
                mlflow.log_metric("loss", 0.5 / (number + 1), timestamp=BASE_MS) if IS_2 else None
                with mlflow.start_run(run_name="grandchild", nested=True):
                    mlflow.log_param("deep", number)
            record.note("child", mlflow.get_run(child.info.run_id))
            time.sleep(0.005)
    if VERSION >= (2, 3):
        record.note("parent", mlflow.get_parent_run(child.info.run_id))
        record.note("no parent", mlflow.get_parent_run(parent.info.run_id))
    children = MlflowClient().search_runs(
        [own], f"tags.mlflow.parentRunId = '{parent.info.run_id}'", order_by=["attributes.start_time ASC"]
    )
    record.note("children", [found.info.run_name for found in children])


@flow
def resume_run(record: Recorder) -> None:
    """A run that ended goes on."""
    experiment("flows/resume")
    with mlflow.start_run(run_name="stops") as run:
        mlflow.log_param("a", 1)
    with mlflow.start_run(run_id=run.info.run_id) as resumed:
        record.note("resumed", resumed)
        mlflow.log_param("b", 2)
    record.note("ended again", mlflow.get_run(run.info.run_id))
    record.error("missing", lambda: mlflow.start_run(run_id=MISSING_RUN))


@flow
def failed_run(record: Recorder) -> None:
    """A run ends with the error of its training."""
    experiment("flows/failed")
    try:
        with mlflow.start_run(run_name="fails") as run:
            mlflow.log_param("a", 1)
            raise RuntimeError("the training broke")
    except RuntimeError:
        record.note("failed", mlflow.get_run(run.info.run_id))


@flow
def log_metric(record: Recorder) -> None:
    """Points of every kind are logged one by one and read back; bad ones are refused."""
    own, client = experiment("flows/metric"), MlflowClient()
    run_id = client.create_run(own).info.run_id
    points = [
        ("loss", 0.1, BASE_MS, 0),
        ("loss", 0.1, BASE_MS, 0),
        ("loss", 0.2, BASE_MS + 1, 1),
        ("loss", 0.3, BASE_MS - 1, 1),
        ("loss", 5.0, BASE_MS + 10, 2),
        ("loss", 9.0, BASE_MS + 99, 1),
        ("loss", 7.0, BASE_MS + 9, 2),
        ("loss", 6.0, BASE_MS + 10, 2),
        ("odd", math.nan, BASE_MS, 0),
        ("odd", math.inf, BASE_MS, 1),
        ("odd", -math.inf, BASE_MS, 2),
        ("odd", 5e-324, BASE_MS, 3),
        ("odd", 123456789.123456789, BASE_MS, -5),
        ("ends in nan", 1.0, BASE_MS, 0),
        ("ends in nan", math.nan, BASE_MS, 1),
        ("whole", 3.0, BASE_MS, 0),
        ("big", 1e300, BASE_MS, 2**40),
        ("name with space/and.dots-and_more:colon", 1.5, 0, 0),
    ]
    for key, value, timestamp, step in points:
        client.log_metric(run_id, key, value, timestamp, step)
    record.note("run", client.get_run(run_id))
    for key in ("loss", "odd", "ends in nan", "big", "absent"):
        record.note(f"history of {key}", client.get_metric_history(run_id, key))
    record.error("no key", lambda: client.log_metric(run_id, "", 1.0, BASE_MS))
    record.error("long key", lambda: client.log_metric(run_id, "x" * 251, 1.0, BASE_MS))
    record.error("odd key", lambda: client.log_metric(run_id, "a//b", 1.0, BASE_MS))
    record.error("up", lambda: client.log_metric(run_id, "../a", 1.0, BASE_MS))
    record.error("bad characters", lambda: client.log_metric(run_id, "a&b=c?", 1.0, BASE_MS))
    record.error("negative time", lambda: client.log_metric(run_id, "t", 1.0, -1))
    record.error("text", lambda: client.log_metric(run_id, "t", "much", BASE_MS))
    record.error("missing run", lambda: client.log_metric(MISSING_RUN, "a", 1.0, BASE_MS))
    record.error("history of a missing run", lambda: client.get_metric_history(MISSING_RUN, "a"))
    client.set_terminated(run_id)
    record.error("after the end", lambda: client.log_metric(run_id, "late", 1.0, BASE_MS))
    client.delete_run(run_id)
    record.error("after deletion", lambda: client.log_metric(run_id, "later", 1.0, BASE_MS))


@flow
def log_param(record: Recorder) -> None:
    """Params are logged, never changed, and cut when they are too long."""
    own, client = experiment("flows/param"), MlflowClient()
    run_id = client.create_run(own).info.run_id
    for key, value in [("a", 1), ("a", 1), ("empty", ""), ("blank", " "), ("text", "ünïcode “quoted”\n\t")]:
        client.log_param(run_id, key, value)
    record.error("changed", lambda: client.log_param(run_id, "a", 2))
    record.error("no key", lambda: client.log_param(run_id, "", 2))
    record.error("long key", lambda: client.log_param(run_id, "x" * 251, 2))
    record.error("odd key", lambda: client.log_param(run_id, "a/../b", 2))
    record.error("longest value", lambda: client.log_param(run_id, "longest", "x" * 6000))
    record.error("long value", lambda: client.log_param(run_id, "long", "x" * 6001))
    record.error("missing run", lambda: client.log_param(MISSING_RUN, "a", 1))
    record.note("run", client.get_run(run_id))
    client.delete_run(run_id)
    record.error("after deletion", lambda: client.log_param(run_id, "later", 1))


@flow
def set_tag(record: Recorder) -> None:
    """Tags are set, changed and deleted."""
    own, client = experiment("flows/tag"), MlflowClient()
    run_id = client.create_run(own).info.run_id
    for key, value in [
        ("a", "1"),
        ("a", "2"),
        ("empty", ""),
        ("gone", "x"),
        ("number", 3),
        ("text", "ü\n“”"),
    ]:
        client.set_tag(run_id, key, value)
    client.delete_tag(run_id, "gone")
    record.error("delete again", lambda: client.delete_tag(run_id, "gone"))
    record.error("no key", lambda: client.set_tag(run_id, "", "v"))
    record.error("long key", lambda: client.set_tag(run_id, "x" * 251, "v"))
    record.error("longest value", lambda: client.set_tag(run_id, "longest", "x" * 8000))
    record.error("long value", lambda: client.set_tag(run_id, "long", "x" * 8001))
    record.error("missing run", lambda: client.set_tag(MISSING_RUN, "a", "v"))
    record.error("delete of a missing run", lambda: client.delete_tag(MISSING_RUN, "a"))
    client.set_tag(run_id, "mlflow.runName", "renamed by tag")
    client.set_tag(run_id, "mlflow.note.content", "a *note*")
    record.note("run", client.get_run(run_id))
    client.delete_run(run_id)
    record.error("after deletion", lambda: client.set_tag(run_id, "a", "v"))
    record.error("delete after deletion", lambda: client.delete_tag(run_id, "a"))


@flow
def log_batches(record: Recorder) -> None:
    """Many values are logged at once, up to the limits and beyond."""
    own, client = experiment("flows/batches"), MlflowClient()
    with mlflow.start_run(run_name="batches") as run:
        mlflow.log_metrics({"m1": 1.0, "m2": 2.0}, step=3)
        mlflow.log_params({f"p{number}": number for number in range(150)})
        mlflow.set_tags({f"t{number}": number for number in range(30)})
    record.note("run", mlflow.get_run(run.info.run_id))
    run_id = client.create_run(own).info.run_id
    many = [Metric("many", number / 7, BASE_MS + number, number) for number in range(1001)]
    record.error("too many metrics", lambda: client.log_batch(run_id, metrics=many))
    params = [Param(f"p{number}", "v") for number in range(101)]
    record.error("too many params", lambda: client.log_batch(run_id, params=params))
    tags = [RunTag(f"t{number}", "v") for number in range(101)]
    record.error("too many tags", lambda: client.log_batch(run_id, tags=tags))
    record.error("too many in all", lambda: client.log_batch(run_id, many[:1000], params[:1]))
    client.log_batch(run_id, many[:900], params[:50], tags[:50])
    client.log_batch(run_id)
    record.note("history", client.get_metric_history(run_id, "many")[-3:])
    twice = [Param("twice", "1"), Param("twice", "2")]
    record.error("a param twice", lambda: client.log_batch(run_id, params=twice))
    changed = [Param("new", "1"), Param("p1", "w")]
    record.error("a param changed", lambda: client.log_batch(run_id, many[900:910], params=changed))
    record.error("bad metric", lambda: client.log_batch(run_id, [Metric("a//b", 1.0, BASE_MS, 0)]))
    record.error("bad time", lambda: client.log_batch(run_id, [Metric("ab", 1.0, -1, 0)]))
    record.error("bad tag", lambda: client.log_batch(run_id, tags=[RunTag("x" * 251, "v")]))
    record.error("bad param", lambda: client.log_batch(run_id, params=[Param("x" * 251, "v")]))
    record.error("missing run", lambda: client.log_batch(MISSING_RUN, params=params[:1]))
    record.note("in the end", client.get_run(run_id))


@flow(since=(2, 8))
def async_logging(record: Recorder) -> None:
    """Values are logged in the background."""
    experiment("flows/async")
    with mlflow.start_run(run_name="async") as run:
        for step in range(20):
            mlflow.log_metric("loss", 1 / (step + 1), step=step, synchronous=False)
        mlflow.log_params({"a": 1}, synchronous=False)
        mlflow.set_tag("late", "yes", synchronous=False)
        last = mlflow.log_metrics({"last": 1.0}, step=1, synchronous=False)
        last.wait()
    client = MlflowClient()
    record.wait_for(lambda: len(client.get_metric_history(run.info.run_id, "loss")) == 20)
    run = client.get_run(run.info.run_id)
    record.note("metrics", run.data.metrics)
    record.note("params", run.data.params)
    record.note("tags", run.data.tags)


@flow
def metric_history(record: Recorder) -> None:
    """A history of several requests is read back in pages."""
    own, client = experiment("flows/history"), MlflowClient()
    run_id = client.create_run(own).info.run_id
    for start in range(0, 3000, 1000):
        numbers = range(start, start + 1000)
        client.log_batch(run_id, [Metric("loss", number / 7, BASE_MS + number, number) for number in numbers])
    history = client.get_metric_history(run_id, "loss")
    record.note("length", len(history))
    record.note("some", history[::500])
    record.note("run", client.get_run(run_id))


@flow
def log_input(record: Recorder) -> None:
    """Datasets are noted, and runs found by them."""
    if VERSION < (2, 4):
        raise FlowSkippedError("datasets came with 2.4")
    own, client = experiment("flows/input"), MlflowClient()
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]})
    other = pd.DataFrame({"x": [3.0], "y": [1]})
    with mlflow.start_run(run_name="inputs") as run:
        mlflow.log_input(mlflow.data.from_pandas(frame, source="memory", name="points"), context="training")
        mlflow.log_input(mlflow.data.from_pandas(other, source="memory", name="more"), context="test")
        mlflow.log_input(mlflow.data.from_pandas(frame, source="memory", name="points"), context="training")
        mlflow.log_input(mlflow.data.from_pandas(frame, source="memory", name="unused"), tags={"k": "v"})
    record.note("run", client.get_run(run.info.run_id))
    for text in (
        "dataset.name = 'points'",
        "datasets.name LIKE '%re'",
        "dataset.context = 'test'",
        "dataset.digest != 'x' AND dataset.context = 'training'",
        "dataset.name = 'absent'",
    ):
        record.error(
            text, lambda text=text: [found.info.run_name for found in client.search_runs([own], text)]
        )
    record.error("odd key", lambda: client.search_runs([own], "dataset.colour = 'red'"))


@flow
def search_runs(record: Recorder) -> None:
    """Runs are found by everything they hold, ordered and paged; bad searches are refused."""
    own, client = experiment("flows/search"), MlflowClient()
    for number in range(6):
        run_id = client.create_run(
            own, start_time=BASE_MS + number, tags={"mlflow.runName": f"run {number}"}
        ).info.run_id
        client.log_metric(run_id, "loss", number / 2, BASE_MS, 0)
        client.log_param(run_id, "rate", f"0.{number}")
        client.set_tag(run_id, "even", str(number % 2 == 0))
        if number == 3:
            client.log_metric(run_id, "rare metric", math.nan, BASE_MS, 0)
            client.set_tag(run_id, "rare", "x%y_z")
        if number > 2:
            client.set_terminated(run_id, "FINISHED" if number < 5 else "FAILED", BASE_MS + 100 * number)
    client.delete_run(client.search_runs([own], "attributes.run_name = 'run 0'")[0].info.run_id)

    def names(filter_string: str = "", **options: Any) -> list[str]:
        return [run.info.run_name for run in client.search_runs([own], filter_string, **options)]

    for text in (
        "",
        "metrics.loss > 1",
        "metrics.loss >= 1 and metrics.loss < 2.5",
        "metric.loss = 1.5",
        "metrics.loss != 1.5",
        "metrics.`rare metric` > 0",
        "metrics.absent > 0",
        "params.rate = '0.3'",
        "param.rate != '0.3'",
        "params.rate LIKE '0.%'",
        "parameters.rate ILIKE '0.4'",
        "tags.even = 'True'",
        'tag."even" = "False"',
        "tags.rare LIKE 'x%'",
        "tags.rare LIKE 'X%'",
        "tags.rare ILIKE 'X%'",
        "tags.absent = 'x'",
        "status = 'FINISHED'",
        "attributes.status != 'FINISHED'",
        "attributes.status LIKE 'FIN%'",
        "attribute.start_time > 1700000000003",
        "end_time >= 1700000000400",
        "attr.run_name ILIKE 'RUN _'",
        "run_name = 'run 2'",
        "user_id = 'nobody'",
        "attributes.artifact_uri LIKE 'mlflow-artifacts:%'",
        f"run_id != '{run_id}'",
        f"attributes.run_id IN ('{run_id}', 'b')",
        f"attributes.run_id NOT IN ('{run_id}')",
    ):
        record.error(f"filter {text}", lambda text=text: names(text))
    if VERSION >= (3, 0):
        record.error("filter is null", lambda: names("params.absent IS NULL"))
        record.error("filter is not null", lambda: names("tags.rare IS NOT NULL"))
    for order in (
        ["metrics.loss DESC"],
        ["metrics.loss ASC", "start_time"],
        ["metrics.`rare metric` ASC"],
        ["params.rate DESC"],
        ["tags.rare ASC", "attributes.start_time ASC"],
        ["attributes.end_time DESC"],
        ["attributes.status", "run_name DESC"],
    ):
        record.error(f"order {order}", lambda order=order: names(order_by=order))
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL):
        record.note(f"view {view}", names(run_view_type=view))
    page = client.search_runs([own], max_results=2, order_by=["start_time ASC"])
    record.note("first page", [run.info.run_name for run in page])
    seen = []
    while page.token:
        page = client.search_runs([own], max_results=2, order_by=["start_time ASC"], page_token=page.token)
        seen.append([run.info.run_name for run in page])
    record.note("other pages", seen)
    record.note("several", len(client.search_runs([own, "0", "987654321"])))
    record.note("none", list(client.search_runs([])))
    record.note("frame", mlflow.search_runs([own], "metrics.loss = 2.5"))
    if IS_2:
        record.note("by names", mlflow.search_runs(experiment_names=["flows/search"], output_format="list"))
    for text in (
        "nonsense",
        "metrics.loss > 'a'",
        "metrics.loss LIKE 'a'",
        "params.rate > 1",
        "params.rate = 1",
        "colour = 'red'",
        "tags.a = 'b' OR tags.b = 'c'",
        "attributes.start_time = 'x'",
        "status = FINISHED",
        "metrics.loss >",
        "foo.bar = 'x'",
        "attributes.run_name IN ('run 1')",
    ):
        record.error(f"bad filter {text}", lambda text=text: names(text))
    for order in (["colour"], ["metrics.loss SIDEWAYS"], ["foo.bar"]):
        record.error(f"bad order {order}", lambda order=order: names(order_by=order))
    record.error("too many", lambda: names(max_results=50_001))
    record.error("none at all", lambda: names(max_results=0))
    record.error("bad token", lambda: names(page_token="nonsense"))


@flow
def search_experiments(record: Recorder) -> None:
    """Experiments are found by name, tag and time, ordered and paged."""
    client = MlflowClient()
    if not IS_2:
        raise FlowSkippedError("a stock server has no experiments/list any more, which clients of 1.x need")
    for number in range(5):
        client.create_experiment(f"Find {number}", tags={"parity": "even" if number % 2 == 0 else "odd"})
        time.sleep(0.002)
    client.delete_experiment(client.get_experiment_by_name("Find 0").experiment_id)

    def names(filter_string: str = "", **options: Any) -> list[str]:
        found = client.search_experiments(filter_string=filter_string, **options)
        return [entry.name for entry in found if "ind" in entry.name]

    for text in (
        "name = 'Find 1'",
        "name != 'Find 1'",
        "name LIKE 'Find%'",
        "attributes.name ILIKE 'find _'",
        "tags.parity = 'even'",
        "tags.parity != 'even'",
        "tag.parity LIKE 'o%'",
        "name LIKE 'Find%' AND tags.parity = 'odd'",
        "creation_time > 0",
        "attribute.last_update_time > 0 AND name LIKE 'Find%'",
    ):
        record.error(f"filter {text}", lambda text=text: names(text))
    for order in (["name DESC"], ["creation_time ASC"], ["last_update_time DESC", "name"], ["experiment_id"]):
        record.error(f"order {order}", lambda order=order: names(order_by=order))
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL):
        record.note(f"view {view}", names(view_type=view))
    page = client.search_experiments(max_results=2, filter_string="name LIKE 'Find%'", order_by=["name ASC"])
    record.note("first page", page)
    page = client.search_experiments(
        max_results=2, filter_string="name LIKE 'Find%'", order_by=["name ASC"], page_token=page.token
    )
    record.note("second page", page)
    for text in ("nonsense", "colour = 'red'", "name > 'a'", "tags.a > 'b'", "creation_time = 'x'"):
        record.error(f"bad filter {text}", lambda text=text: names(text))
    for order in (["colour"], ["name SIDEWAYS"]):
        record.error(f"bad order {order}", lambda order=order: names(order_by=order))
    record.error("none at all", lambda: names(max_results=0))
    record.error("too many", lambda: names(max_results=50_001))
    record.error("bad token", lambda: names(page_token="nonsense"))


@flow
def delete_restore_runs(record: Recorder) -> None:
    """Runs are deleted and restored, by themselves and with their experiment."""
    own, client = experiment("flows/delete"), MlflowClient()
    run_id = client.create_run(own).info.run_id
    client.log_param(run_id, "a", 1)
    client.delete_run(run_id)
    record.note("deleted", client.get_run(run_id))
    record.error("twice", lambda: client.delete_run(run_id))
    record.error("resume", lambda: mlflow.start_run(run_id=run_id))
    client.restore_run(run_id)
    record.error("restore twice", lambda: client.restore_run(run_id))
    record.note("restored", client.get_run(run_id))
    record.error("missing", lambda: client.delete_run(MISSING_RUN))
    record.error("restore missing", lambda: client.restore_run(MISSING_RUN))
    client.delete_experiment(own)
    record.note("with its experiment", client.get_run(run_id))
    client.restore_experiment(own)
    record.note("back with its experiment", client.get_run(run_id))


@flow(since=(2, 8))
def system_metrics(record: Recorder) -> None:
    """The machine's own metrics are logged beside the training's."""
    try:
        import psutil  # noqa: F401
    except ImportError as error:
        raise FlowSkippedError("psutil is not installed") from error
    experiment("flows/system")
    mlflow.set_system_metrics_sampling_interval(0.2)
    mlflow.set_system_metrics_samples_before_logging(1)
    with mlflow.start_run(run_name="system", log_system_metrics=True) as run:
        client = MlflowClient()
        key = "system/system_memory_usage_megabytes"
        record.wait_for(lambda: len(client.get_metric_history(run.info.run_id, key)) > 1)
    keys = mlflow.get_run(run.info.run_id).data.metrics
    record.note("keys", sorted(name for name in keys if "network" not in name and "disk" not in name))
