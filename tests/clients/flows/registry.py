"""Flows about registered models, their versions, aliases, stages, and prompts."""

import time
from typing import Any

import mlflow
from mlflow import MlflowClient
from recording import Recorder, flow
from tracking import MISSING_RUN, experiment

SOURCE = "s3://bucket/models/one"


def model(name: str, versions: int = 1, **options: Any) -> MlflowClient:
    """A registered model with some versions that no run made."""
    client = MlflowClient()
    client.create_registered_model(name, **options)
    for number in range(versions):
        client.create_model_version(name, f"{SOURCE}/{number}")
    return client


@flow(since=(2, 0))
def registry_admin(record: Recorder) -> None:
    """Registered models and versions are made, described, tagged, renamed and deleted."""
    client = MlflowClient()
    record.note("created", client.create_registered_model("admin", tags={"a": "1"}, description="a model"))
    record.error("again", lambda: client.create_registered_model("admin"))
    record.error("no name", lambda: client.create_registered_model(""))
    record.error("odd name", lambda: client.create_registered_model("a/b"))
    record.error("colon", lambda: client.create_registered_model("a:b"))
    record.note("plain", client.create_registered_model("admin plain"))
    first = client.create_model_version("admin", SOURCE, tags={"v": "1"}, description="first")
    record.note("version", first)
    record.note("next", client.create_model_version("admin", SOURCE, run_link="https://example.org/run"))
    record.error("version of none", lambda: client.create_model_version("absent", SOURCE))
    record.error("no source", lambda: client.create_model_version("admin", ""))
    record.error("local source", lambda: client.create_model_version("admin", "/etc"))
    record.error("up", lambda: client.create_model_version("admin", "mlflow-artifacts:/../x"))
    record.error("missing run", lambda: client.create_model_version("admin", SOURCE, run_id=MISSING_RUN))
    record.note("updated", client.update_registered_model("admin", "another text"))
    record.note("version updated", client.update_model_version("admin", "1", "first, changed"))
    client.set_registered_model_tag("admin", "a", "2")
    client.set_registered_model_tag("admin", "b", "ü")
    client.delete_registered_model_tag("admin", "b")
    record.error("tag is gone", lambda: client.delete_registered_model_tag("admin", "b"))
    client.set_model_version_tag("admin", "1", "v", "2")
    client.set_model_version_tag("admin", "1", "w", "3")
    client.delete_model_version_tag("admin", "1", "w")
    record.error("version tag is gone", lambda: client.delete_model_version_tag("admin", "1", "w"))
    record.error("tag of none", lambda: client.set_registered_model_tag("absent", "a", "b"))
    record.error("tag of no version", lambda: client.set_model_version_tag("admin", "9", "a", "b"))
    record.error("long tag", lambda: client.set_registered_model_tag("admin", "x" * 251, "b"))
    record.error("long value", lambda: client.set_registered_model_tag("admin", "x", "b" * 100_001))
    record.note("model", client.get_registered_model("admin"))
    record.note("version now", client.get_model_version("admin", "1"))
    record.note("renamed", client.rename_registered_model("admin", "admin renamed"))
    record.note("version of the renamed", client.get_model_version("admin renamed", "1"))
    record.error("old name", lambda: client.get_registered_model("admin"))
    record.error("taken", lambda: client.rename_registered_model("admin renamed", "admin plain"))
    record.error("rename none", lambda: client.rename_registered_model("absent", "else"))
    record.error("update none", lambda: client.update_registered_model("absent", "text"))
    record.error("no version", lambda: client.get_model_version("admin renamed", "9"))
    record.error("odd version", lambda: client.get_model_version("admin renamed", "nine"))
    record.error("uri of no version", lambda: client.get_model_version_download_uri("admin renamed", "9"))
    record.error("update no version", lambda: client.update_model_version("admin renamed", "9", "text"))
    client.delete_model_version("admin renamed", "2")
    record.error("deleted version", lambda: client.get_model_version("admin renamed", "2"))
    record.error("delete it again", lambda: client.delete_model_version("admin renamed", "2"))
    record.note("after deletion", client.create_model_version("admin renamed", SOURCE))
    client.delete_registered_model("admin renamed")
    record.error("deleted", lambda: client.get_registered_model("admin renamed"))
    record.error("delete again", lambda: client.delete_registered_model("admin renamed"))
    record.error("its version", lambda: client.get_model_version("admin renamed", "1"))
    record.note("made anew", client.create_registered_model("admin renamed"))
    record.note("first again", client.create_model_version("admin renamed", SOURCE))


