"""A soak: clients that log without pause, a proxy that is killed, a workspace that misbehaves, and a judge.

Everything that happens by chance follows from the seed. What is told last is the verdict.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.durability.conftest import ask_to_drain, deliver_to
from tests.durability.crashing import KILLED, end_leases
from tests.durability.tracking import Tracking, train
from tests.soak.oracle import judge, read_ledgers
from tests.support.emulator import REPOSITORY, EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess

CLIENTS = 3
REPORT_SECONDS = 5.0
DRAIN_SECONDS = 240.0
FRESH_SECONDS = 90.0
CALLS = ("/mlflow/", "/history/", "/artifact/", "log-batch$", "runs/update$", "PATCH ", "PUT ", "GET ")
PLACES = (
    "commit.before",
    "commit.after",
    "send.before",
    "send.after",
    "run.made",
    "spool.flushed",
    "upload.registered",
    "upload.committed",
    "upload.recorded",
    "uncertain.read",
)


@dataclass(slots=True)
class Soak:
    """One soak, from start to verdict."""

    folder: Path
    seconds: float
    seed: int
    database_url: str | None = None
    say: Callable[[str], None] = print
    done: Counter[str] = field(default_factory=Counter)
    _chance: random.Random = field(init=False)
    _emulator: EmulatorProcess = field(init=False)
    _server: ServerProcess = field(init=False)
    _clients: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def run(self) -> list[str]:
        """Every breach of what was promised; none is what is wanted."""
        self._chance = random.Random(self.seed)
        self.say(
            f"soak: {self.seconds:.0f} s, seed {self.seed}, {CLIENTS} clients,"
            f" {'SQLite' if self.database_url is None else 'Postgres'}"
        )
        with ExitStack() as running:
            nursery = running.enter_context(Nursery())
            self._emulator = running.enter_context(EmulatorProcess.start(self.folder / "emulator"))
            self._server = deliver_to(
                self._emulator,
                self.folder / "server",
                nursery,
                MLPROXY_DATABASE_URL=self.database_url,
                MLPROXY_TEST_FAILPOINTS=f"@{self._script}",
                MLPROXY_SETTLE_SECONDS=1.0,
                MLPROXY_MARKER_SETTLE_SECONDS=2.0,
            )
            running.callback(self._end_everything)
            self._start_clients()
            self._make_trouble()
            return self._judge()

    # --- clients ---

    @property
    def _ledgers(self) -> list[Path]:
        return [self.folder / f"ledger-{number}" for number in range(CLIENTS)]

    @property
    def _script(self) -> Path:
        return self.folder / "failpoints"

    @property
    def _stop(self) -> Path:
        return self.folder / "stop"

    def _start_clients(self) -> None:
        tracking = Tracking(self._server.url)
        for number, ledger in enumerate(self._ledgers):
            ledger.touch()
            experiment = tracking.create_experiment(f"soak {number}")
            command = [sys.executable, "-m", "tests.soak.client", self._server.url, experiment]
            command += [str(self.seed * 1000 + number), str(ledger), str(self._stop)]
            log = (self.folder / f"client-{number}.log").open("wb")
            self._clients.append(
                subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)
            )

    # --- trouble ---

    def _make_trouble(self) -> None:
        began = reported = time.monotonic()
        troubles: list[tuple[int, Callable[[], None]]] = [
            (6, self._break_calls),
            (3, self._slow_down),
            (2, self._refuse),
            (3, self._kill),
            (2, self._die_at_a_place),
            (1, self._restart),
            (2, self._pause),
            (2, self._workspace_away),
            (1, self._full_disk),
            (1, self._revoke_tokens),
        ]
        weights = [weight for weight, _ in troubles]
        # However slow the machine: a soak without a kill would prove little.
        while time.monotonic() - began < self.seconds or not self.done["proxy killed"]:
            (trouble,) = self._chance.choices(troubles, weights)
            trouble[1]()
            time.sleep(self._chance.uniform(0.3, 2.0))
            self._revive()
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                self._report(reported - began)

    def _break_calls(self) -> None:
        effect = self._chance.choice(["drop_answer", "status", "html", "cut_body"])
        fault: dict[str, object] = {"effect": effect, "when": self._chance.choice(["before", "after"])}
        if effect == "status":
            fault["status"] = self._chance.choice([500, 502, 503, 504])
        self._fault(f"calls broken ({effect})", times=self._chance.randint(1, 3), **fault)

    def _slow_down(self) -> None:
        effect, pause = self._chance.choice([("delay", 1.0), ("delay", 3.0), ("drip", 0.005)])
        self._fault("calls slowed", effect=effect, delay_seconds=pause, times=self._chance.randint(1, 4))

    def _refuse(self) -> None:
        status = self._chance.choice([401, 403, 408, 429, 429])
        headers = {"Retry-After": "1"} if status == 429 and self._chance.random() < 0.5 else {}
        self._fault(f"calls refused ({status})", effect="status", status=status, headers=headers, times=2)

    def _fault(self, what: str, **fault: object) -> None:
        self.done[what] += 1
        self._emulator.add_fault(match=self._chance.choice(CALLS), **fault)

    def _kill(self) -> None:
        self.done["proxy killed"] += 1
        self._server.kill()
        self._launch()

    def _die_at_a_place(self) -> None:
        self._script.write_text(f"{self._chance.choice(PLACES)}=kill@{self._chance.randint(1, 5)}")

    def _restart(self) -> None:
        self.done["proxy restarted"] += 1
        assert self._server.stop() in (0, KILLED)
        self._launch()

    def _pause(self) -> None:
        """Stop it for a moment, as a machine under load may."""
        self.done["proxy stopped for a while"] += 1
        self._server.send_signal(signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.2, 3.0))
        self._server.send_signal(signal.SIGCONT)

    def _workspace_away(self) -> None:
        self.done["workspace away"] += 1
        self._emulator.kill()
        time.sleep(self._chance.uniform(0.5, 6.0))
        self._emulator.restart()

    def _full_disk(self) -> None:
        self.done["disk full for a while"] += 1
        self._script.write_text("commit.before=error:ENOSPC")
        time.sleep(self._chance.uniform(0.2, 1.0))
        self._script.write_text("")

    def _revoke_tokens(self) -> None:
        self.done["tokens revoked"] += 1
        self._emulator.revoke_tokens()

    def _revive(self) -> None:
        if not self._server.is_running:
            assert self._server.wait() == KILLED, self._server.log_file.read_text()[-3000:]
            self.done["proxy died at a named place"] += 1
            self._launch()

    def _launch(self) -> None:
        self._script.write_text("")
        if self.database_url is not None:
            end_leases(self.database_url)
        self._server.launch()

    def _report(self, elapsed: float) -> None:
        ledgers = read_ledgers(self._ledgers)
        try:
            status = self._server.status()
        except httpx.TransportError:
            status = {"pending": "?", "uncertain": "?", "parked": "?"}
        self.say(
            f"{elapsed:5.0f} s: {ledgers.acknowledged} acknowledged in {len(ledgers.runs)} runs;"
            f" pending {status['pending']}, uncertain {status['uncertain']}, parked {status['parked']};"
            f" troubles {sum(self.done.values())}"
        )

    # --- the end ---

    def _judge(self) -> list[str]:
        self._script.write_text("")
        self._revive()
        self._emulator.clear_faults()
        self._stop.touch()
        breaches = [words for client in self._clients if (words := self._ended(client))]
        began = time.monotonic()
        left = ask_to_drain(self._server)
        while (left["pending"], left["uncertain"]) != (0, 0):
            if time.monotonic() - began > DRAIN_SECONDS:
                breaches.append(f"not delivered within {DRAIN_SECONDS:.0f} s: {left}")
                break
            left = ask_to_drain(self._server)
        self.say(f"drained in {time.monotonic() - began:.1f} s, {left['parked']} parked")
        ledgers = read_ledgers(self._ledgers)
        experiments = {f"soak {number}" for number in range(CLIENTS)}
        breaches += judge(ledgers, self._emulator, experiments, left["parked"])
        breaches += self._judge_a_fresh_write()
        for what, count in sorted(self.done.items()):
            self.say(f"  {what}: {count}")
        points = sum(len(run.points) for run in ledgers.runs.values())
        files = sum(len(run.files) for run in ledgers.runs.values())
        self.say(
            f"judged: {ledgers.acknowledged} acknowledged operations, {len(ledgers.runs)} runs,"
            f" {points} points, {files} files"
        )
        return breaches

    def _ended(self, client: "subprocess.Popen[bytes]") -> str | None:
        try:
            code = client.wait(240)
        except subprocess.TimeoutExpired:
            return "a client did not end"
        return f"a client ended with {code}: see {self.folder}" if code else None

    def _judge_a_fresh_write(self) -> list[str]:
        tracking = Tracking(self._server.url)
        began = time.monotonic()
        run = train(tracking, tracking.create_experiment("fresh"), "fresh", steps=2)
        while time.monotonic() - began < FRESH_SECONDS:
            left = ask_to_drain(self._server)
            if left["pending"] == 0:
                held = self._emulator.run(run.run_id)
                return [] if len(held["metrics"]) == len(run.points) else ["a fresh run is not whole"]
        return [f"a fresh run was not delivered within {FRESH_SECONDS:.0f} s"]

    def _end_everything(self) -> None:
        for client in self._clients:
            if client.poll() is None:
                client.kill()
                client.wait()
        if self._server.is_running:
            self._server.kill()
