"""What a start imports: each package costs it time, and memory for as long as the server runs."""

from pathlib import Path

from tests.support.ports import free_port
from tests.support.server import ServerProcess

_NOT_TO_START = {
    "alembic",  # the schema is up to date
    "authlib",  # nobody logs in
    "azure",  # nothing is delivered
    "cryptography",
    "joserfc",
    "mlflow",
    "msal",
}
_OF_ONE_DATABASE = {"sqlite": {"psycopg"}, "postgresql": set[str]()}
_NEEDED = {"httpx", "msgspec", "sqlalchemy", "starlette", "uvicorn"}
_IMPORTED = "import time:"


def test_a_start_on_a_database_in_use_imports_only_what_it_needs(tmp_path: Path, database_url: str) -> None:
    """A server with a workspace and keys has answered without what only later work needs."""
    settings: dict[str, str] = {
        "MLPROXY_AUTH": "keys",
        "MLPROXY_WORKSPACE": f"azureml://127.0.0.1:{free_port()}/mlflow/v1.0/subscriptions/s/resourceGroups/g"
        "/providers/Microsoft.MachineLearningServices/workspaces/w",
    }
    backend = database_url.partition(":")[0].partition("+")[0]
    if backend != "sqlite":
        settings["MLPROXY_DATABASE_URL"] = database_url
    with ServerProcess.start(tmp_path, **settings) as first:
        first_said = len(first.log_file.read_text())
    with ServerProcess.start(tmp_path, own_interpreter=True, PYTHONPROFILEIMPORTTIME=1, **settings) as second:
        imported = _imported_packages(second.log_file.read_text()[first_said:])
    assert imported >= _NEEDED
    assert imported & (_NOT_TO_START | _OF_ONE_DATABASE[backend]) == set()


def _imported_packages(said: str) -> set[str]:
    """The top-level packages that `-X importtime` told of: own time | with others | name."""
    names = [line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith(_IMPORTED)]
    return {name.partition(".")[0] for name in names}
