"""Logging a browser in: the authorization code flow, with PKCE, state and nonce.

Between the two steps everything that must come back unchanged travels in a cookie of the browser's, signed
by us, so that any replica can take the second step.
"""

import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass
from hashlib import sha256

import httpx
import structlog
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from server.domain.access import Principal
from server.domain.clock import Clock
from server.domain.logins import LOGIN_LASTS_SECONDS, Departure, LoginFailedError, local_path
from server.oidc.issuer import Issuer, IssuerUnavailableError
from server.oidc.tokens import TokenJudge

log = structlog.get_logger(__name__)

_SCOPE = "openid profile email"


@dataclass(frozen=True, slots=True)
class _Started:
    state: str
    nonce: str
    verifier: str
    target: str
    until_ms: int


class BrowserLogin:
    """The flow of one registered client. `redirect_uri` is our own callback, as registered at the issuer."""

    def __init__(
        self,
        issuer: Issuer,
        judge: TokenJudge,
        *,
        client_id: str,
        client_secret: str | None,
        redirect_uri: str,
        signing_key: bytes,
        clock: Clock,
    ) -> None:
        self._issuer = issuer
        self._judge = judge
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri
        self._signing_key = signing_key
        self._clock = clock

    async def depart(self, target: str) -> Departure:
        """Begin. `target` is the path to come back to.

        Raises:
            LoginFailedError: the issuer cannot be reached.
        """
        started = _Started(
            secrets.token_urlsafe(32),
            secrets.token_urlsafe(32),
            secrets.token_urlsafe(48),
            local_path(target),
            self._clock.now_ms() + LOGIN_LASTS_SECONDS * 1000,
        )
        try:
            metadata = await self._issuer.metadata()
        except IssuerUnavailableError as error:
            raise LoginFailedError("The identity provider cannot be reached. Try again later.") from error
        async with self._client() as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=started.state,
                nonce=started.nonce,
                code_verifier=started.verifier,
            )
        return Departure(str(url), self._sealed(started))

    async def arrive(self, cookie: str | None, state: str, code: str) -> tuple[Principal, str]:
        """Who came back, and the path they wanted.

        Raises:
            LoginFailedError: this is not the browser that began, or the issuer does not vouch for it.
        """
        started = self._unsealed(cookie)
        if started is None or not hmac.compare_digest(started.state.encode(), state.encode()):
            raise LoginFailedError("This login was not begun here, or it took too long. Begin again.")
        metadata = await self._issuer.metadata()
        try:
            async with self._client() as client:
                answer = await client.fetch_token(
                    metadata.token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=started.verifier,
                )
        except (AuthlibBaseError, httpx.HTTPError, ValueError) as error:
            log.warning("oidc_code_refused", error=type(error).__name__)
            raise LoginFailedError("The identity provider did not accept the login. Begin again.") from error
        principal = await self._judge.principal_of(str(answer.get("id_token", "")), nonce=started.nonce)
        if principal is None:
            raise LoginFailedError("You are known, and have no role on this server. Ask its administrator.")
        return principal, started.target

    def _client(self) -> AsyncOAuth2Client:
        method = "client_secret_post" if self._client_secret else "none"
        return AsyncOAuth2Client(
            self._client_id,
            self._client_secret,
            token_endpoint_auth_method=method,
            scope=_SCOPE,
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
            timeout=15.0,
        )

    def _sealed(self, started: _Started) -> str:
        body = urlsafe_b64encode(json.dumps(asdict(started)).encode())
        return f"{body.decode()}.{self._signature(body)}"

    def _unsealed(self, cookie: str | None) -> _Started | None:
        body, _, signature = (cookie or "").partition(".")
        if not hmac.compare_digest(self._signature(body.encode()).encode(), signature.encode()):
            return None
        started = _Started(**json.loads(urlsafe_b64decode(body)))
        return started if self._clock.now_ms() < started.until_ms else None

    def _signature(self, body: bytes) -> str:
        return hmac.new(self._signing_key, body, sha256).hexdigest()
