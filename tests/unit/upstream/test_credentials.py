"""Tokens: one renewal at a time, ahead of the end, with a pause after a failure."""

import asyncio
import sys
from datetime import timedelta

import pytest

from server.domain.verdicts import Verdict
from server.upstream import credentials
from server.upstream.credentials import CredentialError, CredentialKind, TokenSource

pytestmark = pytest.mark.asyncio
HOUR = 3600


async def settled(tokens: TokenSource, expected_renewals, identity) -> None:
    """Wait until a background renewal has ended."""
    async with asyncio.timeout(120):
        while identity.closed < expected_renewals or tokens._renewal is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_fifty_first_callers_share_one_fetch(tokens, identity) -> None:
    """However many ask at once, the identity is asked once."""
    identity.gate.clear()
    waiting = [asyncio.create_task(tokens.token()) for _ in range(50)]
    await asyncio.sleep(0.02)
    identity.gate.set()
    assert await asyncio.gather(*waiting) == ["token-1"] * 50
    assert identity.opened == 1


async def test_fifty_refusals_share_one_renewal(tokens, identity) -> None:
    """Fifty calls that meet a 401 with the same token lead to one fetch and get the same new token."""
    refused = await tokens.token()
    identity.gate.clear()
    waiting = [asyncio.create_task(tokens.renew(refused)) for _ in range(50)]
    await asyncio.sleep(0.02)
    identity.gate.set()
    assert await asyncio.gather(*waiting) == ["token-2"] * 50
    assert await tokens.renew(refused) == "token-2"
    assert identity.opened == 2


