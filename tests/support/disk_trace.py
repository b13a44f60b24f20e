"""What a process writes, what it flushes, and when it answers, in the order in which it does so.

`Traced` runs a command below a tracer (ptrace, as `strace` uses it), which notes the system calls that write
to files, flush them or send an answer. From these notes `tests.support.disk_image` tells what a power failure
at any moment would have left. Linux on x86-64 and 64-bit ARM.

`python -m tests.support.disk_trace NOTES COMMAND…` is the tracer: it starts the command, prints its process
id, and begins to note when it reads a line from stdin. It ends when the command has ended.
"""

import contextlib
import ctypes
import errno
import os
import pickle
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

_NUMBERS = {
    "x86_64": {
        1: "write", 18: "pwrite", 20: "writev", 44: "sendto", 46: "sendmsg", 74: "sync", 75: "sync",
        77: "truncate", 257: "open",
    },
    "aarch64": {
        64: "write", 68: "pwrite", 66: "writev", 206: "sendto", 211: "sendmsg", 82: "sync", 83: "sync",
        46: "truncate", 56: "open",
    },
}  # fmt: skip
_CALLS = _NUMBERS.get(platform.machine(), {})

_SEIZE, _INTERRUPT, _SYSCALL, _GET_SYSCALL_INFO = 0x4206, 0x4207, 24, 0x420E
_TRACESYSGOOD, _TRACECLONE, _EXITKILL = 1, 1 << 3, 1 << 20
_WALL = 0x40000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_ENTRY, _EXIT = 1, 2
_CREAT = 0o100


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes were written to a file; they are in the cache of the system."""

    path: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncated:
    """A file was cut, or made longer."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A file was opened, and made if it was not there."""

    path: str


@dataclass(frozen=True, slots=True)
class Flushed:
    """A file or folder is on the disk, as it is now."""

    path: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The process begins to send something over a socket."""

    start: bytes


Note = Written | Truncated | Opened | Flushed | Answered


class Traced:
    """A command that runs below a tracer."""

    def __init__(self, command: list[str], notes: Path, **options: Any) -> None:
        self._notes = notes
        self._tracer = subprocess.Popen(
            [sys.executable, "-m", "tests.support.disk_trace", str(notes), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        self.pid = int(self._line())

    @classmethod
    def is_possible(cls) -> bool:
        """Whether this machine lets a process trace its child."""
        probe = [sys.executable, "-c", "import time; time.sleep(60)"]
        if not _CALLS:
            return False
        try:
            with cls(probe, Path(os.devnull), cwd=Path(__file__).parents[2]) as traced:
                traced.begin()
        except (OSError, ValueError):
            return False
        return True

    def begin(self, look: Callable[[], Any] = lambda: None) -> Any:
        """Note everything from now on. `look` is called while the command stands still: nothing is missed.

        Raises:
            OSError: the system does not allow it.
        """
        assert self._tracer.stdin is not None
        os.kill(self.pid, signal.SIGSTOP)
        while not self._stands_still():
            time.sleep(0.005)
        seen = look()
        self._tracer.stdin.write("\n")
        self._tracer.stdin.flush()
        if self._line() != "tracing":
            raise PermissionError(errno.EPERM, "ptrace is not allowed here")
        os.kill(self.pid, signal.SIGCONT)
        return seen

    def _stands_still(self) -> bool:
        states = [
            (thread / "stat").read_text().rpartition(")")[2].split()[0]
            for thread in Path(f"/proc/{self.pid}/task").iterdir()
        ]
        return all(state in "TtZ" for state in states)

    def end(self) -> list[Note]:
        """Kill the command; what was noted."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._tracer.wait(30)
        return list(_read(self._notes)) if self._notes.is_file() else []

    def _line(self) -> str:
        assert self._tracer.stdout is not None
        return self._tracer.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for stream in (self._tracer.stdin, self._tracer.stdout):
            assert stream is not None
            stream.close()


def _read(notes: Path) -> Iterator[Note]:
    with notes.open("rb") as file, contextlib.suppress(EOFError):
        while True:
            yield pickle.load(file)


# --- the tracer -----------------------------------------------------------------------------


