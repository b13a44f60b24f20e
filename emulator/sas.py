"""Shared access signatures: who may do what to which blob, until when.

The query has the fields of a real one [I]; the signature is ours, over the blob's name and those fields.
"""

import base64
import hashlib
import hmac
import secrets
import time
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from emulator.errors import StorageError
from emulator.store import Store

BACKDATED_SECONDS = 600  # [I] a quoted one started ten minutes early
DENIED = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed"
    " correctly including the signature."
)


class SharedAccess:
    """Signs and checks; the key lives in the store."""

    def __init__(self, store: Store) -> None:
        key = store.find_fact("sas_key") or secrets.token_hex(32)
        store.put_fact("sas_key", key)
        self._key = bytes.fromhex(key)

    def query(self, name: str, *, permissions: str, seconds: float) -> str:
        """A signed query string."""
        now = time.time()
        fields = {
            "sv": "2019-07-07",
            "sr": "b",
            "st": _stamp(now - BACKDATED_SECONDS),
            "se": _stamp(now + seconds),
            "sp": permissions,
        }
        return urlencode(fields | {"sig": self._signature(name, fields)})

    def check(self, name: str, query: QueryParams, *, any_of: str) -> None:
        """Raises storage's 403 unless the query allows one of the permissions on this blob now."""
        fields = {field: query.get(field, "") for field in ("sv", "sr", "st", "se", "sp")}
        if not hmac.compare_digest(query.get("sig", "").encode(), self._signature(name, fields).encode()):
            raise StorageError(403, "AuthenticationFailed", DENIED)
        if datetime.fromisoformat(fields["se"]).timestamp() <= time.time():
            detail = f"Signature not valid in the specified time frame: Expiry [{fields['se']}]"
            raise StorageError(403, "AuthenticationFailed", f"{DENIED} {detail}")
        if not set(any_of) & set(fields["sp"]):
            raise StorageError(
                403,
                "AuthorizationPermissionMismatch",
                "This request is not authorized to perform this operation using this permission.",
            )

    def _signature(self, name: str, fields: dict[str, str]) -> str:
        text = "\n".join([name, *fields.values()])
        return base64.b64encode(hmac.new(self._key, text.encode(), hashlib.sha256).digest()).decode()


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
