"""Named places where a test can make this process fail, as a crash or a bad disk would.

Nothing happens unless the environment variable `MLPROXY_TEST_FAILPOINTS` names a place when the
process starts: `commit.before=kill`, or several, separated by `;`. `@3` behind the action waits for the
third time the place is reached. Actions:

- `kill`: the process ends at once, as by `kill -9`;
- `stop`: it is stopped (SIGSTOP) until someone continues it;
- `sleep:SECONDS`: the thread pauses;
- `error:ENOSPC` (or another name of `errno`): the place raises that `OSError`, every time from then on.
"""

import errno
import os
import signal
import time

VARIABLE = "MLPROXY_TEST_FAILPOINTS"


class _Failpoint:
    def __init__(self, action: str) -> None:
        what, _, count = action.partition("@")
        self.kind, _, self.detail = what.partition(":")
        self.remaining = int(count or 1)
        if self.kind not in ("kill", "stop", "sleep", "error"):
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
            case _:
                time.sleep(float(self.detail))


def parse(text: str) -> dict[str, _Failpoint]:
    """The armed places by name.

    Raises:
        ValueError: an action is not known.
    """
    pairs = (item.partition("=") for item in text.split(";") if item.strip())
    return {name.strip(): _Failpoint(action.strip()) for name, _, action in pairs}


_armed = parse(os.environ.get(VARIABLE, ""))


def reach(name: str) -> None:
    """Say that this place is reached. Costs a look into an empty dictionary."""
    if _armed and (failpoint := _armed.get(name)):
        failpoint.reach()
