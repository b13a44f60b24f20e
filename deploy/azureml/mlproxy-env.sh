# shellcheck shell=sh
# To be sourced at the beginning of an Azure ML job's command, so that MLflow logs to the proxy:
#
#     command: . ./mlproxy-env.sh && python train.py
#     environment_variables:
#       MLPROXY_URL: https://mlflow.example.org
#       MLPROXY_KEY: mlp_…
#       MLPROXY_EXPERIMENT: training           (optional; default: the job's own experiment)
#
# Azure ML points MLflow at the job's run in the workspace, with a token for that run alone. The proxy does not
# know this run, and makes runs of its own: so the run's and the experiment's id are taken away.

if [ -z "${MLPROXY_URL:-}" ] || [ -z "${MLPROXY_KEY:-}" ]; then
    echo "mlproxy-env: set MLPROXY_URL and MLPROXY_KEY in the job's environment_variables" >&2
    return 1
fi

export MLFLOW_TRACKING_URI="$MLPROXY_URL"
export MLFLOW_REGISTRY_URI="$MLPROXY_URL"
export MLFLOW_TRACKING_TOKEN="$MLPROXY_KEY"
export MLFLOW_EXPERIMENT_NAME="${MLPROXY_EXPERIMENT:-${MLFLOW_EXPERIMENT_NAME:-azureml-jobs}}"
unset MLFLOW_EXPERIMENT_ID MLFLOW_RUN_ID
