"""No spelling of a path leads out of a folder: artifacts, the UI's files, the pages, and names in queries."""

import json
from collections.abc import Callable

import httpx
import pytest

from tests.support.raw_http import request_bytes, send_raw
from tests.support.server import ServerProcess

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
AJAX_ARTIFACTS = "/ajax-api/2.0/mlflow-artifacts/artifacts/"
STATIC = "/static-files/"
PAGES = "/pages/"

CLIMBS = {
    "plain": "../../../../etc/passwd",
    "in the middle": "a/../../../../etc/passwd",
    "last": "a/..",
    "dot": "./a",
    "encoded dots": "%2e%2e/%2e%2e/etc/passwd",
    "one encoded dot": ".%2e/etc/passwd",
    "upper case": "%2E%2E/etc/passwd",
    "encoded slash": "..%2f..%2fetc%2fpasswd",
    "twice encoded": "%252e%252e%252fetc%252fpasswd",
    "three times encoded": "%25252e%25252e%25252fetc",
    "backslash": "..%5c..%5cwindows%5cwin.ini",
    "mixed": "a%5c..%2f..%5cetc",
    "absolute": "/etc/passwd",
    "encoded absolute": "%2fetc%2fpasswd",
    "drive": "C:/windows/win.ini",
    "encoded drive": "C%3a%5cwindows",
    "share": "%5c%5chost%5cshare",
    "NUL": "a%00.txt",
    "line end": "a%0d%0ab",
    "over-long UTF-8 slash": "..%c0%af..%c0%afetc",
    "over-long UTF-8 dots": "%c0%ae%c0%ae/etc",
    "full-width twice": "%25c0%25ae/../x",
    "parameters": "..;/..;/etc/passwd",
    "empty segments": "a//..//..//etc",
    "fragment, then climb": "a%23/../../etc",
    "query, then climb": "a%3f/../../etc",
}


def _refused(status: int, body: bytes) -> bool:
    return status in (400, 401, 404) and set(json.loads(body)) == {"error_code", "message"}


@pytest.mark.parametrize("prefix", [ARTIFACTS, AJAX_ARTIFACTS, STATIC, PAGES])
@pytest.mark.parametrize("climb", CLIMBS.values(), ids=CLIMBS)
def test_a_path_does_not_climb(server: ServerProcess, keys: dict[str, str], prefix: str, climb: str) -> None:
    """Sent as it is, byte for byte, with a key that may write."""
    answer = send_raw(
        server.port, request_bytes(prefix + climb, f"Authorization: Bearer {keys['write']}"), patience=5
    )
    assert _refused(answer.status, answer.body), answer


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    "climb", [value for name, value in CLIMBS.items() if name != "parameters"],
    ids=[name for name in CLIMBS if name != "parameters"],
)  # fmt: skip
def test_nothing_is_written_or_deleted_outside(
    server: ServerProcess, keys: dict[str, str], method: str, climb: str
) -> None:
    """The name is refused before a byte is kept."""
    body = b"pwned" if method == "PUT" else b""
    answer = send_raw(
        server.port,
        request_bytes(ARTIFACTS + climb, f"Authorization: Bearer {keys['write']}", method=method, body=body),
        patience=5,
    )
    assert answer.status == 400, answer
    assert _refused(answer.status, answer.body), answer


QUERY_CLIMBS = [
    "../../../etc/passwd", "/etc/passwd", "..\\..\\x", "a/../../x", "%2e%2e/x", "%252e%252e/x", "C:/x",
    "a\0b", "a#/../../x", "//host/x", "a/./b", "..",
]  # fmt: skip
QUERIES = {
    "/get-artifact": "run_uuid={run}&path={path}",
    "/ajax-api/2.0/mlflow/get-artifact": "run_id={run}&path={path}",
    "/api/2.0/mlflow/artifacts/list": "run_id={run}&path={path}",
    "/api/2.0/mlflow-artifacts/artifacts": "path={path}",
    "/ajax-api/2.0/mlflow/get-trace-artifact": "request_id=tr-1&path={path}",
    "/model-versions/get-artifact": "name=m&version=1&path={path}",
}


@pytest.mark.parametrize("route", QUERIES)
@pytest.mark.parametrize("path", QUERY_CLIMBS)
def test_a_path_in_a_query_does_not_climb(writer: httpx.Client, run_id: str, route: str, path: str) -> None:
    """Query parameters are paths too."""
    query = QUERIES[route].format(run=run_id, path=httpx.QueryParams({"p": path})["p"])
    pairs = [part.partition("=")[::2] for part in query.split("&")]
    answer = writer.get(route, params=pairs)
    assert _refused(answer.status_code, answer.content), answer.text


def test_control_the_file_itself_can_be_read(writer: httpx.Client, run_id: str) -> None:
    """What is refused above is refused for its spelling, not because nothing can be had."""
    assert writer.get(f"{ARTIFACTS}0/{run_id}/artifacts/model/MLmodel").content == b"x"
    assert writer.get("/get-artifact", params={"run_uuid": run_id, "path": "model/MLmodel"}).content == b"x"
    assert writer.get("/pages/sync.js").status_code == 200


def test_the_servers_own_files_have_no_names(
    server: ServerProcess, keys: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    """The database, the socket and the log are files of the same folders, and nobody's to read."""
    names = ["..", "../mlproxy.db", "mlproxy.db", "admin.sock", "../../server/settings.py", "__init__.py"]
    for prefix in (ARTIFACTS, STATIC, PAGES):
        for name in names:
            sent = request_bytes(prefix + name, f"Authorization: Bearer {keys['admin']}")
            answer = send_raw(server.port, sent, patience=20)
            assert _refused(answer.status, answer.body), answer
    record_property("attacks", 3 * len(names))
