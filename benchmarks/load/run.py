"""Running the generator as a process of its own."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.load.plan import LoadResult, Plan

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60.0


class LoadError(Exception):
    """The generator could not carry out the plan."""


class RunningLoad:
    """A load under way; `result` waits for its end."""

    def __init__(self, plan: Plan) -> None:
        self._patience = plan.seconds + plan.warm_up_seconds + plan.timeout_seconds + _START_SECONDS
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(plan)))
        self._process.stdin.close()
        self._process.stdin = None

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None

    def result(self) -> LoadResult:
        """What came of it.

        Raises:
            LoadError: it broke off.
        """
        try:
            output, problems = self._process.communicate(timeout=self._patience)
        except subprocess.TimeoutExpired:
            self.stop()
            raise LoadError("the load did not end in time") from None
        except BaseException:
            self.stop()
            raise
        if self._process.returncode != 0:
            raise LoadError(problems.strip().splitlines()[-1] if problems.strip() else "no reason given")
        return LoadResult(**json.loads(output))

    def stop(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()


def run_load(plan: Plan) -> LoadResult:
    """Carry out a plan and wait for its result.

    Raises:
        LoadError: it broke off.
    """
    return RunningLoad(plan).result()
