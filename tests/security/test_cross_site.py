"""Another site's page gets nothing out of a browser that is logged in here: hosts, origins, forms, frames."""

import httpx
import pytest

from tests.support.raw_http import request_bytes, send_raw
from tests.support.server import ServerProcess

CREATE = "/api/2.0/mlflow/experiments/create"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"

REBOUND = [
    "evil.example", "evil.example:5000", "localhost:x", "127.0.0.1.evil.example", "localhost.evil.example",
    "localhost@evil.example",
    "evil.example#localhost", "evil.example/localhost", "localhost:80@evil.example", "xlocalhost",
    "localhostx",
    "[::1].evil.example", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1", "localhost.",
    "LOCALHOST.X",
    "169.254.169.254", "", " ", "localhost,evil.example", "evil.example localhost", "\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("host", REBOUND)
@pytest.mark.parametrize("path", ["/health", SEARCH, "/login", "/pages/sync.js", "/nowhere"])
def test_a_name_that_points_here_is_not_ours(
    server: ServerProcess, keys: dict[str, str], host: str, path: str
) -> None:
    """DNS rebinding: a page of another name cannot reach anything, open routes included."""
    answer = send_raw(server.port, request_bytes(path, f"Authorization: Bearer {keys['admin']}", host=host))
    assert answer.status in (400, 403), (host, answer)


FOREIGN = [
    "https://evil.example", "http://evil.example", "null", "http://localhost.evil.example", "file://", "",
    "http://localhost:1", "https://localhost@evil.example", "chrome-extension://abcdef", "http://127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("origin", [text for text in FOREIGN if text])
def test_a_foreign_page_changes_nothing(
    server: ServerProcess, keys: dict[str, str], method: str, origin: str
) -> None:
    """Whatever its credential and the method."""
    lines = [f"Authorization: Bearer {keys['admin']}", f"Origin: {origin}", "Content-Type: application/json"]
    path = "/api/2.0/mlflow-artifacts/artifacts/x" if method in ("PUT", "DELETE") else CREATE
    host = f"localhost:{server.port}"
    answer = send_raw(
        server.port, request_bytes(path, *lines, method=method, host=host, body=b'{"name":"csrf"}')
    )
    assert answer.status == 403, answer


COOKIE_ONLY = {
    "nothing said": [],
    "cross-site": ["Sec-Fetch-Site: cross-site"],
    "same-site": ["Sec-Fetch-Site: same-site"],
    "none": ["Sec-Fetch-Site: none"],
    "other case": ["Sec-Fetch-Site: Same-Origin"],
    "foreign referrer": ["Referer: https://evil.example/"],
    "our referrer": ["Referer: http://localhost/"],
    "said twice": ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"],
    "script header": ["X-Requested-With: XMLHttpRequest"],
}


@pytest.mark.parametrize("lines", COOKIE_ONLY.values(), ids=COOKIE_ONLY)
@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ],
)
def test_a_cookie_alone_changes_nothing(
    server: ServerProcess, cookie: str, lines: list[str], content_type: str
) -> None:
    """Browsers send it along with anybody's form."""
    sent = request_bytes(
        CREATE,
        f"Cookie: mlproxy_session={cookie}",
        f"Content-Type: {content_type}",
        *lines,
        method="POST",
        body=b'{"name": "by a form"}',
    )
    assert send_raw(server.port, sent).status in (400, 403)


@pytest.mark.parametrize("lines", COOKIE_ONLY.values(), ids=COOKIE_ONLY)
def test_nobody_is_logged_out_by_another_page(server: ServerProcess, cookie: str, lines: list[str]) -> None:
    """The login goes on."""
    known = f"Cookie: mlproxy_session={cookie}"
    assert send_raw(server.port, request_bytes("/logout", known, *lines, method="POST")).status in (400, 403)
    assert send_raw(server.port, request_bytes(SEARCH, known)).status == 200


@pytest.fixture(scope="module")
def cookie(stranger: httpx.Client, keys: dict[str, str]) -> str:
    """A login of somebody who may write."""
    answer = httpx.post(
        f"{stranger.base_url}/login".replace("//login", "/login"), json={"key": keys["write"]}
    )
    return str(answer.cookies["mlproxy_session"])


def test_control_our_own_page_may(server: ServerProcess, cookie: str) -> None:
    """The same request from our own page is let through."""
    sent = request_bytes(
        CREATE,
        f"Cookie: mlproxy_session={cookie}",
        "Sec-Fetch-Site: same-origin",
        "Content-Type: application/json",
        method="POST",
        body=b'{"name": "by our page"}',
    )
    assert send_raw(server.port, sent).status == 200


@pytest.mark.parametrize("path", [CREATE, "/login", "/api/2.0/mlproxy/keys", "/v1/traces", "/graphql"])
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_form_is_no_call(server: ServerProcess, keys: dict[str, str], path: str, content_type: str) -> None:
    """What a page can send without asking first is refused by its kind, on loopback without keys too."""
    lines = [f"Authorization: Bearer {keys['read']}"] + (
        [f"Content-Type: {content_type}"] if content_type else []
    )
    answer = send_raw(server.port, request_bytes(path, *lines, method="POST", body=b'{"name":"x","key":"y"}'))
    assert answer.status in (400, 403, 422), answer


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
@pytest.mark.parametrize("path", [SEARCH, "/health", "/login", "/openapi.json"])
def test_nobody_is_told_that_they_may_read(
    server: ServerProcess, keys: dict[str, str], path: str, origin: str
) -> None:
    """No answer, to a preflight or a read, lets another origin's script see it."""
    for method in ("OPTIONS", "GET"):
        lines = [
            f"Authorization: Bearer {keys['read']}",
            f"Origin: {origin}",
            "Access-Control-Request-Method: POST",
        ]
        answer = send_raw(server.port, request_bytes(path, *lines, method=method))
        assert "access-control-allow" not in answer.head.lower()


@pytest.mark.parametrize("path", ["/login", "/sync", "/"])
def test_our_pages_stand_in_nobodys_frame(server: ServerProcess, keys: dict[str, str], path: str) -> None:
    """Else a page could lay its own buttons over ours."""
    answer = send_raw(
        server.port, request_bytes(path, f"Authorization: Bearer {keys['read']}", "Accept: text/html")
    )
    assert answer.status == 200
    assert answer.header("X-Frame-Options")[0] in ("DENY", "SAMEORIGIN")
    policy = answer.header("Content-Security-Policy")[0]
    assert "frame-ancestors 'none'" in policy or "frame-ancestors 'self'" in policy
    assert "default-src 'none'" in policy
