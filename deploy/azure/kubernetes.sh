#!/usr/bin/env bash
# The proxy on Azure Kubernetes Service with workload identity. Not run against a live subscription: its
# commands were held against the arguments that the Azure CLI knows, and the chart against Kubernetes' schemas.
#
#     RESOURCE_GROUP=ml-platform CLUSTER=my-aks WORKSPACE=my-workspace IMAGE=myregistry.azurecr.io/mlproxy:0.1.0 \
#     deploy/azure/kubernetes.sh --set ingress.enabled=true --set ingress.host=mlflow.example.org \
#         --set ingress.tlsSecret=mlflow-tls
#
# Makes a managed identity that may log to the workspace, lets the chart's service account act as it, and installs
# the chart into the namespace `mlproxy`. What follows the script's name goes to `helm upgrade --install`.
set -euo pipefail

: "${RESOURCE_GROUP:?}" "${CLUSTER:?}" "${WORKSPACE:?the Azure ML workspace}" "${IMAGE:?the image in a registry of yours}"
name="${NAME:-mlproxy}"
namespace="${NAMESPACE:-mlproxy}"
chart="$(cd "$(dirname "${BASH_SOURCE[0]}")/../helm/mlproxy" && pwd)"
in_group=(--resource-group "$RESOURCE_GROUP")

az aks update --name "$CLUSTER" "${in_group[@]}" --enable-oidc-issuer --enable-workload-identity --output none
issuer="$(az aks show --name "$CLUSTER" "${in_group[@]}" --query oidcIssuerProfile.issuerUrl --output tsv)"

az identity create --name "$name" "${in_group[@]}" --output none
client_id="$(az identity show --name "$name" "${in_group[@]}" --query clientId --output tsv)"
principal_id="$(az identity show --name "$name" "${in_group[@]}" --query principalId --output tsv)"
workspace_id="$(az resource show "${in_group[@]}" --name "$WORKSPACE" \
    --resource-type Microsoft.MachineLearningServices/workspaces --query id --output tsv)"
tracking_uri="$(az resource show --ids "$workspace_id" --query properties.mlFlowTrackingUri --output tsv)"

az role assignment create --assignee-object-id "$principal_id" --assignee-principal-type ServicePrincipal \
    --role "AzureML Data Scientist" --scope "$workspace_id" --output none
az identity federated-credential create --name "$name" --identity-name "$name" "${in_group[@]}" \
    --issuer "$issuer" --subject "system:serviceaccount:$namespace:mlproxy" \
    --audiences api://AzureADTokenExchange --output none

az aks get-credentials --name "$CLUSTER" "${in_group[@]}"
helm upgrade --install mlproxy "$chart" --namespace "$namespace" --create-namespace \
    --set image.repository="${IMAGE%:*}" --set image.tag="${IMAGE##*:}" \
    --set workspace="$tracking_uri" \
    --set credential=workload-identity --set azure.clientId="$client_id" "$@"
