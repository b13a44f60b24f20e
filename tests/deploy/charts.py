"""The chart as Helm renders it, and what a pod of it would see."""

import json
from functools import lru_cache
from typing import Any

import yaml

from tests.support.helm import CHART, run_helm

Manifest = dict[str, Any]

POD_IP = "10.244.3.17"
NAMESPACE = "tracking"

WORKSPACE = "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/s/resourceGroups/r/providers/w"
_INGRESS = {"enabled": True, "host": "mlflow.example.org", "tlsSecret": "mlflow-tls"}
_POSTGRES = {"kind": "postgres", "urlSecret": {"name": "mlproxy-database"}}

# What people install, from the least to everything at once.
INSTALLATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one-on-aks": {
        "workspace": WORKSPACE,
        "azure": {"clientId": "11111111-1111-1111-1111-111111111111"},
        "storage": {"data": {"storageClass": "managed-csi-premium"}},
        "ingress": _INGRESS,
        "trustedProxies": ["10.244.0.0/16"],
    },
    "service-principal": {
        "workspace": WORKSPACE,
        "credential": "service-principal",
        "azure": {"clientId": "c", "tenantId": "t", "clientSecret": {"name": "azure"}},
    },
    "postgres": {"workspace": WORKSPACE, "database": _POSTGRES, "ingress": _INGRESS},
    "postgres-roles": {
        "database": {**_POSTGRES, "migrate": True},
        "replicas": {"all": 0, "api": 3, "replay": 2},
        "credential": "managed-identity",
        "storage": {"spool": {"existingClaim": "shared"}},
    },
    "everything": {
        "adminKeySecret": {"name": "mlproxy-admin"},
        "database": _POSTGRES,
        "ingress": _INGRESS,
        "settings": {"MLPROXY_MAX_SPOOL_BYTES": "107374182400", "MLPROXY_LOG_LEVEL": "debug"},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"}],
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccount": {"name": "tracker", "annotations": {"owner": "ml"}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "ml"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "ml", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"ml": "yes"}}}]},
        "metrics": {
            "podMonitor": {"enabled": True, "keySecret": {"name": "prometheus-key"}},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboard": {"enabled": True},
        },
    },
}


def render(values: dict[str, Any]) -> list[Manifest]:
    """Every manifest of an installation."""
    return [manifest for manifest in yaml.safe_load_all(_rendered(*_as_arguments(values))) if manifest]


@lru_cache
def _rendered(*arguments: str) -> str:
    done = run_helm("template", "mlproxy", str(CHART), "--namespace", NAMESPACE, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(values: dict[str, Any]) -> str:
    """What Helm says when it does not render them."""
    done = run_helm("template", "mlproxy", str(CHART), *_as_arguments(values))
    assert done.returncode != 0, done.stdout
    return done.stderr


def lint(values: dict[str, Any]) -> str:
    """What `helm lint --strict` says; fails with it if it is not content."""
    done = run_helm("lint", "--strict", str(CHART), *_as_arguments(values))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Those of a kind, in the order they were rendered."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pod_of(deployment: Manifest) -> Manifest:
    """The specification of its pods."""
    spec: Manifest = deployment["spec"]["template"]["spec"]
    return spec


def server_of(deployment: Manifest) -> Manifest:
    """The container that serves."""
    (container,) = pod_of(deployment)["containers"]
    return dict(container)


def environment_of(container: Manifest, secrets: dict[str, str]) -> dict[str, str]:
    """Its variables as the kubelet would set them; `secrets` by the name of the Secret."""
    seen: dict[str, str] = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "status.podIP"
            value = POD_IP
        elif "secretKeyRef" in source:
            value = secrets[source["secretKeyRef"]["name"]]
        else:
            value = variable["value"]
        for name, earlier in seen.items():
            value = value.replace(f"$({name})", earlier)
        seen[variable["name"]] = value
    return seen


def _as_arguments(values: dict[str, Any]) -> list[str]:
    """As JSON, which goes through whole, whatever characters the values have."""
    return [word for name, value in values.items() for word in ("--set-json", f"{name}={json.dumps(value)}")]
