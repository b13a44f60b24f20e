"""Failpoints do what the environment variable says, and nothing without it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.domain import failpoints
from tests.support.workspace import wait_until


def test_nothing_happens_without_the_variable() -> None:
    """A server in use is not armed."""
    failpoints.reach("commit.before")


def test_an_error_is_raised_from_the_given_time_on() -> None:
    """A full disk stays full."""
    place = failpoints.parse("commit.before=error:ENOSPC@2")["commit.before"]
    place.reach()
    for _ in range(2):
        with pytest.raises(OSError, match="No space left") as raised:
            place.reach()
        assert raised.value.errno == errno.ENOSPC


def test_kill_ends_the_process_at_the_given_time() -> None:
    """The third time it is reached, and not before."""
    code = (
        "from server.domain import failpoints\n"
        "for n in range(5): print(n, flush=True); failpoints.reach('here')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, failpoints.VARIABLE: "elsewhere=stop; here=kill@3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (-9, ["0", "1", "2"])


def test_an_unknown_action_is_refused() -> None:
    """A misspelt failpoint must not make a test pass."""
    with pytest.raises(ValueError, match="unknown action 'explode'"):
        failpoints.parse("commit.before=explode")


def test_a_file_can_arm_a_place_later(tmp_path: Path) -> None:
    """What is written into the file after the start holds from then on, and not for ever."""
    script = tmp_path / "failpoints"
    code = (
        "import sys\n"
        "from server.domain import failpoints\n"
        "for line in sys.stdin:\n"
        "    try: failpoints.reach('here')\n"
        "    except OSError: print('raised', flush=True)\n"
        "    else: print('passed', flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, failpoints.VARIABLE: f"@{script}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        seen = []
        for text in (None, "here=error:EIO@2", None, None, ""):
            if text is not None:
                script.write_text(text)
            process.stdin.write("\n")
            process.stdin.flush()
            seen.append(process.stdout.readline().strip())
        process.stdin.close()
    assert seen == ["passed", "passed", "raised", "raised", "passed"]


def test_a_thread_is_held_until_the_file_lets_it_go(tmp_path: Path) -> None:
    """It says that it is held, and goes on when the place is not armed any more."""
    script = tmp_path / "failpoints"
    script.write_text("here=hold")
    code = "from server.domain import failpoints\nfailpoints.reach('here')\nprint('passed')"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, failpoints.VARIABLE: f"@{script}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        wait_until((tmp_path / "failpoints.held").exists, within=60, what="the thread to be held")
        assert process.poll() is None
        script.write_text("")
        said, _ = process.communicate(timeout=60)
    assert said.strip() == "passed"
