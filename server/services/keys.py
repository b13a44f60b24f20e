"""API keys: made, listed, revoked, and checked on every request.

A key is `mlp_<prefix>_<secret>`: 48 bits to find it by and 256 bits of secret, of which only the
SHA-256 is stored. (A fast hash is right for a secret that cannot be guessed.)
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.access import Principal, Role
from server.domain.clock import Clock
from server.domain.errors import already_exists, does_not_exist, invalid_parameter
from server.protocol import limits
from server.store import api_keys
from server.store.api_keys import ApiKey

_PREFIX_BYTES = 6
_SECRET_BYTES = 32
_PREFIX = re.compile(r"[0-9a-f]{12}")
_BELIEVED_SECONDS = 5.0
_LARGEST_CACHE = 10_000
_TOUCH_EVERY_MS = 60_000
_MILLISECONDS_PER_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key in clear: shown once."""

    name: str
    role: Role
    key: str


class Keys:
    """Manages keys."""

    def __init__(self, *, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def create(self, name: str, role: Role, expires_in_days: int | None = None) -> NewKey:
        """Make a key. Its secret cannot be had again."""
        if not name.strip():
            raise invalid_parameter("A key needs a name.")
        limits.check_text("name", name)
        limits.check_length("name", limits.ENTITY_KEY, name)
        prefix = secrets.token_hex(_PREFIX_BYTES)
        secret = secrets.token_urlsafe(_SECRET_BYTES)

        def apply(transaction: Transaction) -> None:
            if any(key.name == name for key in api_keys.list_all(transaction)):
                raise already_exists(f"There is a key named '{name}' already.")
            expires = None
            if expires_in_days is not None:
                expires = transaction.now_ms + expires_in_days * _MILLISECONDS_PER_DAY
            api_keys.insert(
                transaction,
                name=name,
                prefix=prefix,
                secret_hash=_hash(secret),
                role=role,
                expires_at_ms=expires,
            )

        await self._writer.commit(Work(apply, alone=True))
        return NewKey(name, role, f"mlp_{prefix}_{secret}")

    async def list(self) -> list[ApiKey]:
        """Every key, without secrets."""
        return await self._database.read(api_keys.list_all)

    async def revoke(self, name: str) -> None:
        """Close a key for good."""

        def apply(transaction: Transaction) -> None:
            if not api_keys.revoke(transaction, name):
                raise does_not_exist(f"There is no open key named '{name}'.")

        await self._writer.commit(Work(apply, alone=True))


class KeyAuthenticator:
    """Finds out who a request is from by its API key, sent as Bearer token or Basic password.

    An answer is believed for five seconds, so that a busy client does not cost a query a call;
    a revoked key is closed everywhere within that time, and at once in this process.
    """

    def __init__(self, *, database: Database, writer: Writer, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._believed: dict[bytes, tuple[float, Principal | None]] = {}

    def forget(self) -> None:
        """Ask the database again for every key."""
        self._believed.clear()

    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        """Who the credential belongs to, or None."""
        if not authorization:
            return None
        digest = hashlib.sha256(authorization).digest()
        believed = self._believed.get(digest)
        now = self._clock.monotonic()
        if believed is not None and now < believed[0]:
            return believed[1]
        principal = await self._look_up(authorization)
        if len(self._believed) >= _LARGEST_CACHE:
            self._believed.clear()
        self._believed[digest] = (now + _BELIEVED_SECONDS, principal)
        return principal

    async def _look_up(self, authorization: bytes) -> Principal | None:
        parts = _parse(authorization)
        if parts is None:
            return None
        prefix, secret = parts
        key = await self._database.read(lambda transaction: api_keys.find_by_prefix(transaction, prefix))
        expected = key.secret_hash if key is not None else bytes(hashlib.sha256().digest_size)
        matches = hmac.compare_digest(expected, _hash(secret))
        now_ms = self._clock.now_ms()
        if key is None or not matches or not key.is_valid(now_ms):
            return None
        if key.last_used_ms is None or now_ms - key.last_used_ms > _TOUCH_EVERY_MS:
            key_id = key.key_id
            await self._writer.commit(
                Work(lambda transaction: api_keys.touch(transaction, key_id)), background=True
            )
        return Principal(key.name, key.role, key_id=key.key_id)


class OpenAuthenticator:
    """Access control is off: everyone may do everything. Only ever on loopback."""

    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        """Nobody in particular, with every right."""
        return Principal(None, Role.ADMIN)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _parse(authorization: bytes) -> tuple[str, str] | None:
    """Prefix and secret of the key in an Authorization header."""
    scheme, _, credential = authorization.decode("latin-1").partition(" ")
    key = credential.strip()
    if scheme.lower() == "basic":
        try:
            _, _, key = base64.b64decode(key, validate=True).decode().partition(":")
        except ValueError:  # not base64, or not text
            return None
    elif scheme.lower() != "bearer":
        return None
    parts = key.split("_", 2)
    if len(parts) != 3 or parts[0] != "mlp" or not _PREFIX.fullmatch(parts[1]):
        return None
    return parts[1], parts[2]