async def test_a_cancelled_waiter_does_not_cancel_the_renewal(tokens, identity) -> None:
    """One caller going away leaves the fetch to the others."""
    identity.gate.clear()
    first, second = (asyncio.create_task(tokens.token()) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    identity.gate.set()
    assert await second == "token-1"
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize(
    ("lifetime", "renew_after"), [(HOUR, HOUR - 300), (600, 480), (24 * HOUR, 24 * HOUR - 300)]
)
async def test_a_token_is_renewed_ahead_of_its_end_while_it_still_serves(
    tokens, identity, clock, lifetime: int, renew_after: int
) -> None:
    """At 5 minutes or a fifth of its life before the end, the old token serves while a new one is fetched."""
    identity.lifetime_seconds = lifetime
    assert await tokens.token() == "token-1"
    clock.seconds += renew_after - 1
    assert await tokens.token() == "token-1"
    assert identity.opened == 1
    clock.seconds += 1
    identity.gate.clear()
    assert [await tokens.token() for _ in range(50)] == ["token-1"] * 50
    identity.gate.set()
    await settled(tokens, 2, identity)
    assert await tokens.token() == "token-2"
    assert identity.opened == 2
    assert tokens.expires_at_ms == (int(clock.seconds) + lifetime) * 1000


async def test_a_failed_background_renewal_leaves_the_old_token_serving(tokens, identity, clock) -> None:
    """Until its end a token serves, and the failure shows."""
    await tokens.token()
    clock.seconds += HOUR - 100
    identity.error = RuntimeError("no answer")
    assert await tokens.token() == "token-1"
    await settled(tokens, 2, identity)
    assert await tokens.token() == "token-1"
    assert (identity.opened, tokens.failures, tokens.last_error) == (2, 1, "no answer")


async def test_an_ended_token_is_not_given(tokens, identity, clock) -> None:
    """A caller after the end waits for a new token."""
    await tokens.token()
    clock.seconds += HOUR
    assert await tokens.token() == "token-2"


async def test_failures_pause_twice_as_long_each_up_to_a_minute(tokens, identity, clock) -> None:
    """In the pause callers are refused at once; after it the identity is asked again."""
    identity.error = RuntimeError("nobody home")
    pauses = []
    for tries in range(1, 9):
        with pytest.raises(CredentialError) as caught:
            await tokens.token()
        assert identity.opened == tries
        assert caught.value.verdict is Verdict.WAIT
        pauses.append(caught.value.retry_after)
        with pytest.raises(CredentialError):
            await tokens.token()
        assert identity.opened == tries
        clock.seconds += caught.value.retry_after.total_seconds()
    assert pauses == [timedelta(seconds=seconds) for seconds in (1, 2, 4, 8, 16, 32, 60, 60)]
    identity.error = None
    assert await tokens.token() == "token-9"
    assert (tokens.failures, tokens.last_error) == (0, None)


async def test_a_failure_advises_without_secrets(tokens, identity) -> None:
    """The operator reads what to check, never a secret that the identity quoted."""
    identity.error = RuntimeError("bad client_secret=CANARY for eyJhbGciCANARY.e30.x")
    with pytest.raises(CredentialError) as caught:
        await tokens.token()
    assert "AZURE_CLIENT_ID" in str(caught.value)
    assert "CANARY" not in str(caught.value) + str(tokens.last_error)


async def test_an_identity_that_keeps_giving_the_refused_token_is_asked_with_pauses(
    tokens, identity, clock
) -> None:
    """The same token again is a failure that pauses, and after the pause it may serve."""
    identity.always_gives = "stale"
    refused = await tokens.token()
    with pytest.raises(CredentialError, match="refuses the token"):
        await tokens.renew(refused)
    for _ in range(50):
        with pytest.raises(CredentialError):
            await tokens.renew(refused)
    assert (identity.opened, tokens.failures) == (2, 1)
    clock.seconds += 1
    assert await tokens.token() == "stale"
    identity.always_gives = None
    clock.seconds += 60
    assert await tokens.renew("stale") == f"token-{identity.opened}"
    assert tokens.failures == 0


async def test_each_renewal_opens_and_closes_a_credential_of_its_own(tokens, identity) -> None:
    """What azure-identity has cached cannot come back, and no connection stays open."""
    await tokens.renew(await tokens.token())
    assert (identity.opened, identity.closed) == (2, 2)


async def test_a_fetch_that_hangs_ends_in_a_failure(
    tokens, identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identity endpoint that never answers does not hold callers for ever."""
    monkeypatch.setattr(credentials, "FETCH_TIMEOUT_SECONDS", 0.05)
    identity.gate.clear()
    with pytest.raises(CredentialError, match="no answer within"):
        await tokens.token()
    identity.gate.set()


@pytest.mark.parametrize("kind", list(CredentialKind))
async def test_every_kind_opens_a_real_credential_that_asks_nobody(
    kind: CredentialKind, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    """Each kind is an azure-identity credential, and none of them opens a browser."""
    token_file = tmp_path / "token"
    token_file.write_text("x")
    for name, value in {
        "AZURE_TENANT_ID": "00000000-0000-0000-0000-000000000001",
        "AZURE_CLIENT_ID": "00000000-0000-0000-0000-000000000002",
        "AZURE_CLIENT_SECRET": "x",
        "AZURE_FEDERATED_TOKEN_FILE": str(token_file),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AZURE_TOKEN_CREDENTIALS", raising=False)
    credential = credentials.open_azure_credential(kind)
    members = {type(member).__name__ for member in getattr(credential, "credentials", [credential])}
    assert not members & {
        "InteractiveBrowserCredential",
        "DeviceCodeCredential",
        "BrokerCredential",
        "VisualStudioCodeCredential",
        "SharedTokenCacheCredential",
    }
    credential.close()


async def test_azure_is_not_imported_before_a_token_is_wanted() -> None:
    """Importing the package costs neither the time nor the memory of Azure's libraries."""
    code = (
        "import sys, server.upstream.artifacts, server.upstream.credentials, server.upstream.workspace;"
        "sys.exit(any(name.split('.')[0] in ('azure', 'msal', 'requests') for name in sys.modules))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0
