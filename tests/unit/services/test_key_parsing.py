"""Keys in Authorization headers: what is read as one, and who it lets in."""

import asyncio
import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.access import Permission, Principal, Role
from server.services.keys import Credential, OpenAuthenticator, _parse

_KEY = "mlp_0123456789ab_se-cr_et"
_PARTS = Credential("0123456789ab", "se-cr_et")


def _basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


@pytest.mark.parametrize(
    "header",
    [
        f"Bearer {_KEY}".encode(),
        f"bearer  {_KEY} ".encode(),
        _basic(f"anyone:{_KEY}"),
        _basic(f":{_KEY}"),
        b"BASIC " + base64.b64encode(f"x:{_KEY}".encode()),
    ],
)
def test_a_key_is_read_from_bearer_and_from_basic(header: bytes) -> None:
    """Whatever the user name, the password is the key; a secret may hold underscores."""
    assert _parse(header) == _PARTS


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer mlp_abc",
        b"Bearer xyz_0123456789ab_secret",
        b"Digest " + _KEY.encode(),
        _KEY.encode(),
        b"Basic ###",
        b"Basic \x80",
        _basic("x:mlp_\0_secret"),
        b"Bearer mlp_0123456789AB_secret",
        _basic("no colon"),
        b"Basic " + base64.b64encode(b"\xff\xfe:" + _KEY.encode()),
    ],
)
def test_what_is_no_key_is_not_read_as_one(header: bytes) -> None:
    """Everything else is nobody."""
    assert _parse(header) is None


@given(st.binary(max_size=80))
def test_any_header_is_a_key_or_nobody(header: bytes) -> None:
    """No header makes the reading fail."""
    _parse(header)
    _parse(b"Basic " + header)
    _parse(b"Bearer " + header)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.READ, {Permission.PUBLIC, Permission.READ}),
        (Role.WRITE, {Permission.PUBLIC, Permission.READ, Permission.WRITE}),
        (Role.ADMIN, set(Permission)),
    ],
)
def test_each_role_may_do_what_those_below_it_may(role: Role, allowed: set[Permission]) -> None:
    """read, write, admin."""
    assert {permission for permission in Permission if Principal("x", role).may(permission)} == allowed


def test_with_access_control_off_everyone_is_an_administrator() -> None:
    """Nobody in particular, with every right."""
    assert asyncio.run(OpenAuthenticator().principal_of(None)) == Principal(None, Role.ADMIN)
