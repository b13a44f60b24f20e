"""`mlproxy doctor` tries things for real, and names what is wrong and what to do."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.disks import small_disk
from tests.support.emulator import EmulatorProcess
from tests.support.ports import free_port
from tests.support.server import ServerProcess

Findings = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """A workspace, on plain HTTP and on TLS with a certificate authority of its own."""
    with EmulatorProcess.start(tmp_path_factory.mktemp("emulator"), tls=True) as running:
        yield running


@pytest.fixture(autouse=True)
def well(emulator: EmulatorProcess) -> Iterator[None]:
    """No test leaves the workspace misbehaving."""
    yield
    emulator.clear_faults()


def prepared(emulator: EmulatorProcess, folder: Path, **settings: object) -> ServerProcess:
    """A configured proxy that does not run: the command makes a server for the occasion."""
    return ServerProcess.prepare(
        folder,
        **{
            "MLPROXY_WORKSPACE": emulator.tracking_uri,
            "MLPROXY_CREDENTIAL": "managed-identity",
            **emulator.environment(),
            **settings,
        },
    )


def examined(server: ServerProcess) -> tuple[int, Findings]:
    """The exit code, and the findings by check."""
    done = server.cli("doctor", "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert findings, done.stderr
    return done.returncode, {finding["check"]: finding for finding in findings}


def outcomes(findings: Findings) -> dict[str, str]:
    """How each check ended."""
    return {name: finding["outcome"] for name, finding in findings.items()}


def test_in_health_everything_is_tried_and_what_was_learned_is_written(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    """Also on a running server; nothing but a deleted run is left in the workspace."""
    with prepared(emulator, tmp_path) as server:
        server.launch()
        code, findings = examined(server)
    assert (code, set(outcomes(findings).values()) <= {"ok", "warning"}) == (0, True), findings
    assert {"database", "disk", "spool", "identity", "run", "artifacts", "end of run"} <= set(findings)
    written = json.loads((tmp_path / "capabilities.json").read_text())
    assert written["capabilities"]["own_run_ids"] is True
    assert written["capabilities"]["repeated_points"] == "kept twice"
    assert "sig" not in json.dumps(written)
    left = [run for run in emulator.runs() if run["lifecycle_stage"] != "deleted"]
    assert left == []


def test_without_a_workspace_it_says_so(tmp_path: Path) -> None:
    """That is no failure: everything is kept until one is configured."""
    code, findings = examined(ServerProcess.prepare(tmp_path))
    assert (code, outcomes(findings)["workspace"]) == (0, "skipped")
    assert "MLPROXY_WORKSPACE" in findings["workspace"]["advice"]


@pytest.mark.parametrize(
    ("host", "words"), [("127.0.0.1", "refuses connections"), ("no-such-host.invalid", "is not known")]
)
def test_a_workspace_that_cannot_be_reached(
    emulator: EmulatorProcess, tmp_path: Path, host: str, words: str
) -> None:
    """A closed port and an unknown name are told apart; what depends on it is not tried."""
    port = emulator.tracking_uri.split("/")[2].split(":")[1]
    elsewhere = emulator.tracking_uri.replace(f"127.0.0.1:{port}", f"{host}:{free_port()}")
    code, findings = examined(prepared(emulator, tmp_path, MLPROXY_WORKSPACE=elsewhere))
    assert (code, outcomes(findings)["network"], outcomes(findings)["artifacts"]) == (1, "failed", "skipped")
    assert words in findings["network"]["advice"]


def test_a_certificate_that_nobody_vouches_for(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """The setting that mends it is named, and does."""
    over_tls = emulator.tls_tracking_uri.replace("azureml://", "https://")
    server = prepared(emulator, tmp_path, MLPROXY_WORKSPACE=over_tls)
    code, findings = examined(server)
    assert (code, outcomes(findings)["network"]) == (1, "failed")
    assert "SSL_CERT_FILE" in findings["network"]["advice"], findings["network"]
    mended = prepared(emulator, tmp_path, MLPROXY_WORKSPACE=over_tls, SSL_CERT_FILE=str(emulator.ca_file))
    code, findings = examined(mended)
    assert (code, outcomes(findings)["network"]) == (0, "ok"), findings


def test_an_identity_that_gives_no_token(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """The configured credential is named, with what it needs."""
    server = prepared(emulator, tmp_path, MLPROXY_CREDENTIAL="service-principal")
    code, findings = examined(server)
    assert (code, outcomes(findings)["identity"]) == (1, "failed")
    assert "AZURE_CLIENT_ID" in findings["identity"]["found"]


def test_an_identity_that_may_read_and_not_write(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """The role that is missing is named."""
    emulator.add_fault(match="POST .*/experiments/create", effect="status", status=403)
    code, findings = examined(prepared(emulator, tmp_path))
    assert (code, outcomes(findings)["workspace"], outcomes(findings)["experiment"]) == (1, "ok", "failed")
    assert "AzureML Data Scientist" in findings["experiment"]["advice"]


def test_storage_that_is_closed_to_us(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """Metrics would arrive and files would not: both are said, and the rest is still tried."""
    emulator.add_fault(match="PUT .*", effect="status", status=403)
    code, findings = examined(prepared(emulator, tmp_path))
    shown = outcomes(findings)
    assert (code, shown["metrics"], shown["artifacts"], shown["end of run"]) == (1, "ok", "failed", "ok")
    assert "firewall" in findings["artifacts"]["advice"]


def test_a_workspace_whose_name_is_wrong(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """The address answers and knows no such workspace: the setting is named, and nothing is written."""
    misspelt = emulator.tracking_uri.replace("workspaces/emulator", "workspaces/emulaor")
    code, findings = examined(prepared(emulator, tmp_path, MLPROXY_WORKSPACE=misspelt))
    assert (code, outcomes(findings)["identity"], outcomes(findings)["workspace"]) == (1, "ok", "failed")
    assert outcomes(findings)["experiment"] == "skipped"
    assert "MLPROXY_WORKSPACE" in findings["workspace"]["advice"]


def test_a_data_folder_that_takes_no_file(tmp_path: Path) -> None:
    """Where nothing can be kept, a sentence says so, here and at a start."""
    server = ServerProcess.prepare(tmp_path, MLPROXY_DATA_DIR="/proc/nowhere")
    code, findings = examined(server)
    assert (code, outcomes(findings)) == (1, {"start": "failed"})
    assert "MLPROXY_DATA_DIR" in findings["start"]["found"]
    started = server.cli("serve")
    assert started.returncode == 1
    assert "Traceback" not in started.stderr


def test_a_spool_on_a_full_disk(tmp_path: Path) -> None:
    """Points could be taken in and large files could not: the folder is named."""
    with small_disk(tmp_path / "spool", 1024 * 1024) as folder:
        (folder / "filler").write_bytes(b"x" * 1000 * 1024)
        code, findings = examined(ServerProcess.prepare(tmp_path, MLPROXY_SPOOL_DIR=folder))
    assert (code, outcomes(findings)["database"], outcomes(findings)["spool"]) == (1, "ok", "failed")
    assert "No space left" in findings["spool"]["found"]
    assert "MLPROXY_SPOOL_DIR" in findings["spool"]["advice"]


def test_a_workspace_that_refuses_our_run_ids(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """Delivery then goes by marker tags; that is a warning, and remembered."""
    emulator.add_fault(match="PATCH .*/runs/[^/]+$", effect="status", status=405)
    code, findings = examined(prepared(emulator, tmp_path))
    assert (code, outcomes(findings)["run"]) == (0, "warning"), findings
    assert json.loads((tmp_path / "capabilities.json").read_text())["capabilities"]["own_run_ids"] is False


def test_a_server_heeds_what_was_learned(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """Where our own ids were refused, delivery does not ask for them again."""
    emulator.add_fault(match="PATCH .*/runs/[^/]+$", effect="status", status=405)
    server = prepared(emulator, tmp_path)
    examined(server)
    emulator.clear_faults()
    emulator.clear_calls()
    with server:
        server.launch()
        answer = httpx.post(
            f"{server.url}/api/2.0/mlflow/runs/create",
            json={"experiment_id": "0", "start_time": 1},
            trust_env=False,
        )
        assert answer.is_success
        assert server.cli("drain").returncode == 0
    calls = [f"{call['method']} {call['path']}" for call in emulator.calls()]
    assert any(call.endswith("runs/create") for call in calls), calls
    assert not any(call.startswith("PATCH") for call in calls)


def test_what_contradicts_itself_in_the_settings_is_a_finding(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    """A workspace that cannot be understood ends the examination with the sentence that `serve` says."""
    code, findings = examined(prepared(emulator, tmp_path, MLPROXY_WORKSPACE="https://example.org/"))
    assert (code, outcomes(findings)) == (1, {"start": "failed"})
    assert "MLPROXY_WORKSPACE" in findings["start"]["found"]
