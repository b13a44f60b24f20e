"""Every page of the stock UI, in a real browser, on data that a stock client logged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.conftest import Site, Visit, visiting
from tests.support.server import ServerProcess

EXPERIMENT = "#/experiments/{experiment}"
RUN = EXPERIMENT + "/runs/{run}"
ARTIFACT = RUN + "/artifacts/"
MODEL = EXPERIMENT + "/models/{model}"

PAGES: dict[str, tuple[str, list[str]]] = {
    "home": ("#/", ["Recent Experiments", "digits"]),
    "experiments": ("#/experiments", ["digits", "Default"]),
    "experiment": (EXPERIMENT, ["digits"]),
    "runs": (EXPERIMENT + "/runs", ["rate 0.3", "rate 1.0", "matching runs"]),
    "chart": (EXPERIMENT + "/runs?compareRunsMode=CHART", ["rate 0.3", "accuracy", "Model metrics"]),
    "run": (RUN, ["About this run", "Finished", "points", "vision", "fold of 0.3", "threshold"]),
    "run-metrics": (RUN + "/model-metrics", ["accuracy", "loss"]),
    "run-system-metrics": (RUN + "/system-metrics", ["rate 0.3"]),
    "run-artifacts": (RUN + "/artifacts", ["figure.png", "notes", "settings.json"]),
    "artifact-text": (ARTIFACT + "notes/readme.txt", ["A text that the artifact viewer shows."]),
    "artifact-image": (ARTIFACT + "figure.png", ["figure.png"]),
    "artifact-table": (ARTIFACT + "eval.json", ["question", "answer"]),
    "artifact-json": (ARTIFACT + "settings.json", ["0.3"]),
    "compare-runs": (
        "#/compare-runs?runs={runs}&experiments={experiments}",
        ["Comparing 2 Runs", "Parallel Coordinates Plot", "Run details"],
    ),
    "models": ("#/models", ["threshold", "champion"]),
    "model": ("#/models/threshold", ["Version 1", "Version 2", "Finds a threshold."]),
    "model-version": ("#/models/threshold/versions/1", ["Version 1", "checked"]),
    "compare-model-versions": (
        "#/compare-model-versions?name=%22threshold%22&runs={versions}",
        ["Comparing 2 Versions"],
    ),
    "prompts": ("#/prompts", ["greeting"]),
    "prompt": ("#/prompts/greeting", ["Version 2", "Hello"]),
    "experiment-prompts": (EXPERIMENT + "/prompts", ["digits"]),
    "logged-models": (EXPERIMENT + "/models", ["model"]),
    "logged-model": (MODEL, ["About this logged model", "rate 1.0", "optimizer"]),
    "logged-model-artifacts": (MODEL + "/artifacts", ["MLmodel"]),
    "skills": ("#/skills", ["Register and catalog skills"]),
    "mcp-registry": ("#/mcp-registry", ["MCP"]),
    "settings": ("#/settings", ["Settings"]),
    "webhooks": ("#/settings/webhooks", ["No webhooks configured"]),
}

ANSWER_PAGES: dict[str, tuple[str, list[str]]] = {
    "traces": (EXPERIMENT + "/traces", ["why?"]),
    "trace": (EXPERIMENT + "/traces?selectedEvaluationId={trace}", ["look_up"]),
    "evaluation-runs": (EXPERIMENT + "/evaluation-runs", ["is_short"]),
    "datasets": (EXPERIMENT + "/datasets", ["questions"]),
    "judges": (EXPERIMENT + "/judges", ["answers"]),
    "sessions": (EXPERIMENT + "/chat-sessions", ["answers"]),
    "issues": (EXPERIMENT + "/issues", ["answers"]),
    "overview": (EXPERIMENT + "/overview", ["answers"]),
    "review": (EXPERIMENT + "/review-queue", ["New queue"]),
    "evaluation-run": (RUN + "/traces", ["why"]),
    "run-traces": ("#/experiments/{trainings}/runs/{training}/traces", ["rate 0.3", "No traces found"]),
    "logged-model-traces": ("#/experiments/{trainings}/models/{model}/traces", ["Start tracing"]),
}


def address(path: str, ids: dict[str, Any]) -> str:
    """The page's address for what was logged."""
    runs = ids["runs"]
    return path.format(
        experiment=ids["experiment"],
        experiments=json.dumps([ids["experiment"]]),
        run=ids.get("evaluation", runs[0]),
        trainings=ids.get("trainings"),
        training=runs[0],
        runs=json.dumps(runs),
        versions=json.dumps({str(number + 1): run for number, run in enumerate(runs)}),
        model=ids["model"],
        trace=ids.get("trace"),
    )


