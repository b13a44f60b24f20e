"""Artifacts through the server: one large file up and down, and many small ones."""

import http.client
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

from benchmarks.bench import MEASURING_ERRORS, Bench, MemoryWatch, rotated
from benchmarks.figures import percentile
from benchmarks.results import Figures
from benchmarks.systems.kinds import MLFLOW, PROXY, Running

PUT_LARGE = "upload of one large file"
GET_LARGE = "download of one large file"
PUT_SMALL = "upload of small files, 4 connections"
GET_SMALL = "download of small files, 4 connections"

_MIB = 1 << 20
_SMALL_BYTES = 10 * 1024
_CONNECTIONS = 4
_TIMEOUT_SECONDS = 600.0
_OK = http.HTTPStatus.OK
_SCHEME = "mlflow-artifacts:/"


def measure_artifacts(bench: Bench, kind: str) -> None:
    """Proxy and stock server in turn. FastTrackML takes no artifacts through itself."""
    with bench.all_running((PROXY, MLFLOW), kind) as systems:
        for repeat in range(bench.options.repeats):
            for running in rotated(systems, repeat):
                try:
                    _measure(bench, running, repeat)
                except (*MEASURING_ERRORS, http.client.HTTPException) as error:
                    bench.record(PUT_LARGE, running, repeat, {}, failed=str(error))


def _measure(bench: Bench, running: Running, repeat: int) -> None:
    files = _Files(running)
    mib, small = bench.options.artifact_mib, bench.options.small_artifacts
    transfers: dict[str, Callable[[], Figures]] = {
        PUT_LARGE: lambda: files.put_large(mib),
        GET_LARGE: lambda: files.get_large(mib),
        PUT_SMALL: lambda: files.many("PUT", small),
        GET_SMALL: lambda: files.many("GET", small),
    }
    for scenario, transfer in transfers.items():
        before = running.process.memory().pss_mib
        cpu = running.cpu_seconds()
        with MemoryWatch(running.process, every_seconds=0.1) as watch:
            figures = transfer()
        figures |= {
            "pss_before_mib": before,
            "peak_pss_mib": watch.peak_mib,
            "cpu_seconds": running.cpu_seconds() - cpu,
        }
        bench.record(scenario, running, repeat, figures)


class _Files:
    """The artifacts of one run, by plain HTTP."""

    def __init__(self, running: Running) -> None:
        parts = urlsplit(running.process.url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._headers = dict(running.headers)
        api = running.api
        info = api.create_run(api.experiment("bench-artifacts"), "artifacts")
        folder = str(info["artifact_uri"]).removeprefix(_SCHEME).lstrip("/")
        self._path = f"/api/2.0/mlflow-artifacts/artifacts/{folder}"

    def put_large(self, mib: int) -> Figures:
        """Upload a file of so many MiB."""
        chunk = os.urandom(_MIB)
        headers = {"Content-Length": str(mib * _MIB), "Content-Type": "application/octet-stream"}
        connection = self._connect()
        began = time.perf_counter()
        connection.request("PUT", f"{self._path}/large.bin", _repeated(chunk, mib), self._headers | headers)
        _read(connection.getresponse())
        seconds = time.perf_counter() - began
        connection.close()
        return {"seconds": seconds, "mib_per_second": mib / seconds}

    def get_large(self, mib: int) -> Figures:
        """Download it again.

        Raises:
            OSError: it is not whole.
        """
        connection = self._connect()
        began = time.perf_counter()
        connection.request("GET", f"{self._path}/large.bin", headers=self._headers)
        received = _read(connection.getresponse())
        seconds = time.perf_counter() - began
        connection.close()
        if received != mib * _MIB:
            raise OSError(f"{received} bytes came back instead of {mib * _MIB}")
        return {"seconds": seconds, "mib_per_second": mib / seconds}

    def many(self, method: str, files: int) -> Figures:
        """Upload or download small files on a few connections at once."""
        began = time.perf_counter()
        with ThreadPoolExecutor(_CONNECTIONS) as threads:
            parts = [range(first, files, _CONNECTIONS) for first in range(_CONNECTIONS)]
            times = [each for part in threads.map(partial(self._transfer, method), parts) for each in part]
        seconds = time.perf_counter() - began
        times.sort()
        return {
            "seconds": seconds,
            "per_second": files / seconds,
            "p50_ms": 1000 * percentile(times, 0.5),
            "p99_ms": 1000 * percentile(times, 0.99),
        }

    def _transfer(self, method: str, numbers: range) -> list[float]:
        """How long each took."""
        times = []
        connection = self._connect()
        body = os.urandom(_SMALL_BYTES) if method == "PUT" else None
        for number in numbers:
            began = time.perf_counter()
            connection.request(method, f"{self._path}/small/{number}.bin", body, self._headers)
            _read(connection.getresponse())
            times.append(time.perf_counter() - began)
        connection.close()
        return times

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self._address, timeout=_TIMEOUT_SECONDS, blocksize=_MIB)


def _repeated(chunk: bytes, times: int) -> Iterator[bytes]:
    for _ in range(times):
        yield chunk


def _read(answer: http.client.HTTPResponse) -> int:
    """The length of a good answer's body."""
    if answer.status != _OK:
        raise OSError(f"{answer.status} {answer.read()[:300].decode(errors='replace')}")
    received = 0
    while part := answer.read(_MIB):
        received += len(part)
    return received
