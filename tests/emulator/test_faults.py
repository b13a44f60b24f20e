"""The emulator misbehaves exactly as told."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from api import Api, point

from tests.support.emulator import EmulatorError, EmulatorProcess

LOG_METRIC = "POST .*/runs/log-metric$"


def log(api: Api, run_id: str) -> httpx.Response:
    """One point."""
    return api.post("runs/log-metric", run_id=run_id, **point("m"))


def points(emulator: EmulatorProcess, run_id: str) -> int:
    """How many points arrived."""
    return len(emulator.run(run_id)["metrics"])


@pytest.mark.parametrize(("when", "stored"), [("before", 0), ("after", 1)])
def test_status(api: Api, run_id: str, emulator: EmulatorProcess, when: str, stored: int) -> None:
    """An error answer with its headers and body, before or after the real effect, so many times."""
    body = {"error": "busy"}
    emulator.add_fault(
        match=LOG_METRIC,
        effect="status",
        status=429,
        headers={"Retry-After": "2"},
        body=body,
        when=when,
        times=1,
    )
    answer = log(api, run_id)
    assert (answer.status_code, answer.headers["Retry-After"], answer.json()) == (429, "2", body)
    assert points(emulator, run_id) == stored
    assert log(api, run_id).status_code == 200


@pytest.mark.parametrize(("when", "stored"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("secure", [False, True])
def test_drop_answer(
    api: Api, run_id: str, emulator: EmulatorProcess, when: str, stored: int, secure: bool
) -> None:
    """The connection ends without an answer, over TLS too; the log says there was none."""
    if secure:
        headers = dict(api.http.headers)
        api.http = httpx.Client(base_url=emulator.https_url, verify=str(emulator.ca_file), headers=headers)
    fault_id = emulator.add_fault(match=LOG_METRIC, effect="drop_answer", when=when)
    with pytest.raises(httpx.TransportError):
        log(api, run_id)
    emulator.clear_faults()
    assert points(emulator, run_id) == stored
    last = emulator.calls()[-1]
    assert (last["status"], last["fault_id"]) == (None, fault_id)


@pytest.mark.parametrize("when", ["before", "after"])
def test_delay(api: Api, run_id: str, emulator: EmulatorProcess, when: str) -> None:
    """The answer is late and right."""
    emulator.add_fault(match=LOG_METRIC, effect="delay", delay_seconds=0.4, when=when)
    started = time.monotonic()
    assert log(api, run_id).status_code == 200
    assert time.monotonic() - started >= 0.4


def test_a_delay_ends_with_its_fault(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """An answer that is held back goes out when the faults are cleared."""
    emulator.add_fault(match=LOG_METRIC, effect="delay", delay_seconds=600)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(log, api, run_id)
        while not emulator.faults()[0]["hits"]:
            time.sleep(0.01)
        assert not answer.done()
        emulator.clear_faults()
        assert answer.result(timeout=60).status_code == 200


def test_html(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """A gateway's page instead of JSON."""
    emulator.add_fault(match=LOG_METRIC, effect="html")
    answer = log(api, run_id)
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")
    assert "<html>" in answer.text


def test_cut_body(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """The head promises more than the body holds."""
    emulator.add_fault(match="GET .*/runs/get", effect="cut_body", times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        api.get("runs/get", run_id=run_id)
    assert api.get("runs/get", run_id=run_id).status_code == 200


def test_drip(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """The body arrives whole, a byte at a time."""
    emulator.add_fault(match=LOG_METRIC, effect="drip", delay_seconds=0.2)
    started = time.monotonic()
    assert log(api, run_id).json() == {}
    assert time.monotonic() - started > 0.15


def test_after_calls_and_times(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """The first calls pass, the next are hit, the rest pass; hits are counted."""
    fault_id = emulator.add_fault(match=LOG_METRIC, effect="status", status=503, after_calls=1, times=2)
    assert [log(api, run_id).status_code for _ in range(4)] == [200, 503, 503, 200]
    (fault,) = emulator.faults()
    assert (fault["fault_id"], fault["hits"]) == (fault_id, 2)


def test_blob_uploads_can_fail(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """The blob endpoint is hit like any other, and a lost answer leaves the blob."""
    emulator.add_fault(match="PUT .*/azureml/", effect="drop_answer", when="after", times=1)
    uri = api.content_uri(run_id, "a.txt")
    headers = {"x-ms-blob-type": "BlockBlob", "If-None-Match": "*"}
    with pytest.raises(httpx.TransportError):
        api.http.put(uri, content=b"x", headers=headers)
    assert api.http.put(uri, content=b"x", headers=headers).status_code == 409


def test_identity_can_fail(emulator: EmulatorProcess) -> None:
    """So can the token endpoint."""
    emulator.add_fault(match="GET /msi/token", effect="status", status=500)
    with pytest.raises(EmulatorError):
        emulator.token()


@pytest.mark.parametrize("fault", [{"effect": "nonsense"}, {"effect": "delay", "match": "("}, {"match": "x"}])
def test_a_fault_that_makes_no_sense_is_refused(emulator: EmulatorProcess, fault: dict[str, str]) -> None:
    """A typo does not pass for a fault that never strikes."""
    with pytest.raises(EmulatorError):
        emulator.add_fault(**fault)


def test_a_setting_that_does_not_exist_is_refused(emulator: EmulatorProcess) -> None:
    """Nor for a setting."""
    with pytest.raises(EmulatorError):
        emulator.settings(serch_lag_seconds=1)
    with pytest.raises(EmulatorError):
        emulator.settings(limits={"nonsense": 1})