@pytest.mark.parametrize("name", PAGES)
def test_page_shows_its_data_without_an_error(name: str, visit: Visit, site: Site) -> None:
    """The page shows what was logged, says no error, and all it asks for is answered by this server."""
    path, expected = PAGES[name]
    try:
        visit.open(address(path, site.ids), *expected)
    finally:
        visit.save(name)
    assert visit.problems() == []


@pytest.mark.parametrize("name", ANSWER_PAGES)
def test_page_shows_traces_and_evaluations_without_an_error(name: str, visit: Visit, answers: Site) -> None:
    """The same for the pages about traces, evaluation datasets, evaluation runs and judges."""
    path, expected = ANSWER_PAGES[name]
    try:
        visit.open(address(path, answers.ids), *expected)
    finally:
        visit.save(name)
    assert visit.problems() == []


def test_image_artifact_is_drawn(visit: Visit, site: Site) -> None:
    """An image is shown as an image, not as a broken one."""
    visit.open(address(ARTIFACT + "figure.png", site.ids), "figure.png")
    width = "() => Math.max(...Array.from(document.images, image => image.naturalWidth))"
    assert visit.page.evaluate(width) > 100


def test_html_artifact_runs_no_script(visit: Visit, site: Site) -> None:
    """An HTML artifact is shown, and its script does not run unless the operator allows it."""
    visit.open(address(ARTIFACT + "page.html", site.ids))
    frame = visit.page.frame_locator("iframe")
    frame.get_by_text("A page").wait_for()
    assert frame.locator("#word").inner_text() == "static"


def test_run_page_links_to_studio(visit: Visit, site: Site) -> None:
    """The run's page has the studio address among its tags; a client that reads the run has not."""
    visit.open(address(RUN, site.ids), "About this run", "mlproxy.studioUrl")
    run_id = site.ids["runs"][0]
    answer = httpx.get(
        f"{site.server.url}/api/2.0/mlflow/runs/get?run_id={run_id}",
        headers={"Authorization": f"Bearer {site.key}"},
        trust_env=False,
    )
    assert "mlproxy.studioUrl" not in {tag["key"] for tag in answer.json()["run"]["data"]["tags"]}


def test_run_is_renamed_in_the_ui(visit: Visit, site: Site) -> None:
    """What a person changes on a page is written, with the credential that the browser asked for."""
    visit.open(address(RUN.replace("{run}", site.ids["runs"][1]), site.ids), "About this run")
    visit.page.get_by_test_id("overflow-menu-trigger").first.click()
    visit.page.get_by_text("Rename").click()
    visit.page.get_by_role("dialog").get_by_role("textbox").fill("renamed")
    visit.page.get_by_role("dialog").get_by_role("button", name="Save").click()
    visit.page.get_by_role("heading", name="renamed").wait_for()
    visit.settle()
    assert visit.problems() == []


@pytest.fixture
def prefixed(browser: Any, ui_folder: Path, tmp_path: Path) -> Iterator[Visit]:
    """The first page of a server below a path."""
    settings = {"MLPROXY_PATH_PREFIX": "/team/mlflow", "MLPROXY_UI_DIR": str(ui_folder)}
    with ServerProcess.start(tmp_path, **settings) as server:
        yield from visiting(browser, server.url)


def test_ui_works_below_a_path(prefixed: Visit) -> None:
    """Below a path prefix the page finds its files and its data, with and without the last slash."""
    prefixed.open("team/mlflow", "Recent Experiments", "Default")
    assert prefixed.page.url == f"{prefixed.origin}/team/mlflow/"
    prefixed.save("prefix")
    assert prefixed.problems() == []


@pytest.fixture
def bare(browser: Any, tmp_path: Path) -> Iterator[Visit]:
    """The first page of a server that has no UI files."""
    with ServerProcess.start(tmp_path) as server:
        yield from visiting(browser, server.url)


def test_page_without_files_says_how_to_get_them(bare: Visit) -> None:
    """A server without the UI's files says so on a page that can be read."""
    bare.open("", "mlproxy ui install")
    bare.save("no-files")
    assert bare.problems() == []
