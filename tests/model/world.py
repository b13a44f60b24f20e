"""The proxy and the workspace as the model test uses them: real processes, a clock that can be turned."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.durability.conftest import ask_to_drain
from tests.durability.tracking import API, ARTIFACTS
from tests.durability.turning import TurnedServer, start_turned
from tests.support.emulator import EmulatorProcess, JsonObject
from tests.support.nursery import Nursery

T = TypeVar("T")
KILLED = -9
SETTLE_SECONDS = 300.0
DRAIN_SECONDS = 180.0


@dataclass(slots=True)
class World:
    """One proxy and its workspace, through crashes and faults."""

    emulator: EmulatorProcess
    turned: TurnedServer
    failpoints: Path
    http: httpx.Client = field(init=False)
    lives: int = 1

    def __post_init__(self) -> None:
        self._connect()

    @classmethod
    def start(cls, emulator: EmulatorProcess, folder: Path, nursery: Nursery, **settings: object) -> "World":
        """A new proxy in that folder."""
        failpoints = folder / "failpoints"
        turned = start_turned(
            emulator,
            folder,
            nursery,
            MLPROXY_TEST_FAILPOINTS=f"@{failpoints}",
            # Long enough that the machine's own time, which passes as well, does not count.
            MLPROXY_SETTLE_SECONDS=SETTLE_SECONDS,
            **settings,
        )
        return cls(emulator, turned, failpoints)

    # --- what a client does ---

    def insist(self, call: Callable[[], T], *, lost: Callable[[], None] = lambda: None) -> T:
        """The call's answer; once more if the proxy dies under it. `lost` hears of an unseen answer."""
        try:
            return call()
        except httpx.TransportError:
            lost()
            assert self.turned.server.wait() == KILLED
            self._launch()
            return call()

    def post(self, path: str, body: JsonObject) -> httpx.Response:
        return self.http.post(f"{API}/{path}", json=body)

    def get(self, path: str, **query: str) -> JsonObject:
        return dict(self.http.get(f"{API}/{path}", params=query).raise_for_status().json())

    def file(self, method: str, root: str, path: str, content: bytes | None = None) -> httpx.Response:
        return self.http.request(method, f"{ARTIFACTS}/{root}/{path}", content=content)

    # --- what happens to the proxy ---

    def kill(self) -> None:
        """`kill -9`, and a new start."""
        self.turned.server.kill()
        self._launch()

    def restart(self) -> None:
        """A polite end, and a new start. At an armed place it may die on its way."""
        assert self.turned.server.stop() in (0, KILLED)
        self._launch()

    def arm(self, text: str) -> None:
        """Let the proxy die at this place, when it comes there."""
        self.failpoints.write_text(text)

    def revive(self) -> None:
        """Start it again if it has died at the armed place."""
        if not self.turned.server.is_running:
            assert self.turned.server.wait() == KILLED
            self._launch()

    def deliver_for_a_while(self) -> JsonObject:
        """Let it deliver for half a second; what is left."""
        return self.insist(lambda: ask_to_drain(self.turned.server))

    def _launch(self) -> None:
        self.arm("")
        self.turned.server.launch()
        self.lives += 1
        self._connect()

    def _connect(self) -> None:
        if hasattr(self, "http"):
            self.http.close()
        self.http = httpx.Client(base_url=self.turned.server.url, timeout=60.0, trust_env=False)

    # --- what happens to the workspace ---

    def heal(self) -> None:
        """No faults, no lag, and nothing left to wait for."""
        self.arm("")
        self.revive()
        self.emulator.clear_faults()
        self.emulator.settings(search_lag_seconds=0.0, metric_lag_seconds=0.0)

    def retry_parked(self) -> None:
        """As an operator: let everything that is parked be delivered after all."""
        url = "/api/2.0/mlproxy/parked/retry"
        answer = self.insist(lambda: self.http.post(url, json={"all": True}))
        assert answer.is_success, answer.text

    def drain(self, *, may_park: bool = False) -> None:
        """Let time pass until everything is delivered, and nothing is parked unless it may be."""
        left: dict[str, Any] = {}
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            left = self.deliver_for_a_while()
            if (left["pending"], left["uncertain"]) == (0, 0):
                assert may_park or left["parked"] == 0, self.http.get("/api/2.0/mlproxy/parked").text
                return
            self.turned.let_pass(SETTLE_SECONDS + 1)
        raise AssertionError(f"{left}\n{self.turned.server.log_file.read_text()[-4000:]}")

    def close(self) -> None:
        self.http.close()
        if self.turned.server.is_running:
            self.turned.server.kill()
