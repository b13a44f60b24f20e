"""API keys: made, listed, revoked, and checked on every request.

A key is `mlp_<prefix>_<secret>`: 48 bits to find it by and 256 bits of secret, of which only the
SHA-256 is stored. (A fast hash is right for a secret that cannot be guessed.)
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.access import Principal, Role
from server.domain.clock import Clock
from server.domain.errors import already_exists, does_not_exist, invalid_parameter
from server.domain.name_patterns import NamePatterns
from server.protocol import limits
from server.store import api_keys
from server.store.api_keys import ApiKey

_PREFIX_BYTES = 6
_SECRET_BYTES = 32
_PREFIX = re.compile(r"[0-9a-f]{12}")
_MOUNTED = re.compile(r"[A-Za-z0-9+/=_~-]{43,}")
LEAST_SECRET_LENGTH = 43
"""Characters of base64 that 256 bits take."""
MOUNTED_NAME = "mounted-admin-key"
"""The name of the key that comes from a file; no other key can have it."""
_BELIEVED_SECONDS = 5.0
_LARGEST_CACHE = 10_000
_TOUCH_EVERY_MS = 60_000
_MILLISECONDS_PER_DAY = 86_400_000
_MOST_PATTERNS = 100
_MOST_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Credential:
    """A key in clear, taken apart: what it is found by, and what must be right."""

    prefix: str
    secret: str = field(repr=False)

    @property
    def secret_hash(self) -> bytes:
        """What the server keeps of the secret."""
        return _hash(self.secret)


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

    async def create(
        self,
        name: str,
        role: Role,
        expires_in_days: int | None = None,
        experiments: Sequence[str] = (),
    ) -> NewKey:
        """Make a key, limited to experiments whose names match one of the patterns, if there are any.

        Its secret cannot be had again.

        Raises:
            MlflowError: the name is taken, or a pattern is not one, or would limit an admin.
        """
        if not name.strip():
            raise invalid_parameter("A key needs a name.")
        if name == MOUNTED_NAME:
            raise invalid_parameter(f"The name '{MOUNTED_NAME}' is kept for MLPROXY_ADMIN_KEY_FILE.")
        limits.check_text("name", name)
        limits.check_length("name", limits.ENTITY_KEY, name)
        if expires_in_days is not None and not 1 <= expires_in_days <= _MOST_DAYS:
            raise invalid_parameter(f"A key lasts from 1 to {_MOST_DAYS} days, or for ever.")
        limited_to = _checked_patterns(role, experiments)
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
                experiments=limited_to,
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
        credential = _parse(authorization)
        if credential is None:
            return None
        prefix = credential.prefix
        key = await self._database.read(lambda transaction: api_keys.find_by_prefix(transaction, prefix))
        expected = key.secret_hash if key is not None else bytes(hashlib.sha256().digest_size)
        matches = hmac.compare_digest(expected, credential.secret_hash)
        now_ms = self._clock.now_ms()
        if key is None or not matches or not key.is_valid(now_ms):
            return None
        if key.last_used_ms is None or now_ms - key.last_used_ms > _TOUCH_EVERY_MS:
            key_id = key.key_id
            await self._writer.commit(
                Work(lambda transaction: api_keys.touch(transaction, key_id)), background=True
            )
        return Principal(key.name, key.role, key_id=key.key_id, experiments=key.experiments)


class OpenAuthenticator:
    """Access control is off: everyone may do everything. Only ever on loopback."""

    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        """Nobody in particular, with every right."""
        return Principal(None, Role.ADMIN)


def _checked_patterns(role: Role, patterns: Sequence[str]) -> NamePatterns | None:
    if not patterns:
        return None
    if role is Role.ADMIN:
        raise invalid_parameter(
            "An admin key cannot be limited to experiments: it could make itself another."
        )
    if len(patterns) > _MOST_PATTERNS:
        raise invalid_parameter(f"A key can have {_MOST_PATTERNS} patterns of experiments at most.")
    for pattern in patterns:
        limits.check_text("experiments", pattern)
        limits.check_length("experiments", limits.EXPERIMENT_NAME, pattern)
        if not pattern.strip():
            raise invalid_parameter("A pattern of experiments must not be empty.")
    return NamePatterns(tuple(dict.fromkeys(patterns)))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def parse_key(text: str) -> Credential | None:
    """A key as it was printed, or a secret from a file; None where it can be neither.

    A secret from a file has no prefix: what it is found by is a part of another hash of it.
    """
    parts = text.split("_", 2)
    if len(parts) == 3 and parts[0] == "mlp" and _PREFIX.fullmatch(parts[1]):
        return Credential(parts[1], parts[2])
    if not _MOUNTED.fullmatch(text):
        return None
    prefix = hashlib.sha256(b"prefix of " + text.encode()).hexdigest()[: 2 * _PREFIX_BYTES]
    return Credential(prefix, text)


def _parse(authorization: bytes) -> Credential | None:
    """The key in an Authorization header."""
    scheme, _, credential = authorization.decode("latin-1").partition(" ")
    key = credential.strip()
    if scheme.lower() == "basic":
        try:
            _, _, key = base64.b64decode(key, validate=True).decode().partition(":")
        except ValueError:  # not base64, or not text
            return None
    elif scheme.lower() != "bearer":
        return None
    return parse_key(key)
