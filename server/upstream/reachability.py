"""Whether the workspace answers us, for `status` and `doctor`."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter

from server.domain.verdicts import Verdict
from server.upstream.connection import Connection
from server.upstream.failures import UpstreamFailure

_PATIENCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Reachability:
    """What one small read told us. `message` is empty when all is well."""

    reachable: bool
    token_accepted: bool
    message: str
    seconds: float


async def check(connection: Connection) -> Reachability:
    """One small read of the workspace. It never raises `UpstreamFailure`."""
    started = perf_counter()
    body = {"max_results": 1, "view_type": "ACTIVE_ONLY"}
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await connection.mlflow("POST", "experiments/search", json=body, is_repeatable=True)
    except UpstreamFailure as failure:
        reachable = failure.status is not None and failure.status < HTTPStatus.INTERNAL_SERVER_ERROR
        return Reachability(
            reachable=reachable,
            token_accepted=reachable and failure.verdict is not Verdict.WAIT,
            message=str(failure),
            seconds=perf_counter() - started,
        )
    except TimeoutError:
        words = f"no answer within {_PATIENCE_SECONDS:.0f} s"
        return Reachability(False, False, words, perf_counter() - started)
    return Reachability(True, True, "", perf_counter() - started)
