"""Who is asking, and what a route asks of them."""

from dataclasses import dataclass
from enum import StrEnum


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
    """Who a request is from. `name` is None where access control is off."""

    name: str | None
    role: Role

    def may(self, permission: Permission) -> bool:
        """Whether the route is open to them."""
        return permission is Permission.PUBLIC or self.role.includes(Role(permission.value))
