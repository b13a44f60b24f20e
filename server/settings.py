"""Settings: typed, described, frozen, read once from `MLPROXY_*`.

Only `cli` and `bootstrap` see this object; what acts is handed plain values.
"""

import os
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.domain.errors import OperatorError

_PREFIX = "MLPROXY_"
# Set by the test suites and by deployments around the server; no settings of it.
_FOREIGN_PREFIXES = ("MLPROXY_TEST_", "MLPROXY_DEMO_")
_SECRETS_OF_LIBRARIES = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "PGPASSWORD")
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
    admin_key_file: Annotated[
        Path | None,
        Field(
            description="File that holds an admin key: a secret of 256 bits or more, as a mounted secret."
            " Read at start; a key that the file does not hold any more is closed then."
        ),
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
    public_url: Annotated[
        str | None,
        Field(
            description="Address under which people reach the server, as https://mlflow.example.org/mlflow;"
            " wanted for logging in over an identity provider."
        ),
    ] = None
    oidc_issuer: Annotated[
        str | None,
        Field(
            description="OpenID Connect issuer whose word is taken beside keys, as"
            " https://login.microsoftonline.com/TENANT/v2.0: for browsers, and as bearer token."
        ),
    ] = None
    oidc_client_id: Annotated[
        str | None, Field(description="This server's client (application) id at the issuer.")
    ] = None
    oidc_client_secret: Annotated[
        SecretStr | None, Field(description="Its secret there; none for a public client.")
    ] = None
    oidc_audience: Annotated[
        str | None, Field(description="Audience that a token must have; default: the client id.")
    ] = None
    oidc_role_claim: Annotated[str, Field(description="Claim that gives roles.")] = "roles"
    oidc_roles: Annotated[
        str,
        Field(description="What its values mean, as 'mlflow-admins=admin,team=write'; default: role names."),
    ] = ""
    oidc_default_role: Annotated[
        str | None,
        Field(
            pattern="^(read|write|admin)$", description="Role of who has none by the claim; default: refused."
        ),
    ] = None
    role: Annotated[ServerRole, Field(description="What this process does: api, replay, or all.")] = (
        ServerRole.ALL
    )
    stop_delay_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=300,
            description="How long requests are still taken after SIGTERM, while /health/ready says no:"
            " the time a load balancer needs to notice. A second signal ends it.",
        ),
    ] = 0.0
    max_backlog_bytes: Annotated[
        int,
        Field(
            ge=1024 * 1024,
            description="Most bytes of undelivered writes, artifacts up to 64 KiB included. From 85 % on"
            " writes are told to come again (429), from 95 % on they are refused (507); runs can be ended up"
            " to the limit.",
        ),
    ] = 10 * GIBIBYTE
    max_spool_bytes: Annotated[
        int,
        Field(
            ge=1024 * 1024,
            description="Most bytes of undelivered artifacts over 64 KiB. From 85 % on uploads are told to"
            " come again (429), from 95 % on, or when they can never fit, they are refused (507).",
        ),
    ] = 50 * GIBIBYTE
    min_free_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="Bytes that must stay free on the disks of the data folder and the spool:"
            " with less, /health/ready says no. The days until full are counted to here.",
        ),
    ] = 256 * 1024 * 1024
    lease_seconds: Annotated[
        float,
        Field(
            ge=5,
            description="How long a process that delivers may hold a run without showing that it lives."
            " A call to the workspace that lasts longer is broken off when it cannot show it.",
        ),
    ] = 120.0
    workspace_calls_per_second: Annotated[
        float,
        Field(
            ge=1,
            description="Most calls a second to the workspace, by each process. A 429 halves the rate;"
            " it climbs back within a minute.",
        ),
    ] = 100.0
    spool_dir: Annotated[
        Path | None,
        Field(
            description="Folder of artifacts on their way; default: `spool` in the data folder."
            " Replicas that share a Postgres must share it."
        ),
    ] = None
    direct_artifacts: Annotated[
        bool,
        Field(
            description="Let clients exchange large artifacts with the workspace's storage directly. They"
            " must be able to reach it, and get signed addresses that stay good for some hours, also after"
            " their key is revoked."
        ),
    ] = False
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
    def spool_folder(self) -> Path:
        """Where artifacts wait for delivery."""
        return self.spool_dir or self.data_dir / "spool"

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

    @property
    def secret_values(self) -> list[str]:
        """The secrets that the process was started with, here and in the libraries' own variables."""
        password = urlsplit(self.url).password or ""
        client_secret = self.oidc_client_secret
        return [
            password,
            unquote(password),
            "" if client_secret is None else client_secret.get_secret_value(),
            *(os.environ.get(name, "") for name in _SECRETS_OF_LIBRARIES),
        ]


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
