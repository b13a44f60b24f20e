"""Text stays text: in SQL, in patterns, in log lines, in headers."""

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.attempts import quickest
from tests.support.raw_http import request_bytes, send_raw
from tests.support.server import ServerProcess

SEARCHES = {
    "runs": ("/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"]}),
    "experiments": ("/api/2.0/mlflow/experiments/search", {"max_results": 5}),
    "models": ("/ajax-api/2.0/mlflow/registered-models/search", {}),
    "versions": ("/ajax-api/2.0/mlflow/model-versions/search", {}),
    "logged models": ("/api/2.0/mlflow/logged-models/search", {"experiment_ids": ["0"]}),
    "traces": (
        "/api/3.0/mlflow/traces/search",
        {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}]},
    ),
}
QUERIED = {"models", "versions"}
SQL = [
    "name = 'x' OR 1=1", "name = 'x'; DROP TABLE runs; --",
    "name = 'x' UNION SELECT secret_hash FROM api_keys",
    "name = 'x' -- ", "name = 'x' /* */ OR '1' = '1'", "1=1", "name = (SELECT secret_hash FROM api_keys)",
    "tags.`a') OR 1=1 --` = 'x'", "tags.\"a' OR '1'='1\" = 'x'", "name LIKE '%' ESCAPE 'x'", "name = $$x$$",
    "name = E'\\x27 OR 1=1'", "name = 'x' || (SELECT 1)", "name = CHAR(65)", "name = pg_sleep(5)",
    "params.x = '1' AND pg_sleep(5) IS NULL", "attributes.name; SELECT 1", "metrics.a > (SELECT 1)",
    "name = :x",
    "name = ?", "name = %s", "name = '%(x)s'", "name IN ('a', (SELECT 1))",
    "name = 'x' INTO OUTFILE '/tmp/mlproxy-never'",
    "load_extension('x') = 1", "ATTACH DATABASE '/tmp/mlproxy-never' AS y", "name = 'a\x00b'",
    "sqlite_version() = '3'",
]  # fmt: skip


def _ask(writer: httpx.Client, noun: str, **fields: object) -> httpx.Response:
    path, base = SEARCHES[noun]
    if noun in QUERIED:
        return writer.get(path, params={**base, **fields})  # type: ignore[arg-type]
    return writer.post(path, json={**base, **fields})


@pytest.mark.parametrize("noun", SEARCHES)
@pytest.mark.parametrize("text", SQL)
def test_a_filter_is_no_sql(writer: httpx.Client, noun: str, text: str) -> None:
    """It is refused, or compares texts; it finds nothing that it should not, and takes no time."""

    def ask() -> float:
        started = time.monotonic()
        for fields in ({"filter": text}, {"filter_string": text}):
            answer = _ask(writer, noun, **fields)
            assert answer.status_code in (200, 400), answer.text
            assert answer.status_code == 400 or "secret" not in answer.text
        return time.monotonic() - started

    assert quickest(ask, under=4) < 4


@pytest.mark.parametrize("noun", SEARCHES)
@pytest.mark.parametrize(
    "text",
    [
    "name; DROP TABLE runs", "name ASC, (SELECT secret_hash FROM api_keys)", "1",
    "name ASC NULLS FIRST; --",
    "CASE WHEN 1=1 THEN name ELSE step END", "tags.`x` DESC) --", "random()", "name ASC ASC",
    "metrics.'a' --",
        "attributes.secret_hash", "api_keys.secret_hash",
    ],
)  # fmt: skip
def test_an_order_is_no_sql(writer: httpx.Client, noun: str, text: str) -> None:
    """Only what can be ordered by is looked for."""
    answer = _ask(writer, noun, order_by=[text])
    assert answer.status_code in (200, 400), answer.text
    assert answer.status_code == 400 or "secret" not in answer.text


def _token(document: object) -> str:
    return b64encode(json.dumps(document).encode()).decode()


TOKENS = [
    "x", "'; DROP TABLE runs; --", "eyJ", _token({"offset": -1}), _token({"offset": 10**30}),
    _token({"offset": "1; --"}),
    _token({"offset": [1]}), _token([]), _token(None), _token({"offset": 1.5}), _token({"offset": True}),
    "=" * 50,
    b64encode(b"\x80\x04cos\nsystem\n(X\x02\x00\x00\x00idtR.").decode(),
    "A" * 50_000, "\u0000", "日本",
    "../../x",
]  # fmt: skip


@pytest.mark.parametrize("noun", SEARCHES)
@pytest.mark.parametrize("token", TOKENS, ids=range(len(TOKENS)))
def test_a_page_token_is_a_number(writer: httpx.Client, noun: str, token: str) -> None:
    """One that we did not make is refused, or leads to a page that is not there."""
    answer = _ask(writer, noun, page_token=token)
    assert answer.status_code in (200, 400, 431), answer.text


def test_control_the_tables_are_still_there(writer: httpx.Client, run_id: str) -> None:
    """After all that, what was stored is found."""
    found = _ask(writer, "runs", filter=f"attributes.run_id = '{run_id}'").json()["runs"]
    assert [run["info"]["run_id"] for run in found] == [run_id]


