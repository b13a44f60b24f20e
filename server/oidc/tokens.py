"""Judging a token that an issuer signed, and what its bearer may do here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwt import JWTClaimsRegistry

from server.domain.access import Principal, Role
from server.domain.clock import Clock
from server.oidc.issuer import Issuer, IssuerUnavailableError

log = structlog.get_logger(__name__)

# Signatures by keys of which the issuer alone holds the secret half; never 'none', never a shared secret.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LEEWAY_SECONDS = 60
_LONGEST_TOKEN = 16 * 1024
_NAME_CLAIMS = ("preferred_username", "email", "upn", "name", "appid", "azp", "sub")


@dataclass(frozen=True, slots=True)
class RoleRule:
    """How claims become a role: the values of `claim`, mapped; else `default`, which may be none at all."""

    claim: str = "roles"
    roles: Mapping[str, Role] = field(default_factory=lambda: {role.value: role for role in Role})
    default: Role | None = None

    def role_of(self, claims: Mapping[str, Any]) -> Role | None:
        """The highest role that the claims give."""
        value = claims.get(self.claim)
        values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        found = [self.roles[item] for item in values if isinstance(item, str) and item in self.roles]
        return max(found, key=list(Role).index) if found else self.default


class TokenJudge:
    """Tells who a signed token is from."""

    def __init__(self, issuer: Issuer, *, audience: str, rule: RoleRule, clock: Clock) -> None:
        self._issuer = issuer
        self._audience = audience
        self._rule = rule
        self._clock = clock

    async def principal_of(self, token: str, *, nonce: str | None = None) -> Principal | None:
        """Who the token is from, and what they may do; None for one that is not good enough.

        `nonce` must be in the token where it is given (a browser's login).
        """
        claims = await self._claims(token)
        if claims is None or (nonce is not None and claims.get("nonce") != nonce):
            return None
        role = self._rule.role_of(claims)
        name = next((claims[claim] for claim in _NAME_CLAIMS if isinstance(claims.get(claim), str)), None)
        if role is None or name is None:
            log.info("oidc_token_without_role", subject=claims.get("sub"), claim=self._rule.claim)
            return None
        return Principal(name, role)

    async def _claims(self, token: str) -> dict[str, Any] | None:
        if len(token) > _LONGEST_TOKEN:
            return None
        try:
            key_id = jws.extract_compact(token.encode()).headers().get("kid")
            decoded = await self._decoded(token, key_id)
            metadata = await self._issuer.metadata()
            registry = JWTClaimsRegistry(
                now=self._clock.now_ms() // 1000,
                leeway=_LEEWAY_SECONDS,
                iss={"essential": True, "value": metadata.issuer},
                aud={"essential": True, "value": self._audience},
                exp={"essential": True},
            )
            registry.validate(decoded.claims)
        except (JoseError, ValueError, TypeError) as error:
            log.info("oidc_token_refused", reason=type(error).__name__)
            return None
        except IssuerUnavailableError as error:
            log.warning("oidc_token_not_judged", reason=str(error))
            return None
        return dict(decoded.claims)

    async def _decoded(self, token: str, key_id: str | None) -> jwt.Token:
        try:
            return jwt.decode(token, await self._issuer.keys(), algorithms=_ALGORITHMS)
        except (JoseError, ValueError):
            # The issuer may have changed its keys since they were fetched.
            keys = await self._issuer.keys(without=key_id or "?")
            return jwt.decode(token, keys, algorithms=_ALGORITHMS)
