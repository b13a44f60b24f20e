"""The server as a process: what it refuses at start, its lock, its admin socket, its keys, its end."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, event, text

from server.database.engine import Database, DurabilityError
from tests.support.ports import free_port
from tests.support.server import ServerProcess

_RUNS = "/api/2.0/mlflow/runs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with keys, on SQLite, started as a person starts it."""
    folder = tmp_path_factory.mktemp("served")
    with ServerProcess.start(folder, own_interpreter=True, MLPROXY_AUTH="keys") as running:
        yield running


def _key(server: ServerProcess, name: str, *options: str) -> str:
    made = server.cli("keys", "create", name, *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines()[-1]


def _client(server: ServerProcess, key: str | None = None) -> httpx.Client:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=120)


def test_a_second_server_on_the_same_folder_is_refused(server: ServerProcess) -> None:
    """The second says who is in its way and exits with 1; the first goes on."""
    second = ServerProcess.prepare(server.data_dir).cli("serve")
    assert second.returncode == 1
    assert str(server.data_dir) in second.stderr
    assert "Another server already uses" in second.stderr
    assert "Traceback" not in second.stderr
    with _client(server) as http:
        assert http.get("/health").text == "OK"


def test_the_admin_socket_is_for_its_owner_only(server: ServerProcess) -> None:
    """The socket's mode is the credential: 0600."""
    mode = os.stat(server.admin_socket).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_commands_speak_to_the_running_server(server: ServerProcess) -> None:
    """While a server holds the folder, a command gets its answer from it, without a key."""
    status = server.cli("status", "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["workspace"]["configured"] is False


def test_a_key_works_as_soon_as_it_is_made_and_stops_when_it_is_revoked(server: ServerProcess) -> None:
    """A key made by a command opens the running server at once, and a revoked one is closed at once."""
    key = _key(server, "short-lived")
    with _client(server, key) as http:
        before = http.post(f"{_RUNS}/create", json={"start_time": 1}).status_code
        assert server.cli("keys", "revoke", "short-lived").returncode == 0
        after = http.post(f"{_RUNS}/create", json={"start_time": 1}).status_code
    assert (before, after) == (200, 401)


def test_a_key_works_as_basic_password_too(server: ServerProcess) -> None:
    """Clients that only know user name and password send the key as password."""
    key = _key(server, "basic")
    answer = httpx.get(f"{server.url}{_RUNS}/get?run_id=x", auth=("anyone", key), trust_env=False)
    assert answer.status_code == 404


def test_a_read_key_reads_and_cannot_write(server: ServerProcess) -> None:
    """A write with a read key is 403 in MLflow's error body, and nothing is written."""
    with _client(server, _key(server, "reader", "--role", "read")) as http:
        read = http.get("/api/2.0/mlflow/experiments/get", params={"experiment_id": "0"})
        write = http.post("/api/2.0/mlflow/experiments/create", json={"name": "by a reader"})
        found = http.get("/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": "by a reader"})
    assert (read.status_code, write.status_code, found.status_code) == (200, 403, 404)
    assert write.json()["error_code"] == "PERMISSION_DENIED"


def test_a_write_key_cannot_manage_keys(server: ServerProcess) -> None:
    """Keys are made by administrators only."""
    with _client(server, _key(server, "writer")) as http:
        answer = http.post("/api/2.0/mlproxy/keys", json={"name": "mine", "role": "admin"})
    assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")


def test_listing_keys_shows_no_secret(server: ServerProcess) -> None:
    """The list holds names and prefixes, never what opens the door."""
    key = _key(server, "listed")
    shown = server.cli("keys", "list").stdout
    assert "listed" in shown
    assert key.split("_", 2)[2] not in shown


def test_what_was_acknowledged_survives_a_kill_and_a_polite_end_exits_with_0(tmp_path: Path) -> None:
    """After SIGKILL every acknowledged write is there; SIGTERM ends with 0 and removes the socket."""
    server = ServerProcess.start(tmp_path / "data", own_interpreter=True)
    with _client(server) as http:
        run_id = http.post(f"{_RUNS}/create", json={"start_time": 1}).json()["run"]["info"]["run_id"]
        for number in range(20):
            fields = {"run_id": run_id, "key": f"p{number}", "value": str(number)}
            assert http.post(f"{_RUNS}/log-parameter", json=fields).status_code == 200
    server.kill()
    server.restart()
    with _client(server) as http:
        params = http.get(f"{_RUNS}/get", params={"run_id": run_id}).json()["run"]["data"]["params"]
    assert len(params) == 20
    assert server.stop() == 0
    assert not server.admin_socket.exists()


