"""A stock client that logs more than the server's backlog holds, without knowing of any bound.

Arguments: experiment, number of batches of large tags. Prints the run's id.
"""

import sys

import mlflow

_VALUE_CHARS = 900
_TAGS = 30

experiment, count = sys.argv[1], int(sys.argv[2])
mlflow.set_experiment(experiment)
with mlflow.start_run() as run:
    for number in range(count):
        mlflow.set_tags({f"t{tag}": f"{number:06}" + "x" * _VALUE_CHARS for tag in range(_TAGS)})
        mlflow.log_metric("loss", 1 / (number + 1), step=number)
    mlflow.log_text("all well", "notes.txt")
print(run.info.run_id)
