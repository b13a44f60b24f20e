"""Trying the workspace for real: what must work, and what its documents leave open.

Every check here makes the very calls that delivery makes, on an experiment of its own
(`mlproxy-doctor`), and leaves one deleted run behind. What was learned that is not documented by
Microsoft comes back as capabilities.
"""

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from socket import gaierror
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx

from server.domain.clock import Clock
from server.domain.entities import RunStatus
from server.domain.findings import Finding, Outcome
from server.upstream.artifacts import UpstreamArtifacts
from server.upstream.blobs import SasRefusedError
from server.upstream.connection import Connection
from server.upstream.credentials import CredentialError, TokenSource
from server.upstream.experiments import UpstreamExperiments
from server.upstream.failures import UpstreamFailure
from server.upstream.metrics import UpstreamMetrics
from server.upstream.runs import MARKER_TAG, NewRun, UpstreamMetric, UpstreamRuns

EXPERIMENT = "mlproxy-doctor"
_ROLE_ADVICE = (
    "Give the identity the role 'AzureML Data Scientist' on the workspace (it may take minutes to apply), and"
    " check that MLPROXY_WORKSPACE names the workspace you mean."
)
_STORAGE_ADVICE = (
    "The workspace lets us in, and its storage account does not: allow this machine's network in the"
    " account's firewall, or give it a private endpoint; no policy may forbid signed addresses (shared access"
    " signatures)."
)
_MOST_SKEW = timedelta(minutes=4)
_VISIBLE_WITHIN_SECONDS = 20.0
_ARTIFACT = "mlproxy/doctor.txt"