def test_commands_work_without_a_server(tmp_path: Path) -> None:
    """When nobody holds the folder a command opens the database itself, and a key made so works later."""
    server = ServerProcess.prepare(tmp_path / "data", MLPROXY_AUTH="keys")
    key = _key(server, "early")
    server.launch()
    with server, _client(server, key) as http:
        assert http.post(f"{_RUNS}/create", json={"start_time": 1}).status_code == 200


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            {"MLPROXY_HOST": "0.0.0.0", "MLPROXY_AUTH": "off"},
            ["MLPROXY_AUTH=off is refused", "MLPROXY_INSECURE"],
        ),
        ({"MLPROXY_TYPO": "1"}, ["Unknown setting MLPROXY_TYPO", "MLPROXY_DATA_DIR"]),
        ({"MLPROXY_PORT": "many"}, ["MLPROXY_PORT"]),
        ({"MLPROXY_WORKSPACE": "nonsense"}, ["MLPROXY_WORKSPACE"]),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(
    tmp_path: Path, env: dict[str, str], words: list[str]
) -> None:
    """A wrong setting ends `serve` with 1 and a sentence that names it, without a traceback."""
    ended = ServerProcess.prepare(tmp_path / "data", **env).cli("serve")
    assert ended.returncode == 1
    assert all(word in ended.stderr for word in words), ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """`serve` says which port it cannot have and which setting changes it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        ended = ServerProcess.prepare(tmp_path / "data", port=taken.getsockname()[1]).cli("serve")
    assert ended.returncode == 1
    assert "Set MLPROXY_PORT to another port" in ended.stderr


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A schema this version does not know is left alone."""
    server = ServerProcess.prepare(tmp_path / "data")
    assert server.cli("status").returncode == 0
    engine = create_engine(f"sqlite:///{server.data_dir}/mlproxy.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    ended = server.cli("serve")
    assert ended.returncode == 1
    assert "newer version" in ended.stderr


def test_migrate_sets_up_an_empty_database(tmp_path: Path) -> None:
    """After `migrate` the server starts on what it made."""
    server = ServerProcess.prepare(tmp_path / "data")
    migrated = server.cli("migrate")
    assert migrated.returncode == 0, migrated.stderr
    server.launch()
    assert server.stop() == 0


# --- durability of the database ---------------------------------------------------------------


def test_sqlite_flushes_every_commit(tmp_path: Path) -> None:
    """Every connection of a database runs in WAL with synchronous=FULL."""
    database = Database(f"sqlite:///{tmp_path}/proxy.db")
    with database.writing(0) as writing, database.reading() as reading:
        found = [
            (transaction.rows("PRAGMA journal_mode")[0][0], transaction.rows("PRAGMA synchronous")[0][0])
            for transaction in (writing, reading)
        ]
    database.check_durability()
    database.close()
    assert found == [("wal", 2), ("wal", 2)]


@pytest.mark.parametrize("pragma", ["synchronous=NORMAL", "synchronous=OFF", "journal_mode=DELETE"])
def test_sqlite_with_weaker_settings_is_refused(tmp_path: Path, pragma: str) -> None:
    """A database that would not flush its commits is not used."""
    database = Database(f"sqlite:///{tmp_path}/proxy.db")

    def weaken(connection: object, _: object) -> None:
        connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]

    event.listen(database.engine, "connect", weaken)
    with pytest.raises(DurabilityError, match=r"journal_mode=wal and synchronous=2"):
        database.check_durability()
    database.close()


def test_postgres_without_synchronous_commit_is_refused(make_database: object) -> None:
    """A Postgres that acknowledges before it flushes is not used."""
    url = make_database("postgres")  # type: ignore[operator]
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    engine.dispose()
    database = Database(url)
    with pytest.raises(DurabilityError, match="synchronous_commit"):
        database.check_durability()
    database.close()


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    """`--help` does not import Azure, Alembic or the web framework."""
    code = (
        "import sys, server.cli; "
        "heavy = ('azure', 'alembic', 'fastapi', 'sqlalchemy', 'psycopg', 'mlflow'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
