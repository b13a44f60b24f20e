"""What logging a browser in is about, whoever vouches for the person."""

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from server.domain.access import Principal

LOGIN_LASTS_SECONDS = 600
"""How long a person may take at the identity provider."""


class LoginFailedError(Exception):
    """The browser could not be logged in; the message may be shown to the person."""


@dataclass(frozen=True, slots=True)
class Departure:
    """Where to send the browser, and the cookie that it must bring back."""

    url: str
    cookie: str


class ProviderLogin(Protocol):
    """Logging in over an identity provider, in two steps with the browser in between."""

    async def depart(self, target: str) -> Departure:
        """Begin; `target` is the path to come back to."""
        ...

    async def arrive(self, cookie: str | None, state: str, code: str) -> tuple[Principal, str]:
        """Who came back, and the path they wanted."""
        ...


def local_path(target: str) -> str:
    """`target` if it is a path of this server, else the first page: nobody is sent elsewhere from here."""
    parts = urlsplit(target)
    is_local = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.netloc
    return target if is_local and "\\" not in target and target.isprintable() else "/"
