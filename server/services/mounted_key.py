"""The admin key that an operator mounts as a file, so that a server can be set up without a shell on it.

The file holds the secret; as of every key, the server keeps a hash. The key changes with the file, at the
next start, and what the one before has opened is closed then.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Transaction
from server.domain.access import Role
from server.domain.errors import OperatorError
from server.services.keys import LEAST_SECRET_LENGTH, MOUNTED_NAME, Credential, parse_key
from server.store import api_keys, sessions

log = structlog.get_logger(__name__)

_LARGEST_FILE_BYTES = 4096
_LEAST_DIFFERENT = 12
"""Of 43 characters that were drawn at random, fewer are practically never different."""
_ADVICE = "Make one with: openssl rand -base64 32"


class MountedKeyError(OperatorError):
    """The file of MLPROXY_ADMIN_KEY_FILE holds no key that may be used. Its content is never told."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    is_new: bool
    is_revoked: bool


def read_mounted_key(path: Path) -> Credential:
    """The key in a file: one that `mlproxy keys create` has printed, or any secret of 256 bits.

    Raises:
        MountedKeyError: the file cannot be read, or what it holds is too short, or plainly not random.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise MountedKeyError(f"MLPROXY_ADMIN_KEY_FILE: {path} cannot be read: {error.strerror}.") from error
    try:
        text = content.decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise MountedKeyError(_told(path, "holds more than letters, digits and +/=_-~")) from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise MountedKeyError(_told(path, "is too large for a key"))
    if not text:
        raise MountedKeyError(_told(path, "is empty"))
    credential = parse_key(text)
    if credential is None:
        is_plain = re.fullmatch(r"[A-Za-z0-9+/=_~-]+", text)
        problem = (
            "is shorter than 43 characters" if is_plain else "holds more than letters, digits and +/=_-~"
        )
        raise MountedKeyError(_told(path, problem))
    if len(credential.secret) < LEAST_SECRET_LENGTH:
        raise MountedKeyError(_told(path, "holds a secret shorter than 43 characters"))
    if len(set(credential.secret)) < _LEAST_DIFFERENT:
        raise MountedKeyError(_told(path, "holds a secret that can be guessed"))
    return credential


def _told(path: Path, problem: str) -> str:
    return f"MLPROXY_ADMIN_KEY_FILE: {path} {problem}. {_ADVICE}"


async def install_mounted_key(writer: Writer, credential: Credential) -> None:
    """Make the key valid, in place of the one that was mounted before.

    One that was revoked stays revoked until the file holds another.

    Raises:
        MountedKeyError: it is a key that has been made already, under a name of its own.
    """

    def apply(transaction: Transaction) -> _Outcome:
        taken = api_keys.find_by_prefix(transaction, credential.prefix)
        if taken is not None and taken.name != MOUNTED_NAME:
            raise MountedKeyError(
                f"MLPROXY_ADMIN_KEY_FILE holds the key named '{taken.name}': mount one of its own. {_ADVICE}"
            )
        if taken is not None and taken.secret_hash == credential.secret_hash:
            return _Outcome(is_new=False, is_revoked=taken.revoked_at_ms is not None)
        before = api_keys.find_by_name(transaction, MOUNTED_NAME)
        if before is not None:
            sessions.delete_of_key(transaction, before.key_id)
            api_keys.delete(transaction, before.key_id)
        api_keys.insert(
            transaction,
            name=MOUNTED_NAME,
            prefix=credential.prefix,
            secret_hash=credential.secret_hash,
            role=Role.ADMIN,
            expires_at_ms=None,
        )
        return _Outcome(is_new=True, is_revoked=False)

    outcome = await writer.commit(Work(apply, alone=True, raises=(MountedKeyError,)))
    if outcome.is_revoked:
        log.warning("mounted_key_revoked", advice="Mount another key, or unset MLPROXY_ADMIN_KEY_FILE.")
    elif outcome.is_new:
        log.info("mounted_key_installed", name=MOUNTED_NAME, prefix=credential.prefix, audit=True)
