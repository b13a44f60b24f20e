"""Proves the Dockerfile where there is no Docker: `make image-check`. Needs Linux, root and debootstrap.

Each of its commands is run for real in a fresh minimal Debian, and what comes out is run as a container
is: as the image's user, on a read-only root, without capabilities. One thing differs from `docker build`:
the base image's Python is Debian's own 3.11 instead of the one that the image `python` was built with.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.image.build import Builder
from tests.image.checks import check_files, check_running
from tests.image.dockerfile import read_stages
from tests.image.roots import make_debian, remove_root
from tests.support.emulator import REPOSITORY


def main() -> int:
    """Build, check, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--context", type=Path, default=REPOSITORY, help="the folder of the Dockerfile")
    parser.add_argument("--base", type=Path, help="a folder for the bare Debian, kept and used again")
    parser.add_argument("--keep", action="store_true", help="leave what was built, to look into it")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("This needs root and debootstrap (apt-get install debootstrap).", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="mlproxy-image-"))
    folder.chmod(0o755)
    started = time.monotonic()
    try:
        _check(arguments.context, folder, arguments.base or folder / "base")
    finally:
        if arguments.keep:
            print(f"Kept: {folder}")
        else:
            remove_root(folder)
    print(f"The image is sound ({time.monotonic() - started:.0f} s).")
    return 0


def _check(context: Path, folder: Path, base: Path) -> None:
    if not (base / "usr/bin/python3").exists():
        print("debootstrap", flush=True)
        make_debian(base)
    builder = Builder(base, context, folder)
    images = [builder.build(stage) for stage in read_stages(context / "Dockerfile")]
    check_files(images[-1])
    check_running(images[-1], folder)


if __name__ == "__main__":
    sys.exit(main())
