"""Named places where a test can make this process fail, as a crash or a bad disk would.

Nothing happens unless the environment variable `MLPROXY_TEST_FAILPOINTS` names a place when the
process starts: `commit.before=kill`, or several, separated by `;`. `@3` behind the action waits for the
third time the place is reached. Actions:

- `kill`: the process ends at once, as by `kill -9`;
- `stop`: it is stopped (SIGSTOP) until someone continues it;
- `sleep:SECONDS`: the thread pauses;
- `hold`: the thread makes a file beside the script (see below), its name with `.held` behind it, and pauses
  until the script says something else, or for two minutes;
- `error:ENOSPC` (or another name of `errno`): the place raises that `OSError`, every time from then on.

A value that begins with `@` is the name of a file that holds such a text. It is read anew whenever it has
changed, so that a test can arm a place in the middle of a process's life.
"""

import errno
import os
import signal
import threading
import time
from pathlib import Path

VARIABLE = "MLPROXY_TEST_FAILPOINTS"
_LONGEST_HOLD_SECONDS = 120.0
_NAP_SECONDS = 0.02


class _Failpoint:
    def __init__(self, action: str) -> None:
        what, _, count = action.partition("@")
        self.kind, _, self.detail = what.partition(":")
        self.remaining = int(count or 1)
        if self.kind not in ("kill", "stop", "sleep", "hold", "error"):
            raise ValueError(f"{VARIABLE}: unknown action {action!r}")

    def reach(self) -> None:
        self.remaining -= 1
        if self.remaining > 0:
            return
        if self.kind == "error":
            number = getattr(errno, self.detail)
            raise OSError(number, os.strerror(number))
        if self.remaining < 0:
            return
        match self.kind:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hold":
                self._hold()
            case _:
                time.sleep(float(self.detail))

    def _hold(self) -> None:
        if (script := _script) is None:
            return
        script.say_held()
        until = time.monotonic() + _LONGEST_HOLD_SECONDS
        while self in _armed.values() and time.monotonic() < until:
            time.sleep(_NAP_SECONDS)
            script.follow()


def parse(text: str) -> dict[str, _Failpoint]:
    """The armed places by name.

    Raises:
        ValueError: an action is not known.
    """
    pairs = (item.partition("=") for item in text.split(";") if item.strip())
    return {name.strip(): _Failpoint(action.strip()) for name, _, action in pairs}


class _Script:
    """The file that says what is armed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None

    def say_held(self) -> None:
        """Let the test know that a thread is held."""
        self._path.with_name(f"{self._path.name}.held").touch()

    def follow(self) -> None:
        """Arm what the file says, if it says something new."""
        with self._lock:
            try:
                stat = self._path.stat()
            except FileNotFoundError:
                return
            if (stat.st_mtime_ns, stat.st_size) != self._seen:
                self._seen = (stat.st_mtime_ns, stat.st_size)
                _armed.clear()
                _armed.update(parse(self._path.read_text()))


_armed: dict[str, _Failpoint] = {}
_script: _Script | None = None


def arm(text: str) -> None:
    """Arm the places that `text`, or the file that it names, says; no others.

    Raises:
        ValueError: an action is not known.
    """
    global _script
    _armed.clear()
    _script = _Script(Path(text[1:])) if text.startswith("@") else None
    if _script is None:
        _armed.update(parse(text))


arm(os.environ.get(VARIABLE, ""))


def reach(name: str) -> None:
    """Say that this place is reached. Costs a look into an empty dictionary."""
    if _script is not None:
        _script.follow()
    if _armed and (failpoint := _armed.get(name)):
        failpoint.reach()
