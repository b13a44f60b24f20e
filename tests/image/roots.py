"""Folders that hold a whole Debian: made by debootstrap, written by commands that run inside them.

Needs root. Mounts are made in a mount namespace of their own and end with the command.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

DEBIAN = "bookworm"
# What the base image has, and Debian's own Python for the one that it was built with.
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
_SHARED_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
_SHARED_VARIABLES = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|CERT|DEFAULT_TIMEOUT)|(HTTPS?|NO)_PROXY", re.I
)


def mirror() -> str | None:
    """The Debian mirror that apt is set to on this machine, if debootstrap needs to be told."""
    folder = Path("/etc/apt")
    for file in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        text = file.read_text() if file.is_file() else ""
        found = re.search(r"^(?:URIs:|deb(?:\s+\[.*?\])?)\s+(\S+)", text, flags=re.MULTILINE)
        if found:
            return found[1]
    return None


def make_debian(root: Path) -> None:
    """A fresh minimal Debian with Python, as the base image has it under `/usr/local`."""
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, str(root)]
    if own_mirror := mirror():
        command.append(own_mirror)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for name, target in (("python", "python3"), ("pip", "pip3")):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{target}")


def copy_root(source: Path, target: Path) -> None:
    """The same once more, owners and modes included."""
    subprocess.run(["cp", "--archive", f"{source}/.", str(target)], check=True)


def remove_root(root: Path) -> None:
    """Take it away. Nothing is mounted in it: mounts ended with their commands."""
    shutil.rmtree(root, ignore_errors=True)


def run_in(root: Path, command: str, *, environment: dict[str, str], folder: str, user: str) -> None:
    """Run a shell command inside, with this machine's way to the package registries.

    Raises:
        CalledProcessError: it ended with another code than 0.
    """
    shared = {name: value for name, value in os.environ.items() if _SHARED_VARIABLES.fullmatch(name)}
    assignments = [f"{name}={value}" for name, value in {**shared, **environment}.items()]
    inside = ["chroot", f"--userspec={user}", str(root), "env", "-i", *assignments, "sh", "-c"]
    inside.append(f"cd {shlex.quote(folder)} && {command}")
    mounts = [
        f"mount --bind {root} {root}",
        f"mount -t proc proc {root}/proc",
        f"mount --rbind /dev {root}/dev",
    ]
    for file in filter(os.path.exists, _SHARED_FILES):
        mounts.append(f"touch {root}{file} && mount --bind -o ro {Path(file).resolve()} {root}{file}")
    script = " && ".join([*mounts, f"exec {shlex.join(inside)}"])
    subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script], check=True)
