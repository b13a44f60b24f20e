"""Where a workspace is: from the text an operator has to the base URLs of its services.

All data-plane services of a workspace answer on the host of its tracking URI. The `v1.0` or `v2.0` in
that URI is ignored, as Microsoft's own client ignores it: calls go to `v2.0`.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from server.upstream.answers import read_answer
from server.upstream.channel import Channel
from server.upstream.credentials import TokenSource
from server.upstream.failures import unreadable_answer
from server.upstream.segments import run_segment

PUBLIC_MANAGEMENT_URL = "https://management.azure.com"
_ARM_API_VERSION = "2024-04-01"
_WANTED = (
    "azureml://<region>.api.azureml.ms/mlflow/v1.0/subscriptions/<id>/resourceGroups/<group>"
    "/providers/Microsoft.MachineLearningServices/workspaces/<name>, the same with https://, "
    "or the workspace's ARM id /subscriptions/<id>/resourceGroups/<group>"
    "/providers/Microsoft.MachineLearningServices/workspaces/<name>"
)
_ARM_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace>[^/]+)",
    re.IGNORECASE,
)
_TRACKING_PREFIX = re.compile(r"/mlflow/v[12]\.0(?=/)", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_SUBSCRIPTION = re.compile(r"[A-Za-z0-9-]{1,64}")
_GROUP = re.compile(r"[\w().-]{0,89}[\w()-]")
_WORKSPACE = re.compile(r"[A-Za-z0-9][\w-]{0,259}")


@dataclass(frozen=True, slots=True)
class ArmWorkspaceId:
    """A workspace known by its place in Azure Resource Manager; `resolve` finds its host."""

    subscription_id: str
    resource_group: str
    workspace_name: str

    @property
    def path(self) -> str:
        """The ARM path, as it stands in every URL of the workspace."""
        return (
            f"/subscriptions/{quote(self.subscription_id)}/resourceGroups/{quote(self.resource_group)}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{quote(self.workspace_name)}"
        )


@dataclass(frozen=True, slots=True)
class WorkspaceAddress:
    """A workspace and the host that serves it. `host_url` is scheme and host, without a path."""

    host_url: str
    subscription_id: str
    resource_group: str
    workspace_name: str

    @property
    def arm_id(self) -> ArmWorkspaceId:
        """The same workspace in Azure Resource Manager."""
        return ArmWorkspaceId(self.subscription_id, self.resource_group, self.workspace_name)

    @property
    def path(self) -> str:
        """The ARM path, as it stands in every URL of the workspace."""
        return self.arm_id.path

    @property
    def mlflow_url(self) -> str:
        """Base of MLflow's own calls."""
        return f"{self.host_url}/mlflow/v2.0{self.path}/api/2.0/mlflow"

    @property
    def preview_url(self) -> str:
        """Base of the workspace's extensions to MLflow."""
        return f"{self.host_url}/mlflow/v2.0{self.path}/api/2.0/preview/mlflow"

    @property
    def history_url(self) -> str:
        """Base of Run History: runs with a chosen id, run artifacts."""
        return f"{self.host_url}/history/v1.0{self.path}"

    @property
    def artifact_url(self) -> str:
        """Base of the artifact service."""
        return f"{self.host_url}/artifact/v2.0{self.path}"

    @property
    def canonical(self) -> str:
        """The workspace's identity as text: the same for every way of writing its address."""
        netloc = self.host_url.partition("://")[2]
        return f"azureml://{netloc}/mlflow/v1.0{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine (an emulator)."""
        return is_loopback_host(urlsplit(self.host_url).hostname or "")

    @property
    def management_url(self) -> str:
        """Azure Resource Manager of the cloud that this host belongs to."""
        host = urlsplit(self.host_url).hostname or ""
        if host.endswith(".azure.cn"):
            return "https://management.chinacloudapi.cn"
        if host.endswith(".azure.us"):
            return "https://management.usgovcloudapi.net"
        return PUBLIC_MANAGEMENT_URL

    @property
    def token_scope(self) -> str:
        """What a token for this workspace has to be asked for."""
        return f"{self.management_url}/.default"

    def studio_url(self, run_id: str) -> str:
        """Where a person looks at the run: Studio, or what a local emulator shows."""
        if self.is_loopback:
            return f"{self.host_url}/emulator/runs/{run_segment(run_id)}"
        host = urlsplit(self.host_url).hostname or ""
        studio = {"cn": "https://studio.ml.azure.cn", "us": "https://ml.azure.us"}.get(
            host.rpartition(".")[2] if ".azure." in host else "", "https://ml.azure.com"
        )
        return f"{studio}/runs/{run_segment(run_id)}?wsid={self.path}"


