"""`make mutate`: turns off one guard after the other and wants the tests to notice.

Everything happens on copies of the tree. First the tests are run on an unchanged copy: they must be green, or
their red would mean nothing. `MUTATE` names the only mutations to try, by a part of their names.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.mutations import MUTATIONS, Mutation

REPOSITORY = Path(__file__).parents[2]
COPIED = ("server", "emulator", "migrations", "tests", "docs", "pyproject.toml")
LONGEST_SECONDS = 1800
PASSED, FAILED = 0, 1


def main() -> int:
    """Try them all; 0 when every one was noticed."""
    wanted = os.environ.get("MUTATE", "")
    chosen = [mutation for mutation in MUTATIONS if wanted in mutation.name]
    with tempfile.TemporaryDirectory(prefix="mlproxy-mutate-") as folder:
        tests = sorted({test for mutation in chosen for test in mutation.tests})
        print(f"{len(chosen)} mutations; first their tests on unchanged code")
        code, seconds, said = run_tests(copy_tree(Path(folder) / "unchanged"), tests)
        print(f"  {'green' if code == PASSED else 'RED'} in {seconds:.0f} s", flush=True)
        if code != PASSED:
            print(said)
            return 1
        unnoticed = [mutation for mutation in chosen if not is_noticed(mutation, Path(folder))]
    for mutation in unnoticed:
        print(f"NOT NOTICED: {mutation.name}")
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} noticed")
    return 1 if unnoticed else 0


def is_noticed(mutation: Mutation, folder: Path) -> bool:
    """Whether the tests go red with this guard off."""
    tree = copy_tree(folder / "changed")
    for edit in mutation.edits:
        edit.apply(tree)
    code, seconds, said = run_tests(tree, mutation.tests)
    noticed = code == FAILED
    print(f"  {'noticed' if noticed else 'GREEN':8} {seconds:5.0f} s  {mutation.name}", flush=True)
    if not noticed:
        print(said)
    return noticed


def copy_tree(target: Path) -> Path:
    """A copy of what the tests need."""
    shutil.rmtree(target, ignore_errors=True)
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    return target


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[int, float, str]:
    """The exit code of pytest, how long it took, and the end of what it said."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    return done.returncode, time.monotonic() - began, (done.stdout + done.stderr)[-3000:]


if __name__ == "__main__":
    raise SystemExit(main())
