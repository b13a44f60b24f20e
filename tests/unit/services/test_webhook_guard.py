"""Where a webhook may lead: the corpus of addresses and URLs that must never be reached."""

import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest

from emulator.certificates import ensure_certificates
from server.webhooks.guard import Guard, RefusedTargetError, UnresolvedTargetError, is_public
from server.webhooks.outbound import FailedRequestError, Outbound
from tests.support.receiver import Receiver

_NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.0.1",
    "168.63.129.16",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "100::1",
    "5f00::1",
]
_PUBLIC = ["1.1.1.1", "20.50.2.1", "168.63.129.17", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]
_BAD_URLS = [
    "",
    "hooks.example",
    "http://hooks.example/",
    "ftp://hooks.example/",
    "file:///etc/passwd",
    "gopher://hooks.example/",
    "javascript:alert(1)",
    "https://",
    "https:///path",
    "https://user@hooks.example/",
    "https://user:password@hooks.example/",
    "https://hooks.example\\@127.0.0.1/",
    "https://hooks.example /",
    "https://hooks.example/\r\nX-Injected: 1",
    "https://hooks.example:99999/",
    "https://[::1/",
    "https://hööks.example/",
]
# Spellings of loopback and of the metadata address that the system's resolver understands.
_NUMERIC_HOSTS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "localhost",
    "localhost.",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "168.63.129.16",
    "10.1.2.3",
    "[fd00::1]",
    "[64:ff9b::a9fe:a9fe]",
    "0",
]


class Resolver:
    """Answers from a list, each answer once; the last one for good."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize("text", _NOT_PUBLIC)
def test_addresses_inside(text: str) -> None:
    """No address of a private, local, reserved or transitional range counts as public."""
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", _PUBLIC)
def test_addresses_outside(text: str) -> None:
    """Addresses of the public internet are public, also where IPv6 wraps them."""
    assert is_public(ip_address(text))


@pytest.mark.parametrize("url", _BAD_URLS)
def test_urls_refused_by_form(url: str) -> None:
    """Other schemes, user names, and what parsers could read in two ways are refused unresolved."""
    with pytest.raises(RefusedTargetError):
        Guard(listed=frozenset()).parse(url)


@pytest.mark.parametrize("host", _NUMERIC_HOSTS)
@pytest.mark.asyncio
async def test_hosts_that_lead_inside(host: str) -> None:
    """However loopback, metadata and private addresses are spelled, the real resolver's answer is refused."""
    guard = Guard(listed=frozenset())
    with pytest.raises((RefusedTargetError, UnresolvedTargetError)):
        await guard.find_addresses(guard.parse(f"https://{host}/"))


@pytest.mark.asyncio
async def test_one_bad_address_is_enough() -> None:
    """A host is refused when any of its addresses is not public."""
    guard = Guard(listed=frozenset(), resolve=Resolver(["1.1.1.1", "10.0.0.1"]))
    with pytest.raises(RefusedTargetError):
        await guard.find_addresses(guard.parse("https://hooks.example/"))


@pytest.mark.asyncio
async def test_listed_hosts() -> None:
    """A listed host may be private and plain, but never be cloud metadata."""
    listed = frozenset({"hooks.example", "10.0.0.9:8080", "::1"})
    guard = Guard(listed=listed, resolve=Resolver(["10.0.0.1"]))
    assert await guard.find_addresses(guard.parse("http://HOOKS.example:1234/x")) == ["10.0.0.1"]
    assert guard.parse("http://10.0.0.9:8080/").is_listed
    assert guard.parse("http://[::1]:5/").is_listed
    with pytest.raises(RefusedTargetError):
        guard.parse("http://10.0.0.9:8081/")
    with pytest.raises(RefusedTargetError):
        guard.parse("http://evil.hooks.example/")
    for address in ("169.254.169.254", "168.63.129.16", "0.0.0.0", "224.0.0.1", "::ffff:169.254.169.254"):
        guard = Guard(listed=listed, resolve=Resolver([address]))
        with pytest.raises(RefusedTargetError):
            await guard.find_addresses(guard.parse("https://hooks.example/"))


@pytest.mark.asyncio
async def test_the_judged_address_is_the_one_called() -> None:
    """The request goes to the address that was judged, under the name, without asking the resolver again."""
    with Receiver() as receiver:
        resolver = Resolver(["127.0.0.1"], ["192.0.2.1"])
        outbound = Outbound(guard=Guard(listed=frozenset({"hooks.example"}), resolve=resolver))
        url = f"http://hooks.example:{receiver.port}/x?y=1"
        reply = await outbound.post(url, b"{}", {"Content-Type": "application/json"})
        assert (reply.status, reply.body) == (200, "ok")
        assert resolver.asked == [("hooks.example", receiver.port)]
        assert receiver.received[0].headers["host"] == f"hooks.example:{receiver.port}"
        assert receiver.received[0].path == "/x?y=1"
        await outbound.aclose()


@pytest.mark.asyncio
async def test_a_name_that_changes_its_address() -> None:
    """A host that was public when it was set and is private when it is called gets nothing."""
    with Receiver() as receiver:
        resolver = Resolver(["1.1.1.1"], ["127.0.0.1"])
        outbound = Outbound(guard=Guard(listed=frozenset(), resolve=resolver))
        url = f"https://hooks.example:{receiver.port}/"
        await outbound.check(url)
        with pytest.raises(RefusedTargetError):
            await outbound.post(url, b"{}", {})
        assert receiver.received == []


@pytest.mark.asyncio
async def test_certificates_are_checked_against_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the address is called, the certificate must be of the name in the URL."""
    ca, certificate, key = ensure_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Receiver(certificate=context) as receiver:
        listed = frozenset({"localhost", "other.example"})
        outbound = Outbound(guard=Guard(listed=listed, resolve=Resolver(["127.0.0.1"])))
        assert (await outbound.post(f"https://localhost:{receiver.port}/", b"{}", {})).status == 200
        with pytest.raises(FailedRequestError):
            await outbound.post(f"https://other.example:{receiver.port}/", b"{}", {})
        await outbound.aclose()


@pytest.mark.asyncio
async def test_redirects_are_not_followed() -> None:
    """A redirect is an answer like any other, and no success."""
    with Receiver() as receiver:
        outbound = Outbound(guard=Guard(listed=frozenset({"127.0.0.1"})))
        reply = await outbound.post(f"{receiver.url}/redirect", b"{}", {})
        assert (reply.status, reply.is_success) == (302, False)
        assert [request.path for request in receiver.received] == ["/redirect"]
        await outbound.aclose()