@flow(since=(2, 3))
def aliases(record: Recorder) -> None:
    """Aliases are set, moved and deleted."""
    client = model("aliased", 3)
    client.set_registered_model_alias("aliased", "champion", "1")
    client.set_registered_model_alias("aliased", "challenger", "2")
    client.set_registered_model_alias("aliased", "also", "1")
    record.note("by alias", client.get_model_version_by_alias("aliased", "champion"))
    client.set_registered_model_alias("aliased", "champion", "3")
    record.note("moved", client.get_model_version_by_alias("aliased", "champion"))
    record.note("model", client.get_registered_model("aliased"))
    record.note("version", client.get_model_version("aliased", "1"))
    client.delete_registered_model_alias("aliased", "champion")
    record.error("gone", lambda: client.get_model_version_by_alias("aliased", "champion"))
    record.error("delete again", lambda: client.delete_registered_model_alias("aliased", "champion"))
    for alias in ("v1", "latest", "a b", "x" * 256, "LATEST", "1", "ü"):
        record.error(
            f"odd {alias[:9]}", lambda alias=alias: client.set_registered_model_alias("aliased", alias, "1")
        )
    record.error("no version", lambda: client.set_registered_model_alias("aliased", "ok", "9"))
    record.error("no model", lambda: client.set_registered_model_alias("absent", "ok", "1"))
    record.error("of no model", lambda: client.get_model_version_by_alias("absent", "ok"))
    client.delete_model_version("aliased", "2")
    record.note("without the version", client.get_registered_model("aliased"))


@flow(since=(2, 0))
def stages(record: Recorder) -> None:
    """Versions move from stage to stage."""
    client = model("staged", 4)
    for version, stage in (("1", "Staging"), ("2", "staging"), ("3", "Production")):
        record.note(f"{version} to {stage}", client.transition_model_version_stage("staged", version, stage))
    record.note("latest", client.get_latest_versions("staged"))
    record.note("in one", client.get_latest_versions("staged", ["Staging"]))
    record.note("in two", client.get_latest_versions("staged", ["Production", "None"]))
    record.note("in none", client.get_latest_versions("staged", ["Archived"]))
    archived = client.transition_model_version_stage("staged", "4", "Staging", archive_existing_versions=True)
    record.note("archives", archived)
    record.note("model", client.get_registered_model("staged"))
    record.note("archived", client.get_model_version("staged", "1").current_stage)
    record.error("odd stage", lambda: client.transition_model_version_stage("staged", "1", "Nonsense"))
    record.error("odd latest", lambda: client.get_latest_versions("staged", ["Nonsense"]))
    record.error(
        "archive beside none",
        lambda: client.transition_model_version_stage("staged", "1", "None", archive_existing_versions=True),
    )
    record.error("no version", lambda: client.transition_model_version_stage("staged", "9", "Staging"))
    record.error("no model", lambda: client.get_latest_versions("absent"))


