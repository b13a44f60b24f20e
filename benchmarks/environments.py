"""Environments of their own for the peers, the limit program and the tools, under `.venvs`.

One is set up again when its requirements change. What cannot be set up is skipped, with the reason:
a run without a peer still says something.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
_ENVIRONMENTS = ROOT / ".venvs"
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
# Their program needs none of what their wheel declares.
_WITHOUT_DEPENDENCIES = frozenset({"fasttrackml"})
_REASON_CHARACTERS = 300


class NoEnvironmentError(Exception):
    """An environment could not be set up; the message says why."""


def set_up(name: str) -> Path:
    """The environment's folder of programs, set up if it is not.

    Raises:
        NoEnvironmentError: its packages cannot be installed here.
    """
    requirements = _REQUIREMENTS / f"{name}.txt"
    folder = _ENVIRONMENTS / f"bench-{name}"
    stamp = folder / "stamp"
    wanted = _digest(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Setting up {folder.relative_to(ROOT)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        options = ["--no-deps"] if name in _WITHOUT_DEPENDENCIES else []
        _run([str(folder / "bin" / "python"), *_PIP, *options, "-r", str(requirements)])
        stamp.write_text(wanted)
    return folder / "bin"


def version_of(programs: Path, distribution: str) -> str:
    """The version of a package in an environment."""
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    return subprocess.run(
        [str(programs / "python"), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip().startswith("ERROR")]
        reason = (lines or done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NoEnvironmentError(reason.strip()[:_REASON_CHARACTERS])


def _digest(requirements: Path) -> str:
    """Of the requirements, the constraints they name, and the interpreter."""
    digest = hashlib.sha256(sys.version.encode())
    text = requirements.read_text()
    digest.update(text.encode())
    for line in text.splitlines():
        if line.startswith("-c "):
            digest.update((requirements.parent / line.removeprefix("-c ").strip()).read_bytes())
    return digest.hexdigest()
