"""Settings: what is read, what is refused, what is on by default."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from server.settings import AuthKind, Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def _no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("MLPROXY_"):
            monkeypatch.delenv(name)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable named MLPROXY_… sets the setting of that name."""
    monkeypatch.setenv("MLPROXY_PORT", "1234")
    monkeypatch.setenv("MLPROXY_DATA_DIR", "/somewhere")
    settings = load_settings()
    assert (settings.port, settings.data_dir) == (1234, Path("/somewhere"))


def test_what_the_command_line_says_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """An override that is given stands above the environment; one that is None does not."""
    monkeypatch.setenv("MLPROXY_PORT", "1234")
    monkeypatch.setenv("MLPROXY_HOST", "127.0.0.2")
    settings = load_settings(port=99, host=None)
    assert (settings.port, settings.host) == (99, "127.0.0.2")


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MLPROXY_WORKSPACE=` in a compose file means none."""
    monkeypatch.setenv("MLPROXY_WORKSPACE", "")
    assert load_settings().workspace is None


def test_an_unknown_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error does not pass silently."""
    monkeypatch.setenv("MLPROXY_WORKSPAC", "azureml://x")
    with pytest.raises(SettingsError, match="Unknown setting MLPROXY_WORKSPAC"):
        load_settings()


@pytest.mark.parametrize("name", ["MLPROXY_TEST_DATABASE_URL", "MLPROXY_DEMO_X"])
def test_variables_of_the_test_suite_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Names kept for what is around the server are no settings."""
    monkeypatch.setenv(name, "1")
    load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "x"),
        ("AUTH", "maybe"),
        ("ROLE", "x"),
        ("MAX_SPOOL_BYTES", "1"),
        ("LOG_LEVEL", "x"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The refusal names the variable."""
    monkeypatch.setenv(f"MLPROXY_{name}", value)
    with pytest.raises(SettingsError, match=f"MLPROXY_{name}"):
        load_settings()


def test_settings_cannot_be_changed() -> None:
    """They are read once."""
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", AuthKind.OFF),
        ("127.9.9.9", AuthKind.OFF),
        ("localhost", AuthKind.OFF),
        ("::1", AuthKind.OFF),
        ("0.0.0.0", AuthKind.KEYS),
        ("::", AuthKind.KEYS),
        ("10.0.0.1", AuthKind.KEYS),
        ("proxy.example", AuthKind.KEYS),
        ("localhost.evil.example", AuthKind.KEYS),
    ],
)
def test_keys_are_wanted_beyond_loopback(host: str, expected: AuthKind) -> None:
    """Access control is off by default only where nobody else can reach."""
    assert Settings(host=host).effective_auth is expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "proxy.example"])
def test_switching_it_off_beyond_loopback_is_refused(host: str) -> None:
    """Only `MLPROXY_INSECURE` lets anyone in."""
    with pytest.raises(SettingsError, match="MLPROXY_INSECURE"):
        _ = Settings(host=host, auth=AuthKind.OFF).effective_auth
    assert Settings(host=host, auth=AuthKind.OFF, insecure=True).effective_auth is AuthKind.OFF


def test_allowed_hosts_replace_the_default() -> None:
    """Names are taken as given, in lower case; without any, the bound address and this machine."""
    assert Settings(allowed_hosts="A.example, b , ").host_names == {"a.example", "b"}
    assert {"10.0.0.1", "localhost", "127.0.0.1"} <= Settings(host="10.0.0.1").host_names


def test_the_database_is_a_file_in_the_data_folder_by_default() -> None:
    """Without a URL it is SQLite beside the rest of the data."""
    assert Settings(data_dir=Path("/d")).url == "sqlite:////d/mlproxy.db"
    assert Settings(database_url="postgresql://h/d").url == "postgresql://h/d"
