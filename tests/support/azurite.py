"""Azurite, Microsoft's own storage emulator, as a real process."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port

START_TIMEOUT_SECONDS = 120.0


@contextmanager
def running_azurite(folder: Path) -> Iterator[str]:
    """Azurite's blob endpoint; the test is skipped where the program is not installed."""
    program = os.environ.get("MLPROXY_TEST_AZURITE")
    if not program:
        pytest.skip("no Azurite: MLPROXY_TEST_AZURITE does not name the program")
    port = free_port()
    command = [program, "--location", str(folder), "--silent", "--skipApiVersionCheck"]
    for service, service_port in (("blob", port), ("queue", free_port()), ("table", free_port())):
        command += [f"--{service}Port", str(service_port), f"--{service}Host", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_answer(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}/devstoreaccount1"
    finally:
        # It keeps idle connections open and waits for them to end by themselves.
        process.kill()
        process.wait(10)


def _await_answer(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            httpx.get(url, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{url} does not answer")
