"""Headers and cookies as ASGI has them."""

from collections.abc import Sequence

SESSION_COOKIE = "mlproxy_session"
LOGIN_COOKIE = "mlproxy_login"
_LONGEST = 4096

Headers = Sequence[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first header of that (lower case) name."""
    return next((value for key, value in headers if key == name), None)


def read_cookie(headers: Headers, name: str) -> str | None:
    """The value of one cookie; none where it is sent twice, since one of the two is not ours."""
    found: list[str] = []
    for key, value in headers:
        if key == b"cookie":
            for part in value.decode("latin-1").split(";"):
                given, _, content = part.strip().partition("=")
                if given == name and len(content) <= _LONGEST:
                    found.append(content)
    return found[0] if len(found) == 1 else None


def make_cookie(name: str, value: str, *, path: str, is_secure: bool, seconds: int) -> str:
    """A cookie that scripts cannot read and other sites' pages cannot send along; 0 seconds takes it away."""
    secure = "; Secure" if is_secure else ""
    return f"{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
