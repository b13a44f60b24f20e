"""The container files fit the project they run: what no linter can know.

hadolint, in `make lint`, knows the rest of what a Dockerfile has to be.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
SETTINGS = {f"MLPROXY_{name}".upper() for name in Settings.model_fields}


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of that name, in order."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", joined, flags=re.MULTILINE)


def test_image_has_a_build_stage_and_a_runtime_stage() -> None:
    """What only building needs stays out of the image."""
    stages = [line.split()[-1] for line in instructions("FROM")]
    assert len(stages) == 2
    assert any(f"--from={stages[0]} " in line for line in instructions("COPY"))


def test_image_runs_as_an_unprivileged_user() -> None:
    """The process in the container is not root, and says so by number."""
    assert instructions("USER") == ["10001:10001"]


def test_image_starts_the_server_and_watches_it() -> None:
    """The image serves when run without arguments, and its health is checked."""
    assert instructions("ENTRYPOINT") == ['["mlproxy"]']
    assert instructions("CMD") == ['["serve"]']
    assert len(instructions("HEALTHCHECK")) == 1


def test_image_sets_only_settings_that_exist() -> None:
    """A misspelt setting would keep the server from starting."""
    assert set(re.findall(r"\bMLPROXY_\w+", DOCKERFILE)) <= SETTINGS


def test_everything_copied_exists_and_is_let_in() -> None:
    """Every source of a COPY is in the repository and not kept out by .dockerignore."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [line.split()[:-1] for line in instructions("COPY") if not line.startswith("--from=")]
    sources = {source for copied in copies for source in copied}
    assert sources == allowed
    assert [source for source in sorted(sources) if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("image", [line.split()[0] for line in instructions("FROM")])
def test_base_images_are_pinned(image: str) -> None:
    """A base image names its full version."""
    assert re.search(r":\d+\.\d+\.\d+", image)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_images_are_pinned(name: str) -> None:
    """No service follows a moving tag."""
    assert re.search(r":\d+\.\d+", SERVICES[name]["image"])


@pytest.mark.parametrize("name", OURS)
def test_service_is_confined(name: str) -> None:
    """Our containers have no capability and write only to their volume and /tmp."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == ["/tmp"]
    assert [volume.partition(":")[2] for volume in service["volumes"]] == ["/data"]


@pytest.mark.parametrize("name", OURS)
def test_service_uses_settings_that_exist(name: str) -> None:
    """What the services set is spelt as the server spells it."""
    used = {variable for variable in SERVICES[name].get("environment", {}) if variable.startswith("MLPROXY_")}
    assert used <= SETTINGS


@pytest.mark.parametrize("name", sorted(name for name in OURS if name.startswith("proxy")))
def test_proxy_asks_for_keys(name: str) -> None:
    """No proxy is open to whoever reaches its port."""
    assert SERVICES[name]["environment"]["MLPROXY_AUTH"] == "keys"


def test_ports_are_published_on_loopback_by_default() -> None:
    """Nothing can be reached from outside unless the operator says so, and no two ports collide."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    addresses = [re.fullmatch(r"\$\{\w+:-(127\.0\.0\.1:\d+)\}:\d+", port) for port in ports]
    assert all(addresses)
    assert len({address[1] for address in addresses if address}) == len(ports)


def test_profiles_hold_what_the_comments_promise() -> None:
    """Without a profile one proxy starts; each profile adds a proxy and what it needs."""
    by_profile: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for profile in service.get("profiles", [""]):
            by_profile.setdefault(profile, set()).add(name)
    assert by_profile == {
        "": {"proxy"},
        "postgres": {"proxy-postgres", "postgres"},
        "emulator": {"proxy-emulator", "emulator", "azurite"},
        "replicas": {"proxy-one", "proxy-two", "nginx", "postgres"},
    }


def test_replicas_are_reached_through_nginx_only() -> None:
    """What trusts any forwarded address publishes no port, and nginx knows every replica by name."""
    replicas = [name for name, service in SERVICES.items() if service.get("profiles") == ["replicas"]]
    trusting = [
        name
        for name in replicas
        if SERVICES[name].get("environment", {}).get("MLPROXY_TRUSTED_PROXIES") == "*"
    ]
    assert [name for name in trusting if "ports" in SERVICES[name]] == []
    named = re.findall(r"server ([\w-]+):5000", (ROOT / "deploy" / "nginx" / "nginx.conf").read_text())
    assert sorted(named) == sorted(trusting)


def test_environment_example_names_what_is_read() -> None:
    """Every variable of the example is handed on or used by the compose file."""
    example = (ROOT / "deploy" / "compose" / "env.example").read_text()
    compose = (ROOT / "docker-compose.yml").read_text()
    names = re.findall(r"^# ([A-Z][A-Z_]+)=", example, flags=re.MULTILINE)
    assert names
    assert [name for name in names if not re.search(rf"\b{name}\b", compose)] == []