@dataclass(slots=True)
class WorkspaceProbes:
    """The checks of one workspace, in order; each depends on those before it."""

    connection: Connection
    tokens: TokenSource
    experiments: UpstreamExperiments
    runs: UpstreamRuns
    metrics: UpstreamMetrics
    artifacts: UpstreamArtifacts
    clock: Clock
    capabilities: dict[str, Any] = field(default_factory=dict)
    _run_id: str = field(default_factory=lambda: str(uuid4()))
    _experiment_id: str = ""
    _is_run_made: bool = False

    async def examine(self) -> AsyncIterator[Finding]:
        """All findings; after a failure what depends on it is not tried."""
        checks: list[tuple[str, Callable[[], Awaitable[Finding]]]] = [
            ("network", self._network),
            ("identity", self._identity),
            ("workspace", self._workspace),
            ("experiment", self._experiment),
            ("run", self._run),
            ("metrics", self._metrics),
            ("params", self._params),
            ("search", self._search),
            ("artifacts", self._artifacts),
            ("end of run", self._end),
        ]
        failed: str | None = None
        for name, check in checks:
            if failed is not None:
                yield Finding(name, Outcome.SKIPPED, f"not tried: '{failed}' failed")
                continue
            finding = await _guarded(name, check)
            yield finding
            # Files and metrics do not depend on each other.
            if finding.outcome is Outcome.FAILED and name not in ("metrics", "params", "search", "artifacts"):
                failed = name

    # --- reaching it ---

    async def _network(self) -> Finding:
        url = self.connection.address.host_url
        try:
            answer = await self.connection.http.get(url, timeout=15.0)
        except httpx.HTTPError as error:
            return Finding("network", Outcome.FAILED, _plain_words(error), _network_advice(error, url))
        skew = _skew(answer.headers.get("date"), self.clock.now_ms())
        if skew is not None and skew > _MOST_SKEW:
            return Finding(
                "network",
                Outcome.WARNING,
                f"{url} answers; this machine's clock differs from it by {skew.total_seconds():.0f} s",
                "Set this machine's clock (NTP): tokens are judged by time.",
            )
        return Finding("network", Outcome.OK, f"{url} answers")

    async def _identity(self) -> Finding:
        try:
            token = await self.tokens.token()
        except CredentialError as error:
            return Finding("identity", Outcome.FAILED, error.message, "See MLPROXY_CREDENTIAL.")
        ends = self.tokens.expires_at_ms or 0
        left = (ends - self.clock.now_ms()) / 1000
        return Finding("identity", Outcome.OK, f"{_shown_identity(token)}; token for {left:.0f} s")

    async def _workspace(self) -> Finding:
        await self.connection.mlflow(
            "POST",
            "experiments/search",
            json={"max_results": 1, "view_type": "ACTIVE_ONLY"},
            is_repeatable=True,
        )
        return Finding("workspace", Outcome.OK, "its experiments can be read")

    # --- writing ---

    async def _experiment(self) -> Finding:
        self._experiment_id = await self.experiments.create(EXPERIMENT)
        return Finding("experiment", Outcome.OK, f"'{EXPERIMENT}' is there ({self._experiment_id})")

    async def _run(self) -> Finding:
        now = self.clock.now_ms()
        run = NewRun(
            self._run_id, EXPERIMENT, self._experiment_id, "mlproxy doctor", now, tags={"mlproxy.doctor": "1"}
        )
        try:
            await self.runs.create_or_modify(run)
        except UpstreamFailure as failure:
            if not failure.is_definite_refusal:
                raise
            self.capabilities["own_run_ids"] = False
            self._run_id = await self.runs.create_with_marker(run, self._run_id)
            self._is_run_made = True
            return Finding(
                "run",
                Outcome.WARNING,
                f"made by runs/create; an id of our own was refused ({failure.message})",
                "Delivery works with marker tags instead: after a lost answer it waits longer.",
            )
        self._is_run_made = True
        seconds = await self._until(self._is_visible)
        self.capabilities["own_run_ids"] = seconds is not None
        if seconds is None:
            return Finding(
                "run",
                Outcome.FAILED,
                f"made under our id, and not shown by runs/get within {_VISIBLE_WITHIN_SECONDS:.0f} s",
                "Report this: the workspace behaves as none that is known.",
            )
        return Finding("run", Outcome.OK, f"made under an id of our own, visible after {seconds:.1f} s")

    async def _metrics(self) -> Finding:
        point = UpstreamMetric("doctor", 1.5, self.clock.now_ms(), 1)
        for _ in range(2):
            await self.runs.log_batch(self._run_id, [point], {}, {})
        shown = 0

        async def is_shown() -> bool:
            nonlocal shown
            shown = len([metric async for metric in self.metrics.history(self._run_id, "doctor")])
            return shown > 0

        seconds = await self._until(is_shown)
        if seconds is None:
            return Finding(
                "metrics",
                Outcome.WARNING,
                f"a point is not shown within {_VISIBLE_WITHIN_SECONDS:.0f} s",
                "Raise MLPROXY_SETTLE_SECONDS well beyond the time after which points show.",
            )
        repeated = "kept once" if shown == 1 else "kept twice"
        self.capabilities["repeated_points"] = repeated
        self.capabilities["point_lag_seconds"] = round(seconds, 1)
        return Finding(
            "metrics",
            Outcome.OK,
            f"a point shows after {seconds:.1f} s; the same sent twice is {repeated}",
        )

    async def _params(self) -> Finding:
        await self.runs.log_batch(self._run_id, [], {"doctor": "1"}, {})
        try:
            await self.runs.log_batch(self._run_id, [], {"doctor": "1"}, {})
        except UpstreamFailure as failure:
            if not failure.is_definite_refusal:
                raise
            self.capabilities["same_param_twice"] = "refused"
        else:
            self.capabilities["same_param_twice"] = "accepted"
        return Finding(
            "params", Outcome.OK, f"the same value sent twice is {self.capabilities['same_param_twice']}"
        )

    async def _search(self) -> Finding:
        marker = uuid4().hex
        await self.runs.log_batch(self._run_id, [], {}, {MARKER_TAG: marker})

        async def is_found() -> bool:
            return bool(await self.runs.find_by_marker(self._experiment_id, marker))

        seconds = await self._until(is_found)
        self.capabilities["search_lag_seconds"] = None if seconds is None else round(seconds, 1)
        if seconds is None:
            return Finding(
                "search",
                Outcome.WARNING,
                f"a tag is not found by search within {_VISIBLE_WITHIN_SECONDS:.0f} s",
                "Keep MLPROXY_MARKER_SETTLE_SECONDS high: a run that runs/create made is looked for by tag.",
            )
        return Finding("search", Outcome.OK, f"a new tag is found after {seconds:.1f} s")

    async def _artifacts(self) -> Finding:
        content = f"mlproxy doctor {uuid4()}".encode()
        target = await self.artifacts.register(EXPERIMENT, self._run_id, _ARTIFACT)
        self._note_signature(target.content_uri)
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        await self.artifacts.upload(EXPERIMENT, self._run_id, _ARTIFACT, content, len(content), md5)
        chunks = self.artifacts.open_read(EXPERIMENT, self._run_id, _ARTIFACT)
        read = b"".join([chunk async for chunk in chunks])
        if read != content:
            return Finding("artifacts", Outcome.FAILED, "a file reads back with other bytes than were sent")
        return Finding("artifacts", Outcome.OK, "a file was uploaded and reads back the same")

    def _note_signature(self, url: str) -> None:
        """What the write address allows and for how long; never the signature."""
        query = parse_qs(urlsplit(url).query)
        self.capabilities["write_address"] = {
            name: query[key][0]
            for key, name in (("sp", "permissions"), ("st", "from"), ("se", "until"), ("sv", "version"))
            if key in query
        }

    async def _end(self) -> Finding:
        await self.runs.update(self._run_id, RunStatus.FINISHED, self.clock.now_ms(), None)
        await self.runs.delete(self._run_id)
        return Finding("end of run", Outcome.OK, "the run was finished and deleted")

    # --- helpers ---

    async def _is_visible(self) -> bool:
        return await self.runs.find(self._run_id) is not None

    async def _until(self, holds: Callable[[], Awaitable[bool]]) -> float | None:
        """Seconds until it holds; None if it does not in good time."""
        started = self.clock.monotonic()
        while True:
            try:
                if await holds():
                    return self.clock.monotonic() - started
            except UpstreamFailure as failure:
                if not failure.is_missing:  # not there yet is what we wait for
                    raise
            if self.clock.monotonic() - started > _VISIBLE_WITHIN_SECONDS:
                return None
            await asyncio.sleep(0.5)


