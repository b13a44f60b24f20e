"""Who may come in, constructed: keys, logins, and the identity provider where one is configured."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.api.door import Authenticator
from server.commit.writer import Work
from server.core import Core
from server.database.engine import Transaction
from server.domain.access import Role
from server.domain.logins import ProviderLogin
from server.services.bearers import BearerAuthenticator
from server.services.keys import KeyAuthenticator, OpenAuthenticator
from server.services.mounted_key import install_mounted_key, read_mounted_key
from server.services.sessions import Sessions
from server.settings import AuthKind, Settings, SettingsError
from server.store import facts

if TYPE_CHECKING:
    from server.oidc.tokens import RoleRule, TokenJudge

_CALLBACK = "/login/callback"
_SIGNING_KEY = "login_signing_key"


@dataclass(slots=True)
class Access:
    """What finds out who asks. `sessions` is missing where access control is off."""

    authenticator: Authenticator
    keys: KeyAuthenticator
    sessions: Sessions | None
    login: ProviderLogin | None

    def forget(self) -> None:
        """A key was revoked: ask the database again for everyone."""
        self.keys.forget()
        if self.sessions is not None:
            self.sessions.forget()


async def build_access(core: Core) -> Access:
    """Everything that tells who somebody is.

    Raises:
        SettingsError: the identity provider's settings contradict each other.
        MountedKeyError: the file of the admin key holds none.
    """
    database, writer, clock = core.database, core.writer, core.clock
    keys = KeyAuthenticator(database=database, writer=writer, clock=clock)
    judge, login = await _build_oidc(core)
    if core.settings.effective_auth is AuthKind.OFF:
        return Access(OpenAuthenticator(), keys, None, None)
    if core.settings.admin_key_file is not None:
        await install_mounted_key(writer, read_mounted_key(core.settings.admin_key_file))
    sessions = Sessions(database=database, writer=writer, clock=clock)
    authenticator: Authenticator = keys
    if judge is not None:
        authenticator = BearerAuthenticator(keys=keys, judge=judge.principal_of, clock=clock)
    return Access(authenticator, keys, sessions, login)


async def _build_oidc(core: Core) -> "tuple[TokenJudge | None, ProviderLogin | None]":
    settings, clock = core.settings, core.clock
    if settings.oidc_issuer is None:
        return None, None
    if settings.oidc_client_id is None:
        raise SettingsError("MLPROXY_OIDC_ISSUER needs MLPROXY_OIDC_CLIENT_ID.")
    # Imported when used: most installations have keys only, and need not wait for this.
    import httpx

    from server.oidc.issuer import Issuer
    from server.oidc.login import BrowserLogin
    from server.oidc.tokens import TokenJudge

    http = httpx.AsyncClient(follow_redirects=False)
    core.lifecycle.on_stop(http.aclose)
    issuer = Issuer(settings.oidc_issuer, http=http, clock=clock)
    judge = TokenJudge(
        issuer,
        audience=settings.oidc_audience or settings.oidc_client_id,
        rule=_role_rule(settings),
        clock=clock,
    )
    if settings.public_url is None:
        return judge, None  # tokens are taken; browsers log in with a key
    id_judge = TokenJudge(issuer, audience=settings.oidc_client_id, rule=_role_rule(settings), clock=clock)
    secret = settings.oidc_client_secret
    login = BrowserLogin(
        issuer,
        id_judge,
        client_id=settings.oidc_client_id,
        client_secret=None if secret is None else secret.get_secret_value(),
        redirect_uri=settings.public_url.rstrip("/") + _CALLBACK,
        signing_key=await core.writer.commit(Work(_signing_key, alone=True)),
        clock=clock,
    )
    return judge, login


def _role_rule(settings: Settings) -> "RoleRule":
    from server.oidc.tokens import RoleRule

    default = None if settings.oidc_default_role is None else Role(settings.oidc_default_role)
    if not settings.oidc_roles:
        return RoleRule(settings.oidc_role_claim, default=default)
    return RoleRule(settings.oidc_role_claim, _parse_roles(settings.oidc_roles), default)


def _parse_roles(text: str) -> Mapping[str, Role]:
    roles: dict[str, Role] = {}
    for item in text.split(","):
        value, _, role = item.strip().rpartition("=")
        if not value or role not in list(Role):
            raise SettingsError(
                f"MLPROXY_OIDC_ROLES: '{item.strip()}' is not VALUE=ROLE with a role of {', '.join(Role)}."
            )
        roles[value] = Role(role)
    return roles


def _signing_key(transaction: Transaction) -> bytes:
    """One for all replicas, made once; it signs what a browser carries through a login."""
    known = facts.find(transaction, _SIGNING_KEY)
    if known is None:
        known = secrets.token_hex(32)
        facts.put(transaction, _SIGNING_KEY, known)
    return bytes.fromhex(known)
