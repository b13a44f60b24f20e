"""A request is one request: nothing that two readers could cut differently is let through."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.connections import LARGEST_HEAD_BYTES
from tests.support.attempts import quickest
from tests.support.raw_http import request_bytes, send_raw
from tests.support.server import ServerProcess

CREATE = "/api/2.0/mlflow/experiments/create"
HIDDEN = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"

SMUGGLED = {
    "length and chunks": request_bytes(CREATE, CHUNKED, method="POST", body=b"0\r\n\r\n" + HIDDEN),
    "two lengths": request_bytes(CREATE, "Content-Length: 0", method="POST", body=HIDDEN),
    "unknown coding": request_bytes(CREATE, "Transfer-Encoding: xchunked", method="POST")
    + b"0\r\n\r\n"
    + HIDDEN,
    "coding twice": request_bytes(CREATE, CHUNKED, "Transfer-Encoding: x", method="POST")
    + b"0\r\n\r\n"
    + HIDDEN,
    "space before colon": request_bytes(CREATE, "Transfer-Encoding : chunked", method="POST") + HIDDEN,
    "folded line": request_bytes(CREATE, "X-A: b\r\n Content-Length: 5"),
    "bare line feeds": request_bytes("/health").replace(b"\r\n", b"\n"),
    "bare carriage return": request_bytes("/health", "X-A: b\rTransfer-Encoding: chunked"),
    "NUL in a header": request_bytes("/health", "X-A: b\0"),
    "space in a name": request_bytes("/health", "X A: b"),
    "no name": request_bytes("/health", ": b"),
    "negative length": request_bytes(CREATE, "Content-Length: -1", method="POST"),
    "signed length": request_bytes(CREATE, "Content-Length: +5", method="POST"),
    "length in hex": request_bytes(CREATE, "Content-Length: 0x5", method="POST"),
    "huge length": request_bytes(CREATE, f"Content-Length: {'9' * 30}", method="POST"),
    "chunk size with a sign": request_bytes(CREATE, CHUNKED, method="POST") + b"-1\r\n\r\n",
    "huge chunk size": request_bytes(CREATE, CHUNKED, method="POST") + b"F" * 20 + b"\r\n",
    "whole URL as target": request_bytes("http://evil.example/health"),
    "host and port as target": request_bytes("evil.example:80", method="CONNECT"),
    "fragment": request_bytes("/health#/../x"),
    "tab in the target": request_bytes("/health\t/x"),
    "bytes in the target": request_bytes(b"/health\xff\xfe"),
    "other version": request_bytes("/health").replace(b"HTTP/1.1", b"HTTP/3.1"),
    "no version": b"GET /health\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("sent", SMUGGLED.values(), ids=SMUGGLED)
def test_a_request_that_could_be_two_is_none(server: ServerProcess, sent: bytes) -> None:
    """One answer, a refusal, and the connection is closed: what follows is never read as a request."""
    answer = send_raw(server.port, sent, patience=20)
    assert answer.answers == 1, answer
    assert answer.status in (400, 401, 403, 501, 505), answer
    assert b"OK" not in answer.body
    assert set(json.loads(answer.body)) == {"error_code", "message"}


def test_control_pipelined_requests_are_two(server: ServerProcess) -> None:
    """Two requests that are written as two get two answers."""
    first = HIDDEN
    assert send_raw(server.port, first + request_bytes("/health")).answers == 2


HEADS = {
    "one huge header": [b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"a" * 1_000_000],
    "many headers": [b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"a: b\r\n" * 100_000],
    "huge target": [b"GET /", b"a" * 1_000_000],
    "huge name": [b"GET /health HTTP/1.1\r\n", b"a" * 1_000_000],
    "chunk extension": [request_bytes(CREATE, CHUNKED, method="POST"), b"1;" + b"a" * 1_000_000],
    "trailers": [request_bytes(CREATE, CHUNKED, method="POST"), b"0\r\n" + b"a: b\r\n" * 100_000],
    "blank lines": [b"\r\n" * 500_000],
}


@pytest.mark.parametrize("pieces", HEADS.values(), ids=HEADS)
def test_what_comes_before_a_body_is_bounded(server: ServerProcess, pieces: list[bytes]) -> None:
    """A head, a chunk's extension and trailers are cut off, long before they are whole."""
    answer = send_raw(server.port, *pieces, patience=5)
    assert answer.status in (0, 400, 401, 431), answer


def test_the_largest_head_is_taken(server: ServerProcess) -> None:
    """And one byte more than the bound is not."""
    for size, status in ((LARGEST_HEAD_BYTES - 2000, 200), (LARGEST_HEAD_BYTES + 1, 431)):
        assert send_raw(server.port, request_bytes("/health", f"X-A: {'a' * size}")).status == status


def test_heads_take_no_memory(server: ServerProcess, record_property: Callable[[str, object], None]) -> None:
    """Fifty connections with a megabyte of head each leave the server as large as it was."""
    before = _resident_bytes(server.pid)
    for _ in range(50):
        send_raw(server.port, *HEADS["many headers"], patience=5)
    assert _resident_bytes(server.pid) - before < 32 * 1024 * 1024
    record_property("attacks", 50)


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_trailers_are_no_headers(server: ServerProcess, keys: dict[str, str]) -> None:
    """A credential behind the body comes too late."""
    sent = (
        request_bytes(CREATE, CHUNKED, "Content-Type: application/json", method="POST")
        + b'c\r\n{"name":"t"}\r\n0\r\nAuthorization: Bearer '
        + keys["write"].encode()
        + b"\r\n\r\n"
    )
    assert send_raw(server.port, sent).status == 401


def test_an_upgrade_is_not_made(server: ServerProcess, keys: dict[str, str]) -> None:
    """There is no second protocol behind the door."""
    for kind in ("websocket", "h2c", "TLS/1.0"):
        answer = send_raw(
            server.port, request_bytes("/api/2.0/mlproxy/status", f"Upgrade: {kind}", "Connection: Upgrade")
        )
        assert answer.status in (400, 401)


def test_headers_told_by_a_client_are_not_believed(server: ServerProcess) -> None:
    """Who trusts no reverse proxy takes no word for the address, the path, the host or the identity."""
    for line in (
        "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: localhost", "X-Original-URL: /health",
        "X-Rewrite-URL: /health", "X-MS-CLIENT-PRINCIPAL-NAME: admin", "X-Remote-User: admin",
        "X-HTTP-Method-Override: GET", "Forwarded: for=127.0.0.1",
    ):  # fmt: skip
        assert send_raw(server.port, request_bytes("/api/2.0/mlproxy/keys", line)).status == 401, line
        assert send_raw(server.port, request_bytes("/api/2.0/mlproxy/keys", line, host="evil")).status == 403


def test_a_slow_head_does_not_hold_others_up(server: ServerProcess) -> None:
    """While a hundred connections send nothing whole, somebody else is answered at once."""
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    try:
        for connection in held:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: lo")

        def ask() -> float:
            started = time.monotonic()
            assert send_raw(server.port, request_bytes("/health")).status == 200
            return time.monotonic() - started

        assert quickest(ask, under=2) < 2
    finally:
        for connection in held:
            connection.close()
