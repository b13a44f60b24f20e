#!/usr/bin/env bash
# The proxy on Azure Container Apps with Azure Database for PostgreSQL. Not run against a live subscription:
# its commands were held against the arguments that the Azure CLI knows, no further.
#
#     RESOURCE_GROUP=ml-platform WORKSPACE=my-workspace IMAGE=myregistry.azurecr.io/mlproxy:0.1.0 \
#     POSTGRES_PASSWORD=… deploy/azure/container-apps.sh
#
# Makes: a managed identity that may log to the workspace and pull the image, a Postgres server, a storage
# share for files on their way, and the app. Run again it changes what is there.
set -euo pipefail

: "${RESOURCE_GROUP:?}" "${WORKSPACE:?the Azure ML workspace}" "${IMAGE:?the image in a registry of yours}"
: "${POSTGRES_PASSWORD:?made up once, letters and digits}"
name="${NAME:-mlproxy}"
location="${LOCATION:-$(az group show --name "$RESOURCE_GROUP" --query location --output tsv)}"
registry="${IMAGE%%/*}"
# Both are names in Azure's own DNS: yours alone.
postgres="${POSTGRES_SERVER:-$name-$RESOURCE_GROUP}"
storage="${STORAGE_ACCOUNT:?a new storage account, 3 to 24 small letters and digits}"

in_group=(--resource-group "$RESOURCE_GROUP")

echo "The identity, and what it may do"
az identity create --name "$name" "${in_group[@]}" --location "$location" --output none
identity_id="$(az identity show --name "$name" "${in_group[@]}" --query id --output tsv)"
client_id="$(az identity show --name "$name" "${in_group[@]}" --query clientId --output tsv)"
principal_id="$(az identity show --name "$name" "${in_group[@]}" --query principalId --output tsv)"
workspace_id="$(az resource show "${in_group[@]}" --name "$WORKSPACE" \
    --resource-type Microsoft.MachineLearningServices/workspaces --query id --output tsv)"
tracking_uri="$(az resource show --ids "$workspace_id" --query properties.mlFlowTrackingUri --output tsv)"
registry_id="$(az acr show --name "${registry%%.*}" --query id --output tsv)"
az role assignment create --assignee-object-id "$principal_id" --assignee-principal-type ServicePrincipal \
    --role "AzureML Data Scientist" --scope "$workspace_id" --output none
az role assignment create --assignee-object-id "$principal_id" --assignee-principal-type ServicePrincipal \
    --role AcrPull --scope "$registry_id" --output none

echo "Postgres"
# 0.0.0.0 stands for addresses within Azure; a virtual network is the narrower way.
az postgres flexible-server create --name "$postgres" "${in_group[@]}" --location "$location" \
    --admin-user mlproxy --admin-password "$POSTGRES_PASSWORD" --version 16 \
    --tier GeneralPurpose --sku-name Standard_D2ds_v5 --storage-size 128 --public-access 0.0.0.0 --yes --output none
az postgres flexible-server db create --server-name "$postgres" "${in_group[@]}" --name mlproxy --output none

echo "A share for files on their way"
az storage account create --name "$storage" "${in_group[@]}" --location "$location" --sku Standard_ZRS --output none
az storage share-rm create --storage-account "$storage" "${in_group[@]}" --name spool --quota 128 --output none
storage_key="$(az storage account keys list --account-name "$storage" "${in_group[@]}" \
    --query '[0].value' --output tsv)"

echo "The environment and the app"
az containerapp env create --name "$name" "${in_group[@]}" --location "$location" --output none
az containerapp env storage set --name "$name" "${in_group[@]}" --storage-name spool \
    --azure-file-account-name "$storage" --azure-file-account-key "$storage_key" \
    --azure-file-share-name spool --access-mode ReadWrite --output none
environment_id="$(az containerapp env show --name "$name" "${in_group[@]}" --query id --output tsv)"
domain="$(az containerapp env show --name "$name" "${in_group[@]}" --query properties.defaultDomain --output tsv)"

app="$(mktemp)"
trap 'rm -f "$app"' EXIT
# Readable by its owner alone, as mktemp makes it: it holds the database's address.
cat >"$app" <<END
location: $location
type: Microsoft.App/containerApps
identity:
  type: UserAssigned
  userAssignedIdentities:
    "$identity_id": {}
properties:
  environmentId: $environment_id
  configuration:
    activeRevisionsMode: Single
    ingress:
      external: true
      targetPort: 5000
      transport: http
    registries:
      - server: $registry
        identity: $identity_id
    secrets:
      - name: database-url
        value: postgresql://mlproxy:$POSTGRES_PASSWORD@$postgres.postgres.database.azure.com:5432/mlproxy?sslmode=require
  template:
    # Delivery goes on when no client calls: never to zero.
    scale:
      minReplicas: 2
      maxReplicas: 4
    terminationGracePeriodSeconds: 60
    containers:
      - name: mlproxy
        image: $IMAGE
        resources:
          cpu: 1
          memory: 2Gi
        env:
          - {name: MLPROXY_AUTH, value: keys}
          - {name: MLPROXY_ALLOWED_HOSTS, value: "$name.$domain,localhost"}
          - {name: MLPROXY_PUBLIC_URL, value: "https://$name.$domain"}
          - {name: MLPROXY_TRUSTED_PROXIES, value: "*"}
          - {name: MLPROXY_LOG_FORMAT, value: json}
          - {name: MLPROXY_WORKSPACE, value: "$tracking_uri"}
          - {name: MLPROXY_CREDENTIAL, value: managed-identity}
          - {name: AZURE_CLIENT_ID, value: "$client_id"}
          - {name: MLPROXY_DATABASE_URL, secretRef: database-url}
          - {name: MLPROXY_SPOOL_DIR, value: /spool}
          - {name: MLPROXY_STOP_DELAY_SECONDS, value: "10"}
        volumeMounts:
          - {volumeName: spool, mountPath: /spool}
        probes:
          - type: Startup
            httpGet: {path: /health/live, port: 5000, httpHeaders: [{name: Host, value: localhost}]}
            periodSeconds: 2
            failureThreshold: 150
          - type: Liveness
            httpGet: {path: /health/live, port: 5000, httpHeaders: [{name: Host, value: localhost}]}
            periodSeconds: 10
            failureThreshold: 6
          - type: Readiness
            httpGet: {path: /health/ready, port: 5000, httpHeaders: [{name: Host, value: localhost}]}
            periodSeconds: 2
            failureThreshold: 2
    volumes:
      - name: spool
        storageName: spool
        storageType: AzureFile
        mountOptions: uid=10001,gid=10001,dir_mode=0700,file_mode=0600,nobrl
END
if az containerapp show --name "$name" "${in_group[@]}" --output none 2>/dev/null; then
    az containerapp update --name "$name" "${in_group[@]}" --yaml "$app" --output none
else
    az containerapp create --name "$name" "${in_group[@]}" --yaml "$app" --output none
fi

cat <<END
The proxy is at https://$name.$domain. The first key:

    az containerapp exec --name $name --resource-group $RESOURCE_GROUP --command "mlproxy keys create team"
END
