"""The proxy's own pages, `/sync` and the login, in a real browser."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.conftest import Visit, visiting
from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess

API = "/api/2.0/mlflow"
OWN = "/api/2.0/mlproxy"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """A workspace."""
    with EmulatorProcess.start(tmp_path_factory.mktemp("workspace")) as running:
        yield running


@pytest.fixture(scope="module")
def server(workspace: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A proxy that wants keys and delivers to it."""
    settings = {
        "MLPROXY_WORKSPACE": workspace.tracking_uri,
        "MLPROXY_CREDENTIAL": "managed-identity",
        "MLPROXY_AUTH": "keys",
        **workspace.environment(),
    }
    with ServerProcess.start(tmp_path_factory.mktemp("proxy"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    """An administrator's key."""
    return server.cli("keys", "create", "operator", "--role", "admin").stdout.splitlines()[-1]


@pytest.fixture
def client(server: ServerProcess, workspace: EmulatorProcess, key: str) -> Iterator[httpx.Client]:
    """Somebody who logs. Afterwards the workspace behaves again, and nothing is left undelivered."""
    with httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
    ) as http:
        yield http
        workspace.clear_faults()
        http.post(f"{OWN}/parked/drop", json={"all": True, "reason": "the test is over"})
        assert server.cli("drain").returncode == 0


@pytest.fixture
def visit(browser: Any, server: ServerProcess, key: str) -> Iterator[Visit]:
    """A browser that has logged in."""
    yield from visiting(browser, server.url, key=key)


def log_run(client: httpx.Client, name: str) -> str:
    """A run with some points and a tag that is then deleted; its id."""
    body = {"experiment_id": "0", "run_name": name, "start_time": int(time.time() * 1000)}
    run_id = str(client.post(f"{API}/runs/create", json=body).json()["run"]["info"]["run_id"])
    points = [{"key": "loss", "value": 1 / (step + 1), "timestamp": step, "step": step} for step in range(50)]
    tags = [{"key": "draft", "value": "yes"}]
    assert client.post(
        f"{API}/runs/log-batch", json={"run_id": run_id, "metrics": points, "tags": tags}
    ).is_success
    assert client.post(f"{API}/runs/delete-tag", json={"run_id": run_id, "key": "draft"}).is_success
    return run_id


def await_status(client: httpx.Client, **wanted: Any) -> None:
    """Until the figures are these."""
    deadline = time.monotonic() + 240
    while True:
        status = client.get(f"{OWN}/status").json()
        if all(status[name] == value for name, value in wanted.items()):
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.3)


def test_in_health_the_page_says_so(visit: Visit, client: httpx.Client) -> None:
    """Everything is delivered, and the run is there when all are asked for."""
    log_run(client, "a healthy run")
    await_status(client, pending=0, parked=0)
    visit.open("sync", "All is well", "Every run is delivered.")
    visit.page.get_by_label("Show").select_option("all")
    visit.page.get_by_text("a healthy run").wait_for()
    visit.save("sync-health")
    assert visit.problems() == []


def test_in_trouble_the_page_says_what_and_for_whom(
    visit: Visit, client: httpx.Client, workspace: EmulatorProcess
) -> None:
    """The workspace's own words, the runs that wait, and that clients are not affected."""
    workspace.add_fault(match=".*", effect="status", status=403)
    log_run(client, "a run that waits")
    pending = client.get(f"{OWN}/status").json()["pending"]
    said = ("Clients are not affected", "not reachable")
    visit.open("sync", "The workspace cannot be used", "a run that waits", f"{pending} pending", *said)
    visit.save("sync-trouble")


def test_a_throttled_workspace_is_no_failure(
    visit: Visit, client: httpx.Client, server: ServerProcess, workspace: EmulatorProcess
) -> None:
    """The page says that it waits, and how long; that is nobody's trouble."""
    workspace.add_fault(match=".*", effect="status", status=429, headers={"Retry-After": "600"}, times=1)
    log_run(client, "a run that is asked to wait")
    visit.open("sync", "The workspace asks us to wait", "calls/s")
    visit.save("sync-throttled")
    server.restart()  # the next one has not been asked to wait
    visit.open("sync", "All is well")


def test_a_disk_that_is_nearly_full_comes_first(browser: Any, tmp_path: Path) -> None:
    """What is left, what is wanted and which setting says so."""
    with ServerProcess.start(tmp_path, MLPROXY_MIN_FREE_BYTES=2**60) as server:
        for visit in visiting(browser, server.url):
            visit.open("sync", "The disk is nearly full", "MLPROXY_MIN_FREE_BYTES")
            visit.save("sync-disk")
            assert not visit.page.get_by_role("button", name="Log out").is_visible()