SLOW = {
    "many clauses": " AND ".join(["metrics.a > 1"] * 1500),
    "wildcards": f"attributes.run_name LIKE '{'%a' * 4000}b'",
    "regular expression": f"attributes.run_name RLIKE '{'(a+)+' * 100}$'",
    "long list": "attributes.run_id IN (" + ",".join(["'a'"] * 4500) + ")",
    "nested parentheses": "(" * 9000 + ")" * 9000,
    "quotes": "'" * 19_999,
    "backticks": "tags." + "`" * 19_990,
    "escaped quotes": "name = '" + "\\'" * 9000,
    "signs": "metrics.a > " + "-" * 19_000,
    "dots": "a" + ".a" * 9900,
    "spaces": "metrics.a" + " " * 19_900 + ">",
    "over the limit": "a" * 20_001,
    "much over the limit": "a" * 5_000_000,
    "digits": "metrics.a > " + "9" * 19_000,
    "exponent": "metrics.a > 1E" + "9" * 19_000,
}


@pytest.mark.parametrize("noun", [noun for noun in SEARCHES if noun not in QUERIED])
@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW)
def test_a_filter_takes_no_time(writer: httpx.Client, noun: str, text: str) -> None:
    """No pattern, length or nesting makes reading it slow (over 3,000 runs below)."""

    def ask() -> float:
        started = time.monotonic()
        for field in ("filter", "filter_string"):
            assert _ask(writer, noun, **{field: text}).status_code in (200, 400)
        return time.monotonic() - started

    assert quickest(ask, under=4) < 4


FORGERIES = [
    "x\n2026-01-01T00:00:00Z [warning  ] access_refused audit=True principal=FORGED",
    "x\r\nFORGED audit=True", "\x1b[2J\x1b[31mFORGED", "\x9b31mFORGED", "x\u2028FORGED audit=True",
    "x\u2029FORGED audit=True", "x\x85FORGED audit=True", "\u202eDEGROF",
    '"} {"event": "FORGED", "audit": true}',
    "x\x0bFORGED audit=True", "x\x0cFORGED audit=True", "x\x00FORGED", "{0}%s%(x)s${jndi:ldap://FORGED}",
]  # fmt: skip
_LINE_ENDS = re.compile("[\n\r\x0b\x0c\x85\u2028\u2029]")


@pytest.fixture(scope="module", params=["console", "json"])
def talkative(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    """A server whose log tells all it can."""
    with ServerProcess.start(
        tmp_path_factory.mktemp("talkative"),
        MLPROXY_AUTH="keys",
        MLPROXY_LOG_LEVEL="debug",
        MLPROXY_LOG_FORMAT=request.param,
    ) as running:
        yield running


def test_no_text_forges_a_line(
    talkative: ServerProcess, record_property: Callable[[str, object], None]
) -> None:
    """Whatever a request says, each line of the log begins with what the server says."""
    key = talkative.cli("keys", "create", "w").stdout.splitlines()[-1]
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=talkative.url, headers=headers, trust_env=False) as client:
        for text in FORGERIES:
            client.post("/api/2.0/mlflow/experiments/create", json={"name": text})
            client.post(
                "/api/2.0/mlflow/runs/create", json={"experiment_id": "0", "run_name": text, "user_id": text}
            )
            client.post("/api/2.0/mlproxy/keys", json={"name": text, "role": text})
            quoted = "".join(f"%{byte:02x}" for byte in text.encode())
            for host in ("localhost", "evil"):
                send_raw(talkative.port, request_bytes(f"/{quoted}", host=host))
                send_raw(
                    talkative.port, request_bytes(f"/api/2.0/mlproxy/runs/{quoted}?x={quoted}", host=host)
                )
            send_raw(
                talkative.port, request_bytes("/", f"User-Agent: {quoted}", f"Authorization: Bearer {quoted}")
            )
    said = talkative.log_file.read_text(errors="surrogateescape").partition("MLFLOW_TRACKING_TOKEN")[2]
    assert "access_refused" in said
    assert not set(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", said))
    for line in _LINE_ENDS.split(said)[1:]:
        assert not line or re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[|\{|    ", line), line
    record_property("attacks", len(FORGERIES))


SPLITS = [
    "%0d%0aSet-Cookie:%20x=1",
    "%0aSet-Cookie:x=1",
    "%e5%98%8a%e5%98%8dSet-Cookie:x=1",
    "%c4%8d%c4%8aX:1",
    "\r\nX: 1",
]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "target",
    ["/login?next=/{}", "/login/oidc?next=/{}", "/sync?x={}", "/{}", "/get-artifact?run_id=x&path={}"],
)
def test_no_text_splits_an_answer(
    server: ServerProcess, keys: dict[str, str], target: str, split: str
) -> None:
    """No header of an answer comes from the request."""
    for line in (f"Authorization: Bearer {keys['read']}", "Accept: text/html"):
        answer = send_raw(server.port, request_bytes(target.format(split), line), patience=5)
        assert answer.answers == 1
        assert not answer.header("X")
        assert not answer.header("Set-Cookie")


def test_nothing_was_made_beside_the_data(server: ServerProcess) -> None:
    """The file that the attacks would write is not there."""
    assert server.is_running
    assert not Path("/tmp/mlproxy-never").exists()