@flow(since=(2, 0))
def search_registry(record: Recorder) -> None:
    """Models and versions are found by what they are, ordered and paged."""
    for number in range(5):
        client = model(f"find {number}", 2, tags={"parity": "even" if number % 2 == 0 else "odd"})
        client.set_model_version_tag(f"find {number}", "1", "k", str(number))
        time.sleep(0.005)
    experiment("flows/registry search")
    with mlflow.start_run(run_name="makes a version") as run:
        run_id = run.info.run_id
    client.create_model_version("find 1", SOURCE, run_id=run_id)

    def names(filter_string: str = "", **options: Any) -> list[str]:
        found = client.search_registered_models(filter_string=filter_string, **options)
        return [entry.name for entry in found if entry.name.startswith("find")]

    def versions(filter_string: str = "", **options: Any) -> list[tuple[str, str]]:
        found = client.search_model_versions(filter_string, **options)
        return [(entry.name, entry.version) for entry in found if entry.name.startswith("find")]

    for text in (
        "name = 'find 1'",
        "name != 'find 1'",
        "name LIKE 'find%'",
        "name ILIKE 'FIND _'",
        "tags.parity = 'odd'",
        "tag.parity != 'odd'",
        "tags.parity LIKE 'e%'",
        "name LIKE 'find%' AND tags.parity = 'even'",
    ):
        record.error(f"models {text}", lambda text=text: names(text))
    for order in (
        ["name DESC"],
        ["timestamp DESC", "name"],
        ["last_updated_timestamp ASC"],
        ["creation_timestamp"],
    ):
        record.error(f"models by {order}", lambda order=order: names("name LIKE 'find%'", order_by=order))
    page = client.search_registered_models("name LIKE 'find%'", max_results=2, order_by=["name ASC"])
    record.note("models page", page)
    page = client.search_registered_models(
        "name LIKE 'find%'", max_results=2, order_by=["name ASC"], page_token=page.token
    )
    record.note("models next", [entry.name for entry in page])
    for text in (
        "name = 'find 1'",
        "name LIKE 'find%'",
        "name IN ('find 1', 'find 2')",
        "tags.k = '3'",
        "tags.k != '3'",
        f"run_id = '{run_id}'",
        f"run_id IN ('{run_id}')",
        f"source_path = '{SOURCE}/1'",
        "version_number > 1 AND name = 'find 1'",
    ):
        record.error(f"versions {text}", lambda text=text: versions(text))
    for order in (["version_number DESC"], ["name DESC", "version_number ASC"], ["creation_timestamp ASC"]):
        record.error(
            f"versions by {order}", lambda order=order: versions("name LIKE 'find%'", order_by=order)
        )
    page = client.search_model_versions("name = 'find 1'", max_results=2, order_by=["version_number ASC"])
    record.note("versions page", page)
    for text in ("nonsense", "colour = 'red'", "name > 'a'", "run_id LIKE 'zz%'", "tags.a > 'b'"):
        record.error(f"bad models {text}", lambda text=text: names(text))
        record.error(f"bad versions {text}", lambda text=text: versions(text))
    record.error("bad order", lambda: names(order_by=["colour"]))
    record.error("bad versions order", lambda: versions(order_by=["colour"]))
    record.error("too many", lambda: names(max_results=1001))
    record.error("too many versions", lambda: versions(max_results=200_001))
    record.error("bad token", lambda: names(page_token="nonsense"))


@flow(since=(3, 0))
def prompts(record: Recorder) -> None:
    """Prompts are registered, loaded by version and alias, and deleted."""
    first = mlflow.genai.register_prompt(
        "greeting", "Hello {{name}}", commit_message="first", tags={"a": "1"}
    )
    record.note("first", first)
    second = mlflow.genai.register_prompt("greeting", [{"role": "user", "content": "Hi {{name}}"}])
    record.note("second", second)
    mlflow.genai.set_prompt_alias("greeting", alias="live", version=1)
    record.note("by alias", mlflow.genai.load_prompt("prompts:/greeting@live"))
    record.note("by version", mlflow.genai.load_prompt("greeting", version=2))
    record.error("latest", lambda: mlflow.genai.load_prompt("prompts:/greeting@latest"))
    record.error("absent version", lambda: mlflow.genai.load_prompt("greeting", version=9))
    record.error("absent", lambda: mlflow.genai.load_prompt("absent", version=1))
    record.error("search", lambda: mlflow.genai.search_prompts())
    client = MlflowClient()
    record.error("prompt", lambda: client.get_prompt("greeting"))
    record.error("versions", lambda: client.search_prompt_versions("greeting"))
    client.set_prompt_tag("greeting", "k", "v")
    client.set_prompt_version_tag("greeting", "1", "k", "v")
    client.delete_prompt_tag("greeting", "k")
    record.error("as a model", lambda: client.get_registered_model("greeting"))
    record.note(
        "among models", [found.name for found in client.search_registered_models("name = 'greeting'")]
    )
    mlflow.genai.delete_prompt_alias("greeting", alias="live")
    record.error("alias is gone", lambda: mlflow.genai.load_prompt("prompts:/greeting@live"))
    client.delete_prompt_version("greeting", "1")
    record.error("version is gone", lambda: mlflow.genai.load_prompt("greeting", version=1))
    model("not a prompt", 0)
    record.error("a model's name", lambda: mlflow.genai.register_prompt("not a prompt", "x"))
