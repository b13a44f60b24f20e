"""Settings: typed, described, frozen, read once from `MLPROXY_*`.

Only `cli` and `bootstrap` see this object; what acts is handed plain values.
"""

import os
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.domain.errors import OperatorError

_PREFIX = "MLPROXY_"
# Set by the test suites and by deployments around the server; no settings of it.
_FOREIGN_PREFIXES = ("MLPROXY_TEST_", "MLPROXY_DEMO_")
GIBIBYTE = 1024**3


class CredentialKind(StrEnum):
    """How the proxy proves who it is to Azure."""

    DEFAULT = "default"
    MANAGED_IDENTITY = "managed-identity"
    SERVICE_PRINCIPAL = "service-principal"
    WORKLOAD_IDENTITY = "workload-identity"
    AZURE_CLI = "azure-cli"


class AuthKind(StrEnum):
    """How clients prove who they are to the proxy."""

    OFF = "off"
    KEYS = "keys"


class ServerRole(StrEnum):
    """What this process does."""

    ALL = "all"
    API = "api"
    REPLAY = "replay"


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


class SettingsError(OperatorError):
    """A setting is wrong; the message says which, and what would be right."""


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 5000
    data_dir: Annotated[
        Path, Field(description="Folder of the SQLite file, the artifact spool and the UI files.")
    ] = Path("./data")
    database_url: Annotated[
        str | None, Field(description="postgresql://… ; without it SQLite in the data folder.")
    ] = None
    workspace: Annotated[
        str | None,
        Field(
            description="Azure ML workspace to replay to: its tracking URI (azureml://… or https://…)"
            " or its ARM id."
            " Without it everything is accepted and kept until one is configured."
        ),
    ] = None
    credential: Annotated[CredentialKind, Field(description="Identity used towards Azure.")] = (
        CredentialKind.DEFAULT
    )
    auth: Annotated[
        AuthKind | None, Field(description="Access control; default: off on loopback, else keys.")
    ] = None
    insecure: Annotated[bool, Field(description="Allow access control to be off beyond loopback.")] = False
    allowed_hosts: Annotated[
        str | None,
        Field(
            description="Host names clients may use, comma separated; '*' allows any."
            " Default: the bound address and localhost."
        ),
    ] = None
    path_prefix: Annotated[str, Field(description="Path under which everything is served, as /mlflow.")] = ""
    trusted_proxies: Annotated[
        str, Field(description="Addresses of reverse proxies whose X-Forwarded-* headers are believed.")
    ] = ""
    role: Annotated[ServerRole, Field(description="What this process does: api, replay, or all.")] = (
        ServerRole.ALL
    )
    max_backlog_bytes: Annotated[
        int, Field(ge=1024 * 1024, description="Most bytes of undelivered writes. Not enforced yet.")
    ] = 10 * GIBIBYTE
    max_spool_bytes: Annotated[
        int,
        Field(
            ge=1024 * 1024,
            description="Most bytes of undelivered artifacts; an upload that does not fit is refused (507).",
        ),
    ] = 50 * GIBIBYTE
    ui_dir: Annotated[
        Path | None, Field(description="Folder of the UI files; default: `ui` in the data folder.")
    ] = None
    ui_artifact_scripts: Annotated[
        bool,
        Field(
            description="Let HTML artifacts run scripts, in the sandboxed frame that the UI shows them in."
            " This loosens the UI's content security policy."
        ),
    ] = False
    studio_links: Annotated[
        bool, Field(description="Show a link to Azure ML studio among a run's tags in the UI.")
    ] = True
    settle_seconds: Annotated[
        float,
        Field(ge=0, description="How long a point or artifact must stay unseen before it is sent again."),
    ] = 60.0
    marker_settle_seconds: Annotated[
        float,
        Field(
            ge=0, description="How long a marker must stay unseen before its run or version is made again."
        ),
    ] = 600.0
    webhook_allowed_hosts: Annotated[
        str,
        Field(
            description="Hosts, or host:port, comma separated, that webhooks may reach though they are not"
            " public or not https. Any public https host may be reached anyway."
        ),
    ] = ""
    arm_url: Annotated[
        str,
        Field(description="Azure Resource Manager, for an ARM id as workspace (other in sovereign clouds)."),
    ] = "https://management.azure.com"
    log_format: Annotated[LogFormat, Field(description="console or json.")] = LogFormat.CONSOLE
    log_level: Annotated[
        str, Field(pattern="(?i)^(debug|info|warning|error)$", description="Least level logged.")
    ] = "info"

    @property
    def url(self) -> str:
        """The database."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'mlproxy.db').absolute()}"

    @property
    def ui_folder(self) -> Path:
        """Where the UI's files are."""
        return self.ui_dir or self.data_dir / "ui"

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file of this machine."""
        return self.url.startswith("sqlite")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def effective_auth(self) -> AuthKind:
        """Access control in force.

        Raises:
            SettingsError: it is off on an address that others can reach.
        """
        auth = self.auth or (AuthKind.OFF if self.is_loopback else AuthKind.KEYS)
        if auth is AuthKind.OFF and not self.is_loopback and not self.insecure:
            raise SettingsError(
                f"MLPROXY_AUTH=off is refused on {self.host}: anyone who reaches it could use the"
                " team's Azure"
                " identity. Set MLPROXY_AUTH=keys, or MLPROXY_INSECURE=true if something in front guards it."
            )
        return auth

    @property
    def host_names(self) -> frozenset[str]:
        """Host names the door lets in."""
        if self.allowed_hosts:
            return frozenset(name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip())
        return frozenset({self.host.lower(), "localhost", "127.0.0.1", "[::1]"})

    @property
    def webhook_hosts(self) -> frozenset[str]:
        """Hosts that webhooks may reach whatever their addresses are."""
        return frozenset(
            name.strip().lower() for name in self.webhook_allowed_hosts.split(",") if name.strip()
        )


def load_settings(**overrides: object) -> Settings:
    """The settings from the environment; what is not None in `overrides` wins.

    Raises:
        SettingsError: a value is not allowed, or a name is not known.
    """
    known = {f"{_PREFIX}{name}".upper() for name in Settings.model_fields}
    unknown = [
        name
        for name in os.environ
        if name.startswith(_PREFIX) and name not in known and not name.startswith(_FOREIGN_PREFIXES)
    ]
    if unknown:
        raise SettingsError(
            f"Unknown setting {', '.join(sorted(unknown))}. Known: {', '.join(sorted(known))}."
        )
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"{_PREFIX}{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SettingsError(problems) from error


def render_reference() -> str:
    """The settings as a Markdown page; `docs/settings.md` is exactly this (`make docs`)."""
    lines = [
        "# Settings",
        "",
        "Read once, at start, from the environment. An unknown `MLPROXY_` name is refused. This page is made",
        "from the settings' own definitions: `make docs`.",
        "",
        "| setting | default | |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "" if default is None else getattr(default, "value", default)
        if isinstance(default, bool):
            shown = str(default).lower()
        lines.append(
            f"| `{_PREFIX}{name.upper()}` | {f'`{shown}`' if shown != '' else 'none'} | {field.description} |"
        )
    lines += [
        "",
        "The identity towards Azure takes its details from azure-identity's own variables",
        "(`AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`, `IDENTITY_ENDPOINT`, …). TLS trust",
        "follows `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`, outbound proxies the usual `HTTPS_PROXY` and",
        "`NO_PROXY`.",
        "",
    ]
    return "\n".join(lines)
