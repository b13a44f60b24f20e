"""Artifact names: what is refused, what is kept as it is, and what a path can mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.errors import ErrorCode, MlflowError
from server.protocol.artifacts import (
    LONGEST_PATH,
    ArtifactAddress,
    checked_folder,
    checked_path,
    possible_addresses,
    prefix_of_uri,
)
from server.protocol.direct_artifacts import file_name_of

REFUSED = [
    "",
    None,
    "/",
    "/etc/passwd",
    "//host/share",
    "a//b",
    "a/",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "a/../../b",
    ".",
    "./a",
    "a/./b",
    "a/.",
    "%2e%2e",
    "%2E%2e/a",
    "a/%2e%2e/b",
    "a/.%2e/b",
    "%2e%2e%2fa",
    "a%2f..%2f..%2fb",
    "%252e%252e%252fa",
    "%25252e%25252e/a",
    "%2fetc/passwd",
    "%5c..%5ca",
    "a%00b",
    "..\\a",
    "a\\b",
    "\\\\host\\share",
    "a\\..\\b",
    "C:",
    "C:/a",
    "c:\\a",
    "a/C:/b",
    "C%3a/a",
    "a#/../../b",
    "a?/../b",
    "#/../a",
    "a\0b",
    "a\nb",
    "a\n",
    "a\r\nX: y",
    "a\x7fb",
    "a\x1bb",
    "a\ud800",
    "a" * (LONGEST_PATH + 1),
    "%" + "25" * 60 + "2e.",
]

KEPT = [
    "a",
    "model/MLmodel",
    "a b/c d.txt",
    "räksmörgås/日本語/😀.txt",
    "100%.txt",
    "50%25",
    "%",
    "%zz",
    "a%20b",
    "images/loss%step%0%timestamp%1700000000000%z1b3fe0d-7bde.png",
    "a#b.txt",
    "#",
    "a?b.txt",
    "a+b&c=d;e.txt",
    "...",
    "..a",
    "a..",
    "a/...b/c",
    ".hidden",
    "a:b.txt",
    "1:2/c",
    "CC:/a",
    "~",
    "a'\"<>|*.txt",
    "a" * LONGEST_PATH,
]


@pytest.mark.parametrize("path", REFUSED)
def test_a_name_that_could_lead_elsewhere_is_refused(path: str | None) -> None:
    """Traversal in any spelling, and what no file can be called, ends in MLflow's own error."""
    with pytest.raises(MlflowError) as caught:
        checked_path(path)
    assert caught.value.code is ErrorCode.INVALID_PARAMETER_VALUE
    assert caught.value.status == 400
    assert caught.value.message == "Invalid path"


@pytest.mark.parametrize("path", KEPT)
def test_an_unusual_name_is_kept_as_it_is(path: str) -> None:
    """A name is never decoded, cut or otherwise changed."""
    assert checked_path(path) == path


@given(st.text(alphabet=st.sampled_from("./\\%25eE2fFcC:#?a\0"), max_size=24))
def test_whatever_is_accepted_stays_in_its_folder(path: str) -> None:
    """No accepted name has a segment that leaves its folder, however often somebody decodes it."""
    from urllib.parse import unquote

    try:
        accepted = checked_path(path)
    except MlflowError:
        return
    for _ in range(len(accepted) + 1):
        parts = accepted.replace("\\", "/").split("/")
        assert not accepted.startswith("/")
        assert ".." not in parts
        assert "." not in parts
        assert "\\" not in accepted
        accepted = unquote(accepted)


@pytest.mark.parametrize("path", [None, ""])
def test_no_folder_is_the_outermost_one(path: str | None) -> None:
    """A listing without a path is that of the root."""
    assert checked_folder(path) == ""


def test_a_folder_may_end_in_a_slash() -> None:
    """Logged models name their folder so."""
    assert checked_folder("1/models/m-1/artifacts/") == "1/models/m-1/artifacts"


@pytest.mark.parametrize("path", ["/", "a//", "../", "a/../", "."])
def test_a_folder_follows_the_rules_of_a_file(path: str) -> None:
    """The trailing slash is the only thing a folder's name may have that a file's may not."""
    with pytest.raises(MlflowError):
        checked_folder(path)


def test_a_run_shaped_path_can_be_a_runs() -> None:
    """The segment before `artifacts` is the id of the owner; the common folder is always possible."""
    assert possible_addresses("1/abc/artifacts/model/MLmodel") == [
        ArtifactAddress("1/abc/artifacts", "model/MLmodel", "abc"),
        ArtifactAddress("", "1/abc/artifacts/model/MLmodel", None),
    ]


def test_a_custom_location_may_hold_any_segments() -> None:
    """Where the location holds `artifacts` itself, every reading is offered, the outermost first."""
    addresses = possible_addresses("x/artifacts/y/abc/artifacts/f")
    assert [(address.prefix, address.owner_id) for address in addresses] == [
        ("x/artifacts", "x"),
        ("x/artifacts/y/abc/artifacts", "abc"),
        ("", None),
    ]


def test_a_folder_itself_has_an_empty_path() -> None:
    """A run's root is addressed like anything in it."""
    assert possible_addresses("1/abc/artifacts")[0] == ArtifactAddress("1/abc/artifacts", "", "abc")


def test_a_leading_artifacts_segment_owns_nothing() -> None:
    """There is no id before it."""
    assert possible_addresses("artifacts/f") == [ArtifactAddress("", "artifacts/f", None)]


def test_the_readings_of_a_path_are_bounded() -> None:
    """A hostile path does not cost a look-up for each of its segments."""
    assert len(possible_addresses("/".join(["artifacts"] * 400))) < 20


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("mlflow-artifacts:/1/abc/artifacts", "1/abc/artifacts"),
        ("mlflow-artifacts:/1/models/m-1/artifacts/", "1/models/m-1/artifacts"),
        ("mlflow-artifacts://host:5000/some/where", "some/where"),
        ("mlflow-artifacts:/some//where", "some/where"),
        ("mlflow-artifacts:/", ""),
        ("s3://bucket/1/abc/artifacts", None),
        ("/tmp/1", None),
        ("mlflow-artifacts", None),
    ],
)
def test_a_uri_names_a_folder_here_or_nothing(uri: str, prefix: str | None) -> None:
    """Only `mlflow-artifacts:` URIs lead to this server."""
    assert prefix_of_uri(uri) == prefix


@pytest.mark.parametrize(
    ("local_path", "name"),
    [
        ("/home/ann/model.bin", "model.bin"),
        ("model.bin", "model.bin"),
        ("C:\\Users\\Ann\\model.bin", "model.bin"),
        ("c:/Users/Ann/model.bin", "model.bin"),
        ("\\\\server\\share\\out\\model.bin", "model.bin"),
        ("out/a\\b.bin", "a\\b.bin"),
        ("/", ""),
    ],
)
def test_a_files_name_is_known_whatever_system_it_is_on(local_path: str, name: str) -> None:
    """The last part of a path, as the client's own system splits it."""
    assert file_name_of(local_path) == name
