"""One working session of azureml-core: interactive runs, children, metrics, files.

The token comes from the emulator's managed identity endpoint through the SDK's own TokenAuthentication.
"""

import json
import os
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from azureml.core import Experiment, Run, Workspace
from azureml.core.authentication import TokenAuthentication
from steps import finish, step

WORK = Path(tempfile.mkdtemp())


def token(audience: str) -> str:
    """A bearer token for the audience the SDK asks for."""
    request = urllib.request.Request(
        f"{os.environ['IDENTITY_ENDPOINT']}?api-version=2019-08-01&resource={audience}",
        headers={"X-IDENTITY-HEADER": os.environ["IDENTITY_HEADER"]},
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["access_token"])


def workspace() -> Any:
    """The workspace, looked up through ARM."""
    return Workspace(
        os.environ["TEST_SUBSCRIPTION"],
        os.environ["TEST_GROUP"],
        os.environ["TEST_WORKSPACE"],
        auth=TokenAuthentication(token),
    )


def session(experiment: Any) -> None:
    """Everything an interactive run does."""
    run = step(
        "start_logging", lambda: experiment.start_logging(display_name="core run", snapshot_directory=None)
    )
    step("run_id", lambda: run.id)
    step("log", lambda: [run.log("loss", 1.0 / (index + 1), step=index) for index in range(3)] and None)
    step("log_list", lambda: run.log_list("curve", [0.1, 0.2, 0.3]))
    step("log_row", lambda: run.log_row("row", x=1, y=2.5))
    step("log_text", lambda: run.log("note", "words"))
    step("tag", lambda: run.tag("who", "core"))
    step("set_tags", lambda: run.set_tags({"a": "1", "b": "2"}))
    step("remove_tags", lambda: run.remove_tags(["b"]) and None)
    step("add_properties", lambda: run.add_properties({"made": "here"}))
    (WORK / "f.txt").write_text("from core")
    (WORK / "folder").mkdir()
    (WORK / "folder" / "g.bin").write_bytes(b"g" * 100_000)
    step("upload_file", lambda: run.upload_file("out/f.txt", str(WORK / "f.txt")) and None)
    step("upload_file_again", lambda: run.upload_file("out/f.txt", str(WORK / "f.txt")) and None)
    step("upload_folder", lambda: run.upload_folder("folder", str(WORK / "folder")) and None)
    child = step("child_run", lambda: run.child_run("kid"))
    step("child_id", lambda: child.id)
    step("child_log", lambda: child.log("c", 5))
    step("child_complete", lambda: child.complete())
    kids = step("create_children", lambda: run.create_children(2))
    step("kids_cancelled", lambda: [kid.cancel() for kid in kids] and None)
    step("fail_child", lambda: run.child_run("bad").fail("broken"))
    step("complete", lambda: run.complete())
    step("status", lambda: run.get_status())
    step("get_metrics", lambda: run.get_metrics())
    step("get_file_names", lambda: sorted(run.get_file_names()))
    step("download_file", lambda: run.download_file("out/f.txt", str(WORK / "back.txt")))
    step("downloaded", lambda: (WORK / "back.txt").read_text())
    step("get_tags", lambda: run.get_tags())
    step("get_properties", lambda: run.get_properties())
    step("get_details", lambda: run.get_details()["status"])
    step("children", lambda: sorted(found.id for found in run.get_children()))
    step("runs", lambda: sorted(found.id for found in experiment.get_runs(include_children=True)))
    step("experiments", lambda: [found.name for found in experiment.workspace.experiments.values()])


def read_other(experiment: Any, run_id: str) -> None:
    """A run that MLflow made."""
    run = step("other", lambda: Run(experiment, run_id))
    step("other_metrics", lambda: run.get_metrics())
    step("other_files", lambda: sorted(run.get_file_names()))
    step("other_tags", lambda: run.get_tags())
    step("other_status", lambda: run.get_status())


def main() -> None:
    """Write a run of our own, or read the one named."""
    place = step("workspace", workspace)
    experiment = step("experiment", lambda: Experiment(place, os.environ["TEST_EXPERIMENT"]))
    if "TEST_RUN_ID" in os.environ:
        read_other(experiment, os.environ["TEST_RUN_ID"])
    else:
        session(experiment)
    finish()


if __name__ == "__main__":
    main()