async def _guarded(name: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        return await check()
    except UpstreamFailure as failure:
        words = " ".join(f"{failure.code}: {failure.message}".split())
        return Finding(name, Outcome.FAILED, words, _advice_for(failure))


def _advice_for(failure: UpstreamFailure) -> str:
    if isinstance(failure, SasRefusedError):
        return _STORAGE_ADVICE
    match failure.status:
        case 401:
            return (
                "The workspace does not accept the token: the identity belongs to another tenant, or this"
                " machine's clock is wrong."
            )
        case 403:
            return _ROLE_ADVICE
        case 404:
            return "MLPROXY_WORKSPACE names something that is not there: compare it with the portal."
        case 429:
            return "The workspace throttles. Wait, and run this again."
        case None:
            return "The call did not reach the service: storage or workspace may be behind a firewall."
        case status if status >= 500:
            return "The service has trouble of its own: look at Azure's status page, and run this again."
    return ""


def _plain_words(error: httpx.HTTPError) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _network_advice(error: BaseException, url: str) -> str:
    host = urlsplit(url).hostname
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError():
                return (
                    "The certificate is not trusted here. Behind a proxy that opens TLS, set SSL_CERT_FILE to"
                    " a file with its certificate authority."
                )
            case gaierror():
                return (
                    f"The name {host} is not known: check MLPROXY_WORKSPACE, the DNS, the private endpoint."
                )
            case ConnectionRefusedError():
                return f"{host} refuses connections: check the address and the port."
            case httpx.ProxyError():
                return "The outbound proxy refuses: check HTTPS_PROXY and NO_PROXY."
            case httpx.TimeoutException():
                return f"No way to {host}: check firewalls, HTTPS_PROXY, the private endpoint."
            case _:
                if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                    return _network_advice(ssl.SSLCertVerificationError(), url)
                if "Name or service not known" in str(cause) or "name resolution" in str(cause):
                    return _network_advice(gaierror(), url)
        cause = cause.__cause__ or cause.__context__
    return f"Check that this machine may reach {host} (firewall, HTTPS_PROXY)."


def _skew(date: str | None, now_ms: int) -> timedelta | None:
    if date is None:
        return None
    try:
        there = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    return timedelta(seconds=abs(there - now_ms / 1000))


def _shown_identity(token: str) -> str:
    """Who the token is for, from its claims; the token itself is never shown."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return "a token was given"
    named = {"appid": "application", "oid": "object", "tid": "tenant"}
    shown = [f"{word} {claims[claim]}" for claim, word in named.items() if isinstance(claims.get(claim), str)]
    return ", ".join(shown) or "a token was given"
