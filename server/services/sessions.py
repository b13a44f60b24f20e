"""Browser logins: a random cookie instead of a key in every request."""

import hashlib
import secrets
from datetime import timedelta

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.access import Principal
from server.domain.clock import Clock
from server.store import sessions
from server.store.sessions import Session

LIFETIME = timedelta(hours=12)
_TOKEN_BYTES = 32
_BELIEVED_SECONDS = 5.0
_LARGEST_CACHE = 10_000


class Sessions:
    """Opens, finds and closes logins. An answer is believed for five seconds, as a key's is."""

    def __init__(self, *, database: Database, writer: Writer, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._believed: dict[bytes, tuple[float, Principal | None]] = {}

    async def open(self, principal: Principal) -> str:
        """A new login; the cookie's value, which cannot be had again."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        expires = self._clock.now_ms() + int(LIFETIME.total_seconds() * 1000)
        session = Session(principal.name, principal.role, expires)

        def apply(transaction: Transaction) -> None:
            sessions.delete_expired(transaction)
            sessions.insert(transaction, _hash(token), session, key_id=principal.key_id)

        await self._writer.commit(Work(apply))
        return token

    async def principal_of(self, token: str) -> Principal | None:
        """Whose login this is, while it and the key behind it hold."""
        digest = _hash(token)
        believed = self._believed.get(digest)
        now = self._clock.monotonic()
        if believed is not None and now < believed[0]:
            return believed[1]
        now_ms = self._clock.now_ms()
        session = await self._database.read(
            lambda transaction: sessions.find_valid(transaction, digest, now_ms)
        )
        principal = None
        if session is not None:
            principal = Principal(
                session.principal, session.role, is_session=True, experiments=session.experiments
            )
        if len(self._believed) >= _LARGEST_CACHE:
            self._believed.clear()
        self._believed[digest] = (now + _BELIEVED_SECONDS, principal)
        return principal

    async def close(self, token: str) -> None:
        """End a login, at once in this process and within seconds elsewhere."""
        digest = _hash(token)
        self._believed.pop(digest, None)
        await self._writer.commit(Work(lambda transaction: sessions.delete(transaction, digest)))

    def forget(self) -> None:
        """Ask the database again for every login: a key was revoked."""
        self._believed.clear()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