def test_a_person_sees_who_they_are_and_logs_out(
    browser: Any, server: ServerProcess, key: str, client: httpx.Client
) -> None:
    """The page goes back to the login, the login leads here again, and the cookie is worth nothing."""
    for visit in visiting(browser, server.url, key=key):
        visit.open("sync", "operator (admin)")
        cookie = visit.page.context.cookies()[0]
        visit.page.get_by_role("button", name="Log out").click()
        visit.page.wait_for_url("**/login?next=%2Fsync")
        kept = httpx.get(f"{server.url}{OWN}/me", cookies={cookie["name"]: cookie["value"]}, trust_env=False)
        assert kept.status_code == 401
        visit.page.get_by_label("API key").fill(key)
        visit.page.get_by_role("button", name="Log in").click()
        visit.page.wait_for_url("**/sync")
        visit.page.get_by_text("operator (admin)").wait_for()


def test_a_parked_entry_is_retried_from_the_page(
    visit: Visit, client: httpx.Client, workspace: EmulatorProcess
) -> None:
    """It is shown with what was refused and why; sent again, it arrives."""
    workspace.add_fault(match="POST .*/runs/delete-tag", effect="status", status=400)
    run_id = log_run(client, "a run with a refusal")
    await_status(client, parked=1, pending=0)
    visit.open("sync", "1 entry waits for your decision", run_id)
    visit.save("sync-parked")
    workspace.clear_faults()
    visit.page.get_by_role("checkbox", name="Select ").last.check()
    visit.page.get_by_role("button", name="Retry selected").click()
    visit.page.get_by_text("1 will be sent again.").wait_for(state="attached")
    await_status(client, parked=0, pending=0)
    assert "draft" not in workspace.run(run_id)["tags"]
    visit.page.get_by_text("All is well").wait_for()
    assert visit.problems() == []


def test_a_parked_entry_is_dropped_from_the_page(
    visit: Visit, client: httpx.Client, workspace: EmulatorProcess
) -> None:
    """After a question; it is never sent, and no longer counts."""
    workspace.add_fault(match="POST .*/runs/delete-tag", effect="status", status=400)
    run_id = log_run(client, "a run with a refusal for good")
    await_status(client, parked=1, pending=0)
    visit.page.on("dialog", lambda dialog: dialog.accept("a test of ours"))
    visit.open("sync", run_id)
    visit.page.get_by_label("Select all").check()
    visit.page.get_by_role("button", name="Drop selected").click()
    await_status(client, parked=0)
    assert workspace.run(run_id)["tags"]["draft"] == "yes"


def test_a_reader_sees_the_page_and_cannot_decide(
    browser: Any, server: ServerProcess, client: httpx.Client, workspace: EmulatorProcess
) -> None:
    """The figures are for everybody; parked entries are for administrators."""
    reader = server.cli("keys", "create", "reader", "--role", "read").stdout.splitlines()[-1]
    workspace.add_fault(match="POST .*/runs/delete-tag", effect="status", status=400)
    log_run(client, "another run with a refusal")
    await_status(client, parked=1, pending=0)
    for visit in visiting(browser, server.url, key=reader):
        visit.open("sync", "1 entry waits for your decision", "Only an administrator")
        assert visit.page.get_by_role("button", name="Retry selected").is_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_on_a_phone(
    browser: Any, server: ServerProcess, client: httpx.Client, key: str, scheme: str
) -> None:
    """Nothing is wider than the screen, in light and in dark."""
    log_run(client, "a run with quite a long name that would not fit on one line of a phone")
    options: dict[str, Any] = {"viewport": PHONE, "color_scheme": scheme}
    for visit in visiting(browser, server.url, key=key, **options):
        visit.open("sync", "All is well")
        visit.page.get_by_label("Show").select_option("all")
        visit.page.get_by_text("quite a long name").first.wait_for()
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        visit.save(f"sync-phone-{scheme}")
        assert visit.problems() == []


def test_a_name_with_markup_is_shown_as_text(visit: Visit, client: httpx.Client) -> None:
    """What people log never becomes part of the page."""
    name = "<img src=x onerror=document.title='owned'>"
    log_run(client, name)
    visit.open("sync")
    visit.page.get_by_label("Show").select_option("all")
    visit.page.get_by_text(name).wait_for()
    assert visit.page.title() == "Delivery · mlproxy"
    assert visit.problems() == []


def test_a_person_logs_in_and_lands_where_they_wanted(browser: Any, server: ServerProcess, key: str) -> None:
    """A wrong key is told so on the page; the right one leads on."""
    for visit in visiting(browser, server.url):
        visit.open("sync", "API key")
        visit.save("login")
        visit.page.get_by_label("API key").fill("mlp_000000000000_wrong")
        visit.page.get_by_role("button", name="Log in").click()
        visit.page.get_by_text("This key is not known").wait_for()
        visit.page.get_by_label("API key").fill(key)
        visit.page.get_by_role("button", name="Log in").click()
        visit.page.wait_for_url("**/sync")
        visit.page.get_by_text("All is well").wait_for()
        others = [trouble for trouble in visit.problems() if "401" not in trouble]
        assert others == []
