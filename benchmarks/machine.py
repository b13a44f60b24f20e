"""What the figures were taken on: processors, memory, disk, and what else was running."""

import os
import platform
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import percentile

_BLOCK = b"\0" * 4096
_BLOCKS = 1024


def describe(scratch: Path) -> dict[str, Any]:
    """The machine, as the results carry it. `scratch` is where the databases will be."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "filesystem": _filesystem(scratch),
        "python": platform.python_version(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "flush": flush_times(scratch, seconds=2.0),
    }


def flush_times(folder: Path, *, seconds: float) -> dict[str, float]:
    """How long one flush to disk takes, in ms: 4 KiB written over what a file holds, then fdatasync.

    This is what a commit to a write-ahead log that has its size costs at least.
    """
    file = folder / "flush-probe"
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, _BLOCK * _BLOCKS)
        os.fsync(descriptor)
        times = sorted(_flushes(descriptor, seconds))
    finally:
        os.close(descriptor)
        file.unlink()
    return {
        "p50_ms": round(1000 * percentile(times, 0.50), 3),
        "p99_ms": round(1000 * percentile(times, 0.99), 3),
        "flushes": len(times),
    }


def _flushes(descriptor: int, seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        os.pwrite(descriptor, _BLOCK, len(times) % _BLOCKS * len(_BLOCK))
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - began)
    return times


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _filesystem(folder: Path) -> str:
    """Kind of the file system that holds a folder: the mount with the longest matching path."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    folder = folder.resolve()
    holding = [mount for mount in mounts if folder.is_relative_to(mount[1])]
    return max(holding, key=lambda mount: len(mount[1]))[2] if holding else "unknown"
