#!/bin/bash
# Cluster init script for Azure Databricks: everything that MLflow logs on the cluster goes to the proxy.
#
# Set in the cluster's configuration (Advanced options, Spark, Environment variables):
#
#     MLPROXY_URL=https://mlflow.example.org
#     MLPROXY_KEY={{secrets/mlproxy/key}}
#     MLPROXY_EXPERIMENT=databricks            (optional: where runs go that name no experiment)
#
# The cluster's own default (MLFLOW_TRACKING_URI=databricks, and Unity Catalog as registry) must not win:
# what this writes is read after it. The key itself is written nowhere.
set -euo pipefail

spark_env="${SPARK_ENV_FILE:-/databricks/spark/conf/spark-env.sh}"

if [ -z "${MLPROXY_URL:-}" ]; then
    echo "mlproxy-init: set MLPROXY_URL in the cluster's environment variables" >&2
    exit 1
fi

cat >>"$spark_env" <<'END'

# MLflow goes to the proxy (mlproxy-init.sh).
export MLFLOW_TRACKING_URI="$MLPROXY_URL"
export MLFLOW_REGISTRY_URI="$MLPROXY_URL"
export MLFLOW_TRACKING_TOKEN="${MLPROXY_KEY:-}"
# A notebook's own experiment is known to Databricks only.
export MLFLOW_EXPERIMENT_NAME="${MLPROXY_EXPERIMENT:-databricks}"
unset MLFLOW_EXPERIMENT_ID MLFLOW_RUN_ID
END
