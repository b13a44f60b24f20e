"""A host that webhooks are sent to: it keeps what it gets, and answers as the path tells.

`/refuse` answers 403, `/redirect` points to `/elsewhere`, `/flaky/N` fails N times with 503 and then
works, `/down` always fails, `/slow` takes a moment; everything else answers 200.
"""

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

SLOW_SECONDS = 0.5


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def message(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def event(self) -> str:
        return f"{self.message['entity']}.{self.message['action']}"

    @property
    def delivery_id(self) -> str:
        return self.headers["x-mlflow-delivery-id"]

    def is_signed_with(self, secret: str) -> bool:
        """Whether the signature is MLflow's, worked out here anew."""
        signed = f"{self.delivery_id}.{self.headers['x-mlflow-timestamp']}.{self.body}".encode()
        digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        return self.headers.get("x-mlflow-signature") == f"v1,{base64.b64encode(digest).decode()}"


@dataclass
class Receiver:
    """A running receiver on a free loopback port."""

    certificate: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        if self.certificate is not None:
            self._server.socket = self.certificate.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def at(self, path: str) -> list[Received]:
        """What came to a path, in order."""
        return [request for request in list(self.received) if request.path == path]

    def wait_for(self, count: int, path: str | None = None, timeout: float = 90.0) -> list[Received]:
        """At least `count` requests, once they have come."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = list(self.received) if path is None else self.at(path)
            if len(found) >= count:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{count} requests awaited, got {[item.path for item in self.received]}")

    def wait_for_events(self, wanted: set[str], path: str, timeout: float = 90.0) -> list[Received]:
        """All requests at a path, once every wanted event is among them."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = self.at(path)
            if wanted <= {request.event for request in found}:
                return found
            time.sleep(0.02)
        missing = sorted(wanted - {request.event for request in self.at(path)})
        raise AssertionError(f"These events did not come: {missing}")

    def answer(self, request: Received) -> tuple[int, str, dict[str, str]]:
        """Keep the request; status, body and headers of the answer."""
        with self.lock:
            self.received.append(request)
        match request.path.split("/")[1:]:
            case ["refuse"]:
                return 403, "no", {}
            case ["redirect"]:
                return 302, "", {"Location": "/elsewhere"}
            case ["flaky", times] if len(self.at(request.path)) <= int(times):
                return 503, "later", {}
            case ["down"]:
                return 500, "", {}
            case ["slow"]:
                time.sleep(SLOW_SECONDS)
        return 200, "ok", {}


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with receiver.lock:
                receiver.at_once += 1
                receiver.most_at_once = max(receiver.most_at_once, receiver.at_once)
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, text, extra = receiver.answer(Received(self.path, headers, body))
            with receiver.lock:
                receiver.at_once -= 1
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            return

    return Handler
