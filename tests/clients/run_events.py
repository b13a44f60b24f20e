"""Lists webhooks that are told about runs too, and does to runs what is told.

Run as: python run_events.py TRACKING_URI
"""

import sys

import mlflow
from mlflow import MlflowClient


def main() -> None:
    """Use webhooks and runs of the server named on the command line."""
    mlflow.set_tracking_uri(sys.argv[1])
    client = MlflowClient()
    (hook,) = client.list_webhooks()
    assert [str(event) for event in hook.events] == ["registered_model.created"], hook.events
    changed = client.update_webhook(hook.webhook_id, events=["prompt.created"])
    assert [str(event) for event in changed.events] == ["prompt.created"], changed.events
    assert client.get_webhook(hook.webhook_id).events == changed.events
    for status in ("FINISHED", "FAILED", "KILLED"):
        mlflow.start_run()
        mlflow.log_metric("loss", 1.0)
        mlflow.end_run(status)
    run_id = mlflow.last_active_run().info.run_id
    client.delete_run(run_id)
    client.restore_run(run_id)
    print("done")


main()
