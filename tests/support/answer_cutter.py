"""A wire between a client and the proxy on which answers get lost: sent by the proxy, never received."""

import http.client
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_TIMEOUT_SECONDS = 120.0


class AnswerCutter:
    """Forwards HTTP to a port of this machine. Leave it with a `with` block.

    Each client connection has one of its own to the other side, which ends when it does.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._lock = threading.Lock()
        self._losses: list[tuple[re.Pattern[str], int]] = []
        self.lost: list[str] = []
        """The requests whose answers were lost."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """What a client sets as MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def lose(self, pattern: str, *, times: int = 1) -> None:
        """Lose the answers to the next requests of which `METHOD path` matches."""
        with self._lock:
            self._losses.append((re.compile(pattern), times))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _is_lost(self, request: str) -> bool:
        with self._lock:
            for index, (pattern, times) in enumerate(self._losses):
                if pattern.search(request):
                    self._losses[index : index + 1] = [(pattern, times - 1)] if times > 1 else []
                    self.lost.append(request)
                    return True
        return False

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        cutter = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self.upstream = http.client.HTTPConnection(
                    "127.0.0.1", cutter._target_port, timeout=_TIMEOUT_SECONDS
                )

            def finish(self) -> None:
                self.upstream.close()
                super().finish()

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                try:
                    self.upstream.request(self.command, self.path, body or None, dict(self.headers.items()))
                    answer = self.upstream.getresponse()
                    content = answer.read()
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                    return
                if cutter._is_lost(f"{self.command} {self.path}"):
                    self.close_connection = True
                    return
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler
