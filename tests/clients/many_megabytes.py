"""Log metrics and one large file, and read both back.

Arguments: the size of the file in MiB, a folder to work in, a file to name the run in.
"""

import hashlib
import sys
from pathlib import Path

import mlflow

PIECE = bytes(range(256)) * 4096


def main(mebibytes: int, folder: Path, report: Path) -> None:
    """Do it all; the report tells the run's id and the file's SHA-256."""
    large = folder / "large.bin"
    with large.open("wb") as file:
        for number in range(mebibytes):
            file.write(number.to_bytes(8, "big") + PIECE[8:])
    mlflow.set_experiment("behind a load balancer")
    with mlflow.start_run() as run:
        for step in range(60):
            mlflow.log_metric("loss", step / 8, step=step)
        mlflow.log_artifact(str(large))
    client = mlflow.MlflowClient()
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    back = Path(client.download_artifacts(run.info.run_id, "large.bin", str(folder)))
    assert steps == list(range(60)), steps
    assert _digest(back) == _digest(large)
    report.write_text(f"{run.info.run_id} {_digest(large)}\n")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
