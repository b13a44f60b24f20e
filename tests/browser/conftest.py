"""A real Chromium on a real server that holds real data."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.emulator import REPOSITORY, EmulatorProcess
from tests.support.interpreters import client_python, run_client
from tests.support.server import ServerProcess

SCREENSHOTS = REPOSITORY / "build" / "screenshots"
PATIENCE_MS = 120_000
QUIET_MS = 500
SETTLE_MS = 30_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# On this machine's own host name the UI opens its assistant once; it needs a program on the server.
ASSISTANT_WAS_SHOWN = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"

ALLOWED_ANSWERS = {
    r"404 GET .*/users/current$": "the proxy has keys, not user accounts: the UI hides its account menu",
    r"404 GET .*/assistant/(config|providers)$": "the proxy has no assistant, as the UI then says",
    r"404 POST .*/review-queues/get-or-create-user$": "the proxy has no review queues: the page shows none",
}
ALLOWED_MESSAGES = {
    r"^Failed to load resource": "the browser's note of an answer above 399; those are judged by themselves",
    r"^Loading media from\s+'https://mlflow\.org/": "a film for beginners, which the policy keeps out",
    r"ResizeObserver loop": "a browser's notice that a layout took two frames",
}
ERRORS_ON_PAGE = re.compile(
    "something went wrong|oops|endpoint_not_found|no endpoint|error occurred|not implemented|unable to"
    "|failed to|webgl is not|couldn.t load|invalid_parameter",
    re.IGNORECASE,
)


def _absent(reason: str) -> None:
    if os.environ.get("MLPROXY_TEST_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def ui_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The UI's files, as `mlproxy ui install` puts them there. They stay for the next time."""
    folder = REPOSITORY / "build" / "ui"
    server = ServerProcess.prepare(tmp_path_factory.mktemp("install"), MLPROXY_UI_DIR=folder)
    done = server.cli("ui", "install")
    if done.returncode != 0:
        _absent(f"no UI: {done.stderr}")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    named = os.environ.get("MLPROXY_TEST_CHROMIUM") or shutil.which("chromium")
    if named is None:
        _absent("no Chromium: install the package `chromium`, or MLPROXY_TEST_CHROMIUM names one")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=named, args=FLAGS)
        yield running
        running.close()


@dataclass(frozen=True, slots=True)
class Site:
    """A server with data, the key to it, and the ids of what was logged."""

    server: ServerProcess
    key: str
    ids: dict[str, Any]


@pytest.fixture(scope="module")
def site(ui_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that wants keys and has delivered everything to a workspace."""
    folder = tmp_path_factory.mktemp("site")
    with EmulatorProcess.start(folder / "workspace") as emulator:
        settings = {
            "MLPROXY_WORKSPACE": emulator.tracking_uri,
            "MLPROXY_CREDENTIAL": "managed-identity",
            "MLPROXY_AUTH": "keys",
            "MLPROXY_UI_DIR": str(ui_folder),
            **emulator.environment(),
        }
        with ServerProcess.start(folder / "proxy", **settings) as server:
            key = server.cli("keys", "create", "browser", "--role", "admin").stdout.splitlines()[-1]
            ids = _log("log_training.py", folder, server, key)
            assert server.cli("drain").returncode == 0
            yield Site(server, key, ids)


@pytest.fixture(scope="module")
def answers(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The same site, with traces and evaluations too, and their ids."""
    ids = _log("log_answers.py", tmp_path_factory.mktemp("answers"), site.server, site.key)
    return Site(site.server, site.key, {**site.ids, "trainings": site.ids["experiment"], **ids})


def _log(script: str, folder: Path, server: ServerProcess, key: str) -> dict[str, Any]:
    """The ids of what a script of this folder has logged."""
    ids = folder / "ids.json"
    run_client(
        client_python("mlflow3"),
        str(Path(__file__).with_name(script)),
        str(ids),
        folder=folder,
        MLFLOW_TRACKING_URI=server.url,
        MLFLOW_TRACKING_TOKEN=key,
    )
    return dict(json.loads(ids.read_text()))


@dataclass
class Visit:
    """A page, and everything that went wrong on it."""

    page: Any
    origin: str
    troubles: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pending = 0
        self.page.on("request", self._began)
        self.page.on("requestfinished", self._ended)
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.troubles.append(f"uncaught: {error}"))

    def open(self, path: str, *expected: str) -> None:
        """Go there and wait until the page shows all that is expected of it and asks for nothing more."""
        self.page.goto(f"{self.origin}/{path}")
        for text in expected:
            self.page.get_by_text(text).filter(visible=True).first.wait_for(timeout=PATIENCE_MS)
        self.settle()

    def settle(self) -> None:
        """Wait until the page has been quiet for a while."""
        quiet = waited = 0
        while quiet < QUIET_MS and waited < SETTLE_MS:
            self.page.wait_for_timeout(100)
            waited += 100
            quiet = 0 if self._pending else quiet + 100

    def save(self, name: str) -> None:
        """Keep what the page looks like."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    @property
    def text(self) -> str:
        return str(self.page.locator("body").inner_text())

    def problems(self) -> list[str]:
        """What a person would complain about."""
        shown = [line for line in self.text.splitlines() if ERRORS_ON_PAGE.search(line)]
        return [*dict.fromkeys(self.troubles), *(f"on the page: {line}" for line in shown), *self.foreign]

    def _began(self, request: Any) -> None:
        # The script of a worker is never reported as finished.
        self._pending += ".worker." not in request.url
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.foreign.append(f"asked elsewhere: {request.url}")

    def _ended(self, request: Any) -> None:
        self._pending -= ".worker." not in request.url

    def _failed(self, request: Any) -> None:
        self._ended(request)
        if request.failure != "net::ERR_ABORTED":  # the page itself gave it up
            self.troubles.append(f"failed: {request.method} {request.url} {request.failure}")

    def _answered(self, response: Any) -> None:
        line = f"{response.status} {response.request.method} {response.url}"
        if response.status >= 400 and not _is_allowed(line, ALLOWED_ANSWERS):
            self.troubles.append(line)

    def _said(self, message: Any) -> None:
        if message.type == "error" and not _is_allowed(message.text, ALLOWED_MESSAGES):
            self.troubles.append(f"console: {message.text}")


def _is_allowed(line: str, allowed: dict[str, str]) -> bool:
    return any(re.search(pattern, line) for pattern in allowed)


@pytest.fixture
def visit(site: Site, browser: Any) -> Iterator[Visit]:
    """A page of the site, in the browser of somebody who has logged in with the key."""
    yield from visiting(browser, site.server.url, key=site.key)


def visiting(browser: Any, origin: str, *, key: str | None = None, **options: Any) -> Iterator[Visit]:
    """A page with storage of its own; with `key`, of somebody who has logged in with it."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(ASSISTANT_WAS_SHOWN)
    if key is not None:
        assert context.request.post(f"{origin}/login", data={"key": key}).ok
    yield Visit(context.new_page(), origin)
    context.close()
