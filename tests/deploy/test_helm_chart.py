"""The Helm chart: linted and rendered by Helm, held against Kubernetes' own schemas, and served from.

No cluster is needed: what a pod would see is given to a real server.
"""

import re
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from server.settings import Settings
from tests.deploy.charts import (
    INSTALLATIONS,
    POD_IP,
    environment_of,
    lint,
    of_kind,
    pod_of,
    refusal,
    render,
    server_of,
)
from tests.support.databases import MakeDatabase
from tests.support.emulator import REPOSITORY
from tests.support.server import ServerProcess

# The oldest that Chart.yaml allows, and a new one.
KUBERNETES = ("1.27", "1.36")
SETTINGS = {f"MLPROXY_{name}".upper() for name in Settings.model_fields}
ALL = pytest.mark.parametrize("values", INSTALLATIONS.values(), ids=INSTALLATIONS.keys())
POSTGRES = INSTALLATIONS["postgres"]


@ALL
def test_linter_is_content(values: dict[str, Any]) -> None:
    """`helm lint --strict` finds nothing in any of the installations."""
    assert "0 chart(s) failed" in lint(values)


@ALL
def test_manifests_are_what_kubernetes_takes(values: dict[str, Any]) -> None:
    """No field is misspelt, of a wrong type or missing, on the oldest version allowed and on a new one."""
    manifests = [one for one in render(values) if not one["apiVersion"].startswith("monitoring.coreos.com/")]
    assert {one["kind"] for one in manifests} >= {"Deployment", "Service", "ServiceAccount", "NetworkPolicy"}
    for manifest in manifests:
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    """The schemas refuse what they do not know."""
    (deployment,) = of_kind(render({}), "Deployment")
    pod_of(deployment)["automountServiceAccountTokens"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="automountServiceAccountTokens"):
        kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)


@ALL
def test_pods_are_confined(values: dict[str, Any]) -> None:
    """No root, no privilege, no capability, no token of the cluster; only volumes can be written."""
    for deployment in of_kind(render(values), "Deployment"):
        pod = pod_of(deployment)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@ALL
def test_no_setting_is_misspelt_or_set_by_the_cluster(values: dict[str, Any]) -> None:
    """All settings exist, none is set twice, and Kubernetes adds none: `MLPROXY_PORT`, for a Service."""
    for deployment in of_kind(render(values), "Deployment"):
        names = [variable["name"] for variable in server_of(deployment)["env"]]
        assert {name for name in names if name.startswith("MLPROXY_")} <= SETTINGS
        assert len(names) == len(set(names))
        assert pod_of(deployment)["enableServiceLinks"] is False


def test_sqlite_has_one_process_at_a_time_on_a_disk_that_stays() -> None:
    """One replica, ended before the next begins, on a ReadWriteOnce claim that Helm does not delete."""
    manifests = render(INSTALLATIONS["one-on-aks"])
    (deployment,) = of_kind(manifests, "Deployment")
    (claim,) = of_kind(manifests, "PersistentVolumeClaim")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert _claims_of(deployment) == {"/data": claim["metadata"]["name"]}
    assert of_kind(manifests, "PodDisruptionBudget") == []


def test_replicas_share_their_spool_and_nothing_else() -> None:
    """On Postgres `/data` is each replica's own, `/spool` is one claim that all can write."""
    manifests = render(POSTGRES)
    (deployment,) = of_kind(manifests, "Deployment")
    (claim,) = of_kind(manifests, "PersistentVolumeClaim")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert _claims_of(deployment) == {"/spool": claim["metadata"]["name"]}
    assert len(of_kind(manifests, "PodDisruptionBudget")) == 1