class _SyscallInfo(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("values", ctypes.c_int64 * 8),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, thread: int, address: int = 0, data: Any = 0) -> None:
    if _libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Tracer:
    """Follows all threads of one process."""

    def __init__(self, process: int, notes: IO[bytes]) -> None:
        self._process = process
        self._notes = notes
        self._entered: dict[int, tuple[str, tuple[int, ...], Note | None]] = {}
        self._memory = os.open(f"/proc/{process}/mem", os.O_RDONLY)

    def attach(self) -> None:
        """Seize every thread there is; later ones come by themselves."""
        for thread in os.listdir(f"/proc/{self._process}/task"):
            _ptrace(_SEIZE, int(thread), 0, _TRACESYSGOOD | _TRACECLONE | _EXITKILL)
            _ptrace(_INTERRUPT, int(thread))

    def follow(self) -> None:
        """Until the process has ended."""
        while True:
            try:
                thread, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                continue
            stopped_by, event = os.WSTOPSIG(status), status >> 16
            if stopped_by == _SYSCALL_STOP:
                self._look(thread)
            passed_on = stopped_by if stopped_by != _SYSCALL_STOP and not event else 0
            with contextlib.suppress(ProcessLookupError):
                _ptrace(_SYSCALL, thread, 0, passed_on)

    def _look(self, thread: int) -> None:
        info = _SyscallInfo()
        try:
            _ptrace(_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
        except ProcessLookupError:
            return
        if info.op == _ENTRY and (name := _CALLS.get(info.values[0])):
            arguments = tuple(info.values[1:7])
            self._entered[thread] = (name, arguments, self._before(name, arguments))
        elif info.op == _EXIT and (entered := self._entered.pop(thread, None)):
            self._after(*entered, result=info.values[0])

    def _before(self, name: str, arguments: tuple[int, ...]) -> Note | None:
        """What must be read before the call is made. An answer counts from when it begins."""
        descriptor = arguments[0]
        match name:
            case "write" | "writev" | "sendto" | "sendmsg":
                path = self._path(descriptor)
                data = self._sent(name, arguments)
                if path.startswith("socket:"):
                    self._note(Answered(data[:200]))
                elif path.startswith("/") and name == "write":
                    return Written(path, self._position(descriptor), data)
            case "pwrite":
                _, address, size, offset = arguments[:4]
                return Written(self._path(descriptor), offset, self._bytes(address, size))
        return None

    def _after(self, name: str, arguments: tuple[int, ...], before: Note | None, *, result: int) -> None:
        """A change or a flush counts from when it is done."""
        if result < 0:
            return
        match name:
            case "write" | "pwrite" if isinstance(before, Written):
                self._note(Written(before.path, before.offset, before.data[:result]))
            case "truncate":
                self._note(Truncated(self._path(arguments[0]), arguments[1]))
            case "sync":
                self._note(Flushed(self._path(arguments[0])))
            case "open" if arguments[2] & _CREAT:
                self._note(Opened(self._path(result)))

    def _sent(self, name: str, arguments: tuple[int, ...]) -> bytes:
        if name in ("write", "sendto"):
            return self._bytes(arguments[1], arguments[2])
        vectors = arguments[1]
        if name == "sendmsg":  # struct msghdr: name, its length, the vectors
            vectors = int.from_bytes(self._bytes(vectors + 16, 8), "little")
        base, size = (int.from_bytes(self._bytes(vectors + at, 8), "little") for at in (0, 8))
        return self._bytes(base, size)

    def _bytes(self, address: int, size: int) -> bytes:
        return os.pread(self._memory, size, address)

    def _path(self, descriptor: int) -> str:
        try:
            return os.readlink(f"/proc/{self._process}/fd/{descriptor}")
        except OSError:
            return ""

    def _position(self, descriptor: int) -> int:
        facts = Path(f"/proc/{self._process}/fdinfo/{descriptor}").read_text()
        return int(facts.partition("pos:")[2].split()[0])

    def _note(self, note: Note) -> None:
        pickle.dump(note, self._notes)


def trace(notes: Path, command: list[str]) -> None:
    """Be the tracer of a command."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.execvp(command[0], command)
    sys.stdout.write(f"{child}\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        os.kill(child, signal.SIGKILL)
        return
    with notes.open("wb") as file:
        tracer = _Tracer(child, file)
        try:
            tracer.attach()
        except OSError as error:
            sys.stdout.write(f"{error}\n")
            sys.stdout.flush()
            os.kill(child, signal.SIGKILL)
            return
        sys.stdout.write("tracing\n")
        sys.stdout.flush()
        tracer.follow()


if __name__ == "__main__":
    from tests.support import disk_trace  # notes are read back as those of the module, not of `__main__`

    disk_trace.trace(Path(sys.argv[1]), sys.argv[2:])
