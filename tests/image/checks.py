"""What has to hold of the image: confinement, a stock client's run, a kill, delivery, a clean end."""

import re
import subprocess
from pathlib import Path

from tests.image.build import Image
from tests.image.container import Container, Network
from tests.support.emulator import WORKSPACE_PATH
from tests.support.interpreters import CLIENTS, client_python
from tests.support.workspace import wait_until

_POINTS = 60
_CLIENT_SECONDS = 120
_EMULATOR = "http://127.0.0.1:9080"
_SERVER = {
    "MLPROXY_AUTH": "keys",
    "MLPROXY_WORKSPACE": f"azureml://127.0.0.1:9080/mlflow/v1.0{WORKSPACE_PATH}",
    "MLPROXY_CREDENTIAL": "managed-identity",
    "IDENTITY_ENDPOINT": f"{_EMULATOR}/msi/token",
    "IDENTITY_HEADER": "emulator",
}


class CheckError(Exception):
    """The image is not what it has to be."""


def check_files(image: Image) -> None:
    """Nothing of the image but `/data` can be changed by its user."""
    uid, gid = image.user.split(":")
    own = ["find", str(image.root), "-xdev", "-path", f"{image.root}/data", "-prune", "-o"]
    found = _said([*own, "(", "-user", uid, "-o", "-group", gid, ")", "-print"])
    writable = _said(["find", f"{image.root}/opt", "-xdev", "!", "-type", "l", "-perm", "/022", "-print"])
    _hold(not found and not writable, f"files that its user could change: {found}{writable}")


def check_running(image: Image, folder: Path) -> None:
    """Serve a stock client from it, kill it, and see everything delivered to the emulator it also holds."""
    with Network() as network:
        emulator_arguments = ["emulator", "--host=127.0.0.1", "--port=9080", "--data-dir=/data"]
        emulator = Container(image, network, folder / "emulator-data", emulator_arguments)
        proxy = Container(image, network, folder / "proxy-data", image.stage.last("CMD").exec_form, **_SERVER)
        try:
            emulator.start(until=["python", "-c", _asks(f"{_EMULATOR}/emulator/settings")])
            proxy.start()
            _check_confinement(proxy, image)
            key = _ok(proxy, "mlproxy", "keys", "create", "team").splitlines()[-1]
            acknowledged = _log_through_a_kill(proxy, network, folder, key)
            _ok(proxy, "mlproxy", "drain", "--timeout", "120")
            print(_ok(proxy, "mlproxy", "verify", acknowledged[0]), end="")
            _hold(proxy.stop() == 0, "the server did not end with 0 on its stop signal")
        finally:
            proxy.discard()
            emulator.discard()


def _check_confinement(proxy: Container, image: Image) -> None:
    status = proxy.read("status")
    uid = image.user.split(":")[0]
    _hold(re.search(rf"^Uid:\s+{uid}\s+{uid}\s", status, re.M) is not None, "it does not run as its user")
    _hold(re.search(r"^CapEff:\s+0+$", status, re.M) is not None, "it has capabilities")
    _hold(re.search(r"^NoNewPrivs:\s+1$", status, re.M) is not None, "it could gain privileges")
    for place, can_be_written in (("/opt/mlproxy", False), ("/etc", False), ("/data", True), ("/tmp", True)):
        done = proxy.run("touch", f"{place}/probe")
        _hold((done.returncode == 0) is can_be_written, f"{place}: {done.stderr or 'could be written'}")
    print("runs as", uid, "without capabilities; only /data and /tmp can be written")


def _log_through_a_kill(proxy: Container, network: Network, folder: Path, key: str) -> list[str]:
    """A stock client logs on while the server is killed and started; what it was told is there."""
    record = folder / "acknowledged.txt"
    variables = ["env", "MLFLOW_TRACKING_URI=http://127.0.0.1:5000", f"MLFLOW_TRACKING_TOKEN={key}"]
    script = [str(client_python("mlflow3")), str(CLIENTS / "steady.py"), str(record), str(_POINTS), "0.1"]
    with subprocess.Popen(network.command(*variables, *script), stdout=subprocess.DEVNULL) as client:
        wait_until(
            lambda: _lines(record) > _POINTS // 3, within=_CLIENT_SECONDS, what="a third of the points"
        )
        proxy.kill()
        proxy.start()
        code = client.wait(_CLIENT_SECONDS)
    _hold(code == 0, f"the client ended with {code}")
    acknowledged = record.read_text().split()
    _hold(len(acknowledged) == _POINTS + 1, f"{len(acknowledged) - 1} of {_POINTS} points were acknowledged")
    print(f"{_POINTS} points acknowledged, with a SIGKILL in between")
    return acknowledged


def _lines(record: Path) -> int:
    return len(record.read_text().splitlines()) if record.exists() else 0


def _asks(url: str) -> str:
    return f"import urllib.request; urllib.request.urlopen({url!r}, timeout=4)"


def _ok(container: Container, *words: str) -> str:
    done = container.run(*words)
    _hold(done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CheckError(otherwise)
