"""What a process and all its descendants use, read from Linux's /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_KIB_PER_MIB = 1024
# Fields of /proc/PID/stat behind the name, counted from 0 (proc(5)).
_PARENT = 1
_TIMES = slice(11, 15)  # utime, stime, cutime, cstime


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of a process tree. `pss` shares out what processes have in common."""

    pss_mib: float
    rss_mib: float
    processes: int


def tree_of(pid: int) -> list[int]:
    """A process and its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[_PARENT]), []).append(int(entry.name))
    tree = [pid]
    for member in tree:
        tree.extend(children.get(member, ()))
    return tree


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree, ended and waited-for children included."""
    ticks = 0
    for member in tree_of(pid):
        if stat := _stat(member):
            ticks += sum(int(value) for value in stat[_TIMES])
    return ticks / _TICKS_PER_SECOND


def memory(pid: int) -> Memory:
    """Memory of the tree."""
    sizes = {"Pss:": 0, "Rss:": 0}
    members = tree_of(pid)
    for member in members:
        for line in _lines(_PROC / str(member) / "smaps_rollup"):
            name, _, rest = line.partition(" ")
            if name in sizes:
                sizes[name] += int(rest.split()[0])
    return Memory(sizes["Pss:"] / _KIB_PER_MIB, sizes["Rss:"] / _KIB_PER_MIB, len(members))


def _stat(pid: int) -> list[str] | None:
    lines = _lines(_PROC / str(pid) / "stat")
    # The name may hold spaces and parentheses; the last parenthesis ends it.
    return lines[0].rpartition(")")[2].split() if lines else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return []
