"""Runs the flows with the public MLflow API and writes down every answer.

Usage: run.py RECORD.json [FLOW …]. The only settings are MLflow's own variables; the working
directory is scratch space. Every flow stands on its own, so one that breaks spoils no other.
"""

import logging
import os
import sys
from pathlib import Path

import matplotlib as mpl
import mlflow

sys.path.insert(0, str(Path(__file__).parent))

import artifacts  # noqa: F401
import evaluation  # noqa: F401
import genai  # noqa: F401
import models  # noqa: F401
import registry  # noqa: F401
import tracking  # noqa: F401
from recording import FLOWS, VERSION, Recorder


def main(record_file: Path, chosen: set[str]) -> None:
    """Run the flows, or the chosen ones, that this version of the client has."""
    mpl.use("Agg")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    recorder = Recorder(server=os.environ["MLFLOW_TRACKING_URI"])
    recorder.listen()
    for flow in FLOWS:
        if flow.since <= VERSION < flow.until and (not chosen or flow.name in chosen):
            print(flow.name, flush=True)
            recorder.run(flow)
    recorder.write(record_file)
    print(mlflow.__version__, len(recorder.flows), "flows", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), set(sys.argv[2:]))
