"""A client of the soak: logs without pause, and keeps a ledger of what it sent and what was acknowledged.

`python -m tests.soak.client URL EXPERIMENT_ID SEED LEDGER STOP` logs until the file STOP is there, ends its
run, and leaves. The ledger has a line for each operation before it is sent (`sent`) and one after its answer
(`acked`), so that it is true whenever it is read.
"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.durability.tracking import API, ARTIFACTS, BASE_MS

STEPS_PER_RUN = 150
PATIENCE_SECONDS = 120.0
# What a client tries again: no answer, and the answers that stock clients take for passing.
PASSING = frozenset({408, 429, 500, 502, 503, 504, 507})


class Client:
    """One."""

    def __init__(self, url: str, experiment_id: str, seed: int, ledger: Path, stop: Path) -> None:
        self._http = httpx.Client(base_url=url, timeout=20.0, trust_env=False)
        self._experiment_id = experiment_id
        self._chance = random.Random(seed)
        self._ledger = ledger.open("a", buffering=1)
        self._stop = stop
        self._seed = seed

    def log_until_stopped(self) -> None:
        """One run after the other."""
        number = 0
        while not self._stop.exists():
            number += 1
            self._log_run(f"client {self._seed} run {number}")

    def _log_run(self, name: str) -> None:
        body = {"experiment_id": self._experiment_id, "run_name": name, "start_time": BASE_MS}
        info = self._do("run", {"name": name}, "POST", f"{API}/runs/create", body)["run"]["info"]
        run_id, root = info["run_id"], info["artifact_uri"].partition(":")[2].strip("/")
        self._note("made", {"run": run_id, "name": name})
        for step in range(self._chance.randint(5, STEPS_PER_RUN)):
            self._log_step(run_id, root, step)
            if self._stop.exists():
                break
        status = self._chance.choice(["FINISHED", "FINISHED", "FAILED", "KILLED"])
        body = {"run_id": run_id, "status": status, "end_time": BASE_MS + 1}
        self._do("end", {"run": run_id, "status": status}, "POST", f"{API}/runs/update", body)

    def _log_step(self, run_id: str, root: str, step: int) -> None:
        match self._chance.choices(["metric", "batch", "param", "tag", "untag", "file"], [8, 3, 2, 3, 1, 1])[
            0
        ]:
            case "metric":
                self._points(run_id, "log-metric", [("loss", step)])
            case "batch":
                self._points(
                    run_id, "log-batch", [(key, step * 4 + n) for key in ("a", "b") for n in range(4)]
                )
            case "param":
                fields = {"run": run_id, "key": f"p{step}", "value": f"{run_id} {step}"}
                self._send("param", fields, "log-parameter")
            case "tag":
                fields = {"run": run_id, "key": f"t{step % 3}", "value": str(step)}
                self._send("tag", fields, "set-tag")
            case "untag":
                self._send("untag", {"run": run_id, "key": f"t{step % 3}"}, "delete-tag")
            case _:
                size = self._chance.choice([20, 3_000, 90_000])
                content = f"{run_id} {step} ".encode() * (size // 36)
                path = f"files/{step}.bin"
                fields = {"run": run_id, "path": path, "size": len(content)}
                self._do("file", fields, "PUT", f"{ARTIFACTS}/{root}/{path}", content)

    def _points(self, run_id: str, route: str, points: list[tuple[str, int]]) -> None:
        rows = [
            {"key": key, "value": step / 7, "timestamp": BASE_MS + step, "step": step} for key, step in points
        ]
        body = {"metrics": rows} if route == "log-batch" else rows[0]
        fields = {"run": run_id, "points": [[row["key"], row["step"]] for row in rows]}
        self._do("points", fields, "POST", f"{API}/runs/{route}", {"run_id": run_id, **body})

    def _send(self, kind: str, fields: dict[str, str], route: str) -> None:
        body = {("run_id" if name == "run" else name): value for name, value in fields.items()}
        self._do(kind, fields, "POST", f"{API}/runs/{route}", body)

    def _do(self, kind: str, fields: dict[str, Any], method: str, path: str, body: Any) -> dict[str, Any]:
        """Send it until it is answered for good; the answer."""
        self._note("sent", {"kind": kind, **fields})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._ask(method, path, body)
            if answer is not None and answer.status_code not in PASSING:
                break
            if time.monotonic() > deadline:
                self._note("gave up", {"kind": kind, "answer": None if answer is None else answer.text[:300]})
                raise SystemExit(f"no answer for {PATIENCE_SECONDS:.0f} s: {method} {path}")
            time.sleep(self._chance.uniform(0.02, 0.2))
        is_gone = kind == "untag" and answer.status_code == 404
        if not (answer.is_success or is_gone):
            self._note("refused", {"kind": kind, "answer": f"{answer.status_code} {answer.text[:300]}"})
            raise SystemExit(f"refused: {method} {path}: {answer.status_code} {answer.text[:300]}")
        self._note("acked", {"kind": kind, **fields})
        return dict(answer.json()) if answer.is_success and answer.content else {}

    def _ask(self, method: str, path: str, body: Any) -> httpx.Response | None:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        try:
            return self._http.request(method, path, **content)
        except httpx.TransportError:
            return None

    def _note(self, what: str, fields: dict[str, Any]) -> None:
        self._ledger.write(json.dumps({"what": what, **fields}) + "\n")


if __name__ == "__main__":
    url, experiment_id, seed, ledger, stop = sys.argv[1:]
    Client(url, experiment_id, int(seed), Path(ledger), Path(stop)).log_until_stopped()