def parse_workspace(text: str) -> WorkspaceAddress | ArmWorkspaceId:
    """The workspace that `text` names: a tracking URI or an ARM id.

    `azureml://` and `https://` mean the same, and so do `v1.0`, `v2.0` and no version; a query is ignored.
    Plain HTTP is for an emulator on this machine only: `http://` is refused for any other host, and
    `azureml://` to a loopback host is plain HTTP (for TLS there, write `https://`).

    Raises:
        ValueError: With the form that is wanted.
    """
    stripped = text.strip().partition("?")[0].partition("#")[0].rstrip("/")
    if stripped.startswith("/"):
        return _arm_id(stripped, text)
    parts = urlsplit(stripped)
    if parts.scheme not in {"azureml", "https", "http"}:
        raise _unusable(text, "it starts with neither azureml://, https:// nor /subscriptions/")
    netloc, is_loopback = _checked_netloc(parts.netloc, text)
    if parts.scheme == "http" and not is_loopback:
        raise _unusable(text, "http:// is for loopback hosts only")
    arm = _arm_id(_TRACKING_PREFIX.sub("", parts.path, count=1), text)
    is_plain = is_loopback and parts.scheme != "https"
    return WorkspaceAddress(
        host_url=f"{'http' if is_plain else 'https'}://{netloc}",
        subscription_id=arm.subscription_id,
        resource_group=arm.resource_group,
        workspace_name=arm.workspace_name,
    )


async def resolve(
    arm_id: ArmWorkspaceId,
    tokens: TokenSource,
    http: httpx.AsyncClient,
    *,
    management_url: str = PUBLIC_MANAGEMENT_URL,
) -> WorkspaceAddress:
    """The address of a workspace known by its ARM id. `management_url` is another in sovereign clouds."""
    channel = Channel(origin=management_url, tokens=tokens, http=http)
    answer = await channel.request(
        "GET",
        f"{management_url.rstrip('/')}{arm_id.path}",
        params={"api-version": _ARM_API_VERSION},
        route="workspace",
    )
    properties = read_answer(answer, dict[str, Any], is_repeatable=True).get("properties")
    uri = properties.get("mlFlowTrackingUri") if isinstance(properties, dict) else None
    try:
        address = parse_workspace(str(uri))
    except ValueError as error:
        raise unreadable_answer(f"no tracking URI in the workspace: {error}", is_repeatable=True) from error
    if isinstance(address, ArmWorkspaceId):
        raise unreadable_answer(f"no tracking URI in the workspace: {uri!r}", is_repeatable=True)
    return address


def is_loopback_host(host: str) -> bool:
    """Whether `host` is this machine by its very name."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _arm_id(path: str, text: str) -> ArmWorkspaceId:
    match = _ARM_ID.fullmatch(path.rstrip("/"))
    if match is None:
        raise _unusable(text, "it does not name subscription, resource group and workspace")
    subscription, group, workspace = (
        unquote(part) for part in match.group("subscription", "group", "workspace")
    )
    if not (
        _SUBSCRIPTION.fullmatch(subscription) and _GROUP.fullmatch(group) and _WORKSPACE.fullmatch(workspace)
    ):
        raise _unusable(
            text, "subscription, resource group or workspace has characters that Azure does not allow"
        )
    return ArmWorkspaceId(subscription, group, workspace)


def _checked_netloc(netloc: str, text: str) -> tuple[str, bool]:
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _unusable(text, "its host or port is not valid") from error
    if "@" in netloc or not (_HOST.fullmatch(host) or (":" in host and is_loopback_host(host))):
        raise _unusable(text, "its host is not valid")
    shown = f"[{host}]" if ":" in host else host
    return (shown if port is None else f"{shown}:{port}"), is_loopback_host(host)


def _unusable(text: str, why: str) -> ValueError:
    return ValueError(f"not a workspace address: {text[:300]!r} ({why}). Wanted: {_WANTED}")