def test_clients_reach_only_replicas_that_answer_them() -> None:
    """The Service, and the budget, leave out those that only deliver."""
    manifests = render(INSTALLATIONS["postgres-roles"])
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in of_kind(manifests, "Deployment")
    }
    assert set(labels) == {"mlproxy-api", "mlproxy-replay"}
    for selector in (
        of_kind(manifests, "Service")[0]["spec"]["selector"],
        of_kind(manifests, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"],
    ):
        chosen = [name for name, given in labels.items() if selector.items() <= given.items()]
        assert chosen == ["mlproxy-api"]


def test_a_new_schema_is_made_while_no_old_replica_runs() -> None:
    """`database.migrate` stops all before it starts any, and brings the schema up to date first."""
    for values in ({}, {**POSTGRES, "database": {**POSTGRES["database"], "migrate": True}}):
        (deployment,) = of_kind(render(values), "Deployment")
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
        assert [one["args"] for one in pod_of(deployment)["initContainers"]] == [["migrate"]]
    (deployment,) = of_kind(render(POSTGRES), "Deployment")
    assert "initContainers" not in pod_of(deployment)


def test_workload_identity_is_asked_for_where_azure_looks() -> None:
    """The label on the pod, the client id on its service account, and no secret."""
    manifests = render(INSTALLATIONS["one-on-aks"])
    (deployment,) = of_kind(manifests, "Deployment")
    (account,) = of_kind(manifests, "ServiceAccount")
    assert deployment["spec"]["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert pod_of(deployment)["serviceAccountName"] == account["metadata"]["name"]
    assert account["metadata"]["annotations"] == {
        "azure.workload.identity/client-id": "11111111-1111-1111-1111-111111111111"
    }
    names = {variable["name"] for variable in server_of(deployment)["env"]}
    assert {name for name in names if name.startswith("AZURE_")} == set()
    assert not [one for one in server_of(deployment)["env"] if "secretKeyRef" in one.get("valueFrom", {})]


def test_secrets_are_referred_to() -> None:
    """No value that is secret is part of a manifest."""
    for name in ("postgres", "service-principal"):
        (deployment,) = of_kind(render(INSTALLATIONS[name]), "Deployment")
        for variable in server_of(deployment)["env"]:
            if variable["name"] in ("MLPROXY_DATABASE_URL", "AZURE_CLIENT_SECRET"):
                assert set(variable["valueFrom"]) == {"secretKeyRef"}
        assert of_kind(render(INSTALLATIONS[name]), "Secret") == []


def test_a_mounted_admin_key_is_where_the_server_looks() -> None:
    """The file that the setting names is the key of the Secret that is mounted there, read-only."""
    (deployment,) = of_kind(render(INSTALLATIONS["everything"]), "Deployment")
    container = server_of(deployment)
    seen = environment_of(container, {"mlproxy-database": ""})
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "admin-key"]
    (volume,) = [one for one in pod_of(deployment)["volumes"] if one["name"] == "admin-key"]
    assert seen["MLPROXY_ADMIN_KEY_FILE"] == f"{mount['mountPath']}/key"
    assert mount["readOnly"] is True
    assert volume["secret"]["secretName"] == "mlproxy-admin"


def test_ingress_streams_and_waits() -> None:
    """No limit on bodies, nothing collected first, TLS, and the proxy knows the name."""
    manifests = render(INSTALLATIONS["one-on-aks"])
    (ingress,) = of_kind(manifests, "Ingress")
    prefix = "nginx.ingress.kubernetes.io/"
    said = {name.removeprefix(prefix): value for name, value in ingress["metadata"]["annotations"].items()}
    assert said["proxy-body-size"] == "0"
    assert said["proxy-request-buffering"] == said["proxy-buffering"] == "off"
    assert int(said["proxy-read-timeout"]) >= 3600
    assert ingress["spec"]["tls"] == [{"hosts": ["mlflow.example.org"], "secretName": "mlflow-tls"}]
    seen = environment_of(server_of(of_kind(manifests, "Deployment")[0]), {})
    assert "mlflow.example.org" in seen["MLPROXY_ALLOWED_HOSTS"].split(",")
    assert seen["MLPROXY_PUBLIC_URL"] == "https://mlflow.example.org"
    assert seen["MLPROXY_TRUSTED_PROXIES"] == "10.244.0.0/16"


def test_alerts_and_dashboard_are_those_that_are_shipped() -> None:
    """The chart's rules and dashboard are `deploy/prometheus` and `deploy/grafana`, letter by letter."""
    manifests = render(INSTALLATIONS["everything"])
    (rule,) = of_kind(manifests, "PrometheusRule")
    shipped = (REPOSITORY / "deploy" / "prometheus" / "mlproxy-alerts.yml").read_text()
    assert rule["spec"] == yaml.safe_load(shipped)
    (board,) = of_kind(manifests, "ConfigMap")
    assert board["data"]["mlproxy.json"] == (REPOSITORY / "deploy" / "grafana" / "mlproxy.json").read_text()


def test_prometheus_finds_every_replica_under_the_name_the_alerts_use() -> None:
    """Replicas that answer no clients are asked too, and `job` is what the rules say."""
    values = {**INSTALLATIONS["everything"], "replicas": {"all": 0, "api": 2, "replay": 1}}
    manifests = render(values)
    (monitor,) = of_kind(manifests, "PodMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    for deployment in of_kind(manifests, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert wanted.items() <= labels.items()
        assert f'up{{job="{labels[monitor["spec"]["jobLabel"]]}"}}' in str(
            of_kind(manifests, "PrometheusRule")
        )
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "prometheus-key", "key": "key"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"storage": {"data": {"storageClass": "azurefile-csi"}}}, "network file system"),
        ({"database": {"kind": "postgres"}}, "database.urlSecret.name"),
        ({**POSTGRES, "replicas": {"all": 0, "api": 2, "replay": 0}}, "deliver to the workspace"),
        ({**POSTGRES, "replicas": {"all": 0, "api": 0, "replay": 2}}, "answer clients"),
        ({"ingress": {"enabled": True, "host": "mlflow.example.org"}}, "ingress.tlsSecret"),
        ({"ingress": {"enabled": True, "tlsSecret": "t"}}, "ingress.host"),
        ({"credential": "service-principal"}, "azure.clientSecret.name"),
        ({"credential": "azure-cli"}, "credential"),
        ({"metrics": {"podMonitor": {"enabled": True}}}, "role `read`"),
        ({"replicaCount": 3}, "replicaCount"),
        ({"settings": {"MLPROXY_DATABASE_URL": "postgresql://a:b@c/d"}}, "MLPROXY_DATABASE_URL"),
        ({"settings": {"LOG_LEVEL": "debug"}}, "LOG_LEVEL"),
        ({"workspace": "my-workspace"}, "workspace"),
    ],
)
def test_what_cannot_work_is_refused_with_words(values: dict[str, Any], words: str) -> None:
    """A mistake is found by `helm install`, not by a pod that does not start."""
    assert words in refusal(values)


