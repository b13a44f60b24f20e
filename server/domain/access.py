"""Who is asking, and what a route asks of them."""

import pwd
from dataclasses import dataclass
from enum import StrEnum

from server.domain.name_patterns import NamePatterns


class Role(StrEnum):
    """What a key may do; each role includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class Permission(StrEnum):
    """What a route asks for. A route that declares none is closed."""

    PUBLIC = "public"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request is from. `name` is None where access control is off.

    `key_id` is set for an API key. `is_session` says that a browser vouches for them with a cookie, which
    it also sends along when a page of another site makes it ask. `experiments` limits them to some; none:
    every experiment is open.
    """

    name: str | None
    role: Role
    key_id: int | None = None
    is_session: bool = False
    experiments: NamePatterns | None = None

    def may(self, permission: Permission) -> bool:
        """Whether the route is open to them."""
        return permission in _OPEN_TO[self.role]


_OPEN_TO = {
    role: frozenset(
        permission
        for permission in Permission
        if permission is Permission.PUBLIC or role.includes(Role(permission.value))
    )
    for role in Role
}
"""What each role may do: asked with every request."""


def user_name(user_id: int) -> str:
    """The name of a user of this machine; the number where there is no name."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"user {user_id}"
