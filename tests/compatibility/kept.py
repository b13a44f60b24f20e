"""A kept journal, put back into a database, with the workspace as it was then."""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from server.database.engine import Database, Transaction
from server.database.migration import upgrade
from tests.durability.tracking import LoggedRun
from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess
from tests.support.workspace import Point

JOURNALS = Path(__file__).parent / "journals"
SPOOLED = bytes(range(256)) * 300
JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeptJournal:
    """One folder of `journals`."""

    folder: Path

    @property
    def revision(self) -> str:
        """The schema it was written under."""
        return self.folder.name.partition("-")[0]

    @property
    def acknowledged(self) -> JsonObject:
        """What clients had been told is kept."""
        return dict(json.loads((self.folder / "acknowledged.json").read_text()))

    @property
    def runs(self) -> list[LoggedRun]:
        """The runs, as the tests of durability compare them."""
        return [logged_run(document) for document in self.acknowledged["runs"]]

    def restore(self, database_url: str, data_dir: Path, emulator: EmulatorProcess) -> None:
        """Put the rows into an empty database, the spooled files into the data folder.

        The workspace is told what it knew then.
        """
        experiment_ids = self._tell(emulator)
        sql = (self.folder / "journal.sql").read_text().replace("@HOST@", f"127.0.0.1:{emulator.port}")
        for name, experiment_id in experiment_ids.items():
            sql = sql.replace(f"@EXPERIMENT:{name}@", experiment_id)
        with sqlite3.connect(":memory:") as source:
            source.executescript(sql)
            self._spool(source, data_dir)
            if database_url.startswith("sqlite"):
                with sqlite3.connect(database_url.removeprefix("sqlite:///")) as target:
                    source.backup(target)
            else:
                copy_to_postgres(source, database_url, self.revision)

    def _spool(self, source: sqlite3.Connection, data_dir: Path) -> None:
        for (name,) in source.execute("SELECT spool_name FROM artifacts WHERE spool_name IS NOT NULL"):
            file = data_dir / "spool" / name[:2] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(SPOOLED)

    def _tell(self, emulator: EmulatorProcess) -> dict[str, str]:
        """Make in the workspace what had reached it; experiment name → its id now."""
        file = self.folder / "workspace.json"
        if not file.exists():
            return {}
        known = json.loads(file.read_text())
        name, run = known["experiment"]["name"], known["run"]
        headers = {"Authorization": f"Bearer {emulator.token()}"}
        with httpx.Client(base_url=emulator.http_url, headers=headers, trust_env=False) as http:
            mlflow = f"/mlflow/v2.0{WORKSPACE_PATH}/api/2.0/mlflow"
            made = http.post(f"{mlflow}/experiments/create", json={"name": name}).raise_for_status()
            history = f"/history/v1.0{WORKSPACE_PATH}/experiments/{name}/runs/{run['run_id']}"
            body = {"runId": run["run_id"], "displayName": run["name"], "tags": run["tags"]}
            http.patch(history, json=body).raise_for_status()
            event = {"name": "Microsoft.MachineLearning.Run.Start", "data": {"RunId": run["run_id"]}}
            http.post(f"{history}/events", json=event).raise_for_status()
            batch = {
                "run_id": run["run_id"],
                "metrics": run["metrics"],
                "params": [{"key": key, "value": value} for key, value in run["params"].items()],
            }
            http.post(f"{mlflow}/runs/log-batch", json=batch).raise_for_status()
            return {name: str(made.json()["experiment_id"])}


def logged_run(document: JsonObject) -> LoggedRun:
    """A run from its document."""
    points: list[Point] = [(key, step, time_ms, value) for key, step, time_ms, value in document["points"]]
    fields = {name: value for name, value in document.items() if name not in ("points", "parent")}
    return LoggedRun(**fields, points=points)


def copy_to_postgres(source: sqlite3.Connection, database_url: str, revision: str) -> None:
    """The same rows in a Postgres database of the same schema."""
    database = Database(database_url)
    tables = [row[0] for row in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    with database.writing(0) as transaction:
        upgrade(transaction, revision)
        for table in tables:
            if table not in ("alembic_version", "sqlite_sequence"):
                copy_table(source, transaction, table)
    database.close()


def copy_table(source: sqlite3.Connection, transaction: Transaction, table: str) -> None:
    """One table's rows, and its numbers go on behind them."""
    rows = source.execute(f"SELECT * FROM {table}")
    columns = [column[0] for column in rows.description]
    marks = ", ".join("?" * len(columns))
    transaction.run_many(
        f"INSERT INTO {table} ({', '.join(columns)}) OVERRIDING SYSTEM VALUE VALUES ({marks})",
        rows.fetchall(),
    )
    for column in columns:
        (sequence,) = transaction.rows("SELECT pg_get_serial_sequence(?, ?)", (table, column))[0]
        if sequence is not None:
            transaction.rows(f"SELECT setval('{sequence}', max({column}) + 1, false) FROM {table}")