@pytest.mark.parametrize("name", ["one-on-aks", "postgres", "postgres-roles"])
def test_a_server_with_a_pods_settings_answers_its_probes(
    name: str, tmp_path: Path, make_database: MakeDatabase
) -> None:
    """A real server, given what the chart sets, says alive and ready to the kubelet and to Prometheus."""
    for deployment in of_kind(render(INSTALLATIONS[name]), "Deployment"):
        container = server_of(deployment)
        secrets = {"mlproxy-database": ""}
        if name != "one-on-aks":
            secrets["mlproxy-database"] = make_database("postgres")
        settings = environment_of(container, secrets)
        settings.pop("MLPROXY_WORKSPACE", None)  # nothing on this machine reaches Azure
        if "MLPROXY_SPOOL_DIR" in settings:
            settings["MLPROXY_SPOOL_DIR"] = str(tmp_path / "spool")
        data_dir = tmp_path / deployment["metadata"]["name"]
        with ServerProcess.start(data_dir, **settings) as server:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                get = container[probe]["httpGet"]
                headers = {header["name"]: header["value"] for header in get["httpHeaders"]}
                assert _get(server, get["path"], headers).status_code == 200, probe
            as_prometheus = _get(server, "/metrics", {"Host": f"{POD_IP}:5000"})
            assert as_prometheus.status_code == 401
            assert _get(server, "/health", {"Host": "elsewhere.example.org"}).status_code == 403
            created = server.cli("keys", "create", "prometheus", "--role", "read")
            key = created.stdout.splitlines()[-1]
            figures = _get(server, "/metrics", {"Host": f"{POD_IP}:5000", "Authorization": f"Bearer {key}"})
            assert re.search(r"^mlproxy_pending", figures.text, re.MULTILINE)
            grace = pod_of(deployment)["terminationGracePeriodSeconds"]
            assert grace >= 30 + float(settings.get("MLPROXY_STOP_DELAY_SECONDS", 0))
            server.kill()  # the chart's delay at the end is not what this is about


def _get(server: ServerProcess, path: str, headers: dict[str, str]) -> httpx.Response:
    return httpx.get(f"{server.url}{path}", headers=headers, trust_env=False)


def _claims_of(deployment: dict[str, Any]) -> dict[str, str]:
    """Claims by where they are mounted."""
    mounts = {mount["name"]: mount["mountPath"] for mount in server_of(deployment)["volumeMounts"]}
    return {
        mounts[volume["name"]]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod_of(deployment)["volumes"]
        if "persistentVolumeClaim" in volume
    }
