"""The file of MLPROXY_ADMIN_KEY_FILE: what is taken as a key, and what is refused without being told."""

from pathlib import Path

import pytest

from server.services.keys import parse_key
from server.services.mounted_key import MountedKeyError, read_mounted_key

_SECRET = "q7Hf0Jx2vTn8LpWc4RzYbK1sMd6EuGiA9oX3yBt5NwQ"
_WEAK = "abababababababababababababababababababababab"


@pytest.mark.parametrize(
    "content",
    [
        _SECRET,
        f"{_SECRET}\n",
        f"  {_SECRET}=\r\n",
        f"mlp_0123456789ab_{_SECRET}",
        "0123456789abcdef" * 4,
    ],
    ids=["plain", "line end", "padded", "as printed", "hexadecimal"],
)
def test_a_secret_of_256_bits_is_taken(tmp_path: Path, content: str) -> None:
    """With or without a line end, as random text or as a key that was made here."""
    file = tmp_path / "key"
    file.write_text(content)
    assert read_mounted_key(file) == parse_key(content.strip())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (_SECRET[:-1].encode(), "shorter than 43"),
        (b"mlp_0123456789ab_" + _SECRET[:-1].encode(), "shorter than 43"),
        (_WEAK.encode(), "guessed"),
        (b"mlp_0123456789ab_" + b"a" * 43, "guessed"),
        (f"{_SECRET} {_SECRET}".encode(), "more than letters"),
        (f"{_SECRET}.{_SECRET}".encode(), "more than letters"),
        (_SECRET.encode() + b"\xff", "more than letters"),
        (_SECRET.encode() * 100, "too large"),
    ],
    ids=[
        "empty",
        "blank",
        "short",
        "short as printed",
        "two letters",
        "one letter",
        "words",
        "dots",
        "bytes",
        "large",
    ],
)
def test_anything_else_is_refused_with_advice(tmp_path: Path, content: bytes, problem: str) -> None:
    """The message names the file and the way to make a key, and never what the file holds."""
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(MountedKeyError, match=problem) as caught:
        read_mounted_key(file)
    assert "openssl rand" in str(caught.value)
    assert str(file) in str(caught.value)
    assert len(content) < 3 or content.decode("latin-1").strip() not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A secret that was not mounted is told from one that is wrong."""
    with pytest.raises(MountedKeyError, match=r"nothing-here cannot be read: No such file"):
        read_mounted_key(tmp_path / "nothing-here")
