"""What is left in the workspace of runs that are gone here. Every call is harmless to repeat."""

from server.domain.operations import PurgeRun
from server.upstream.artifacts import UpstreamArtifacts
from server.upstream.failures import UpstreamFailure
from server.upstream.runs import UpstreamRuns


class Purges:
    """Removes a run's files, and deletes the run as far as the workspace can."""

    def __init__(self, *, runs: UpstreamRuns, artifacts: UpstreamArtifacts) -> None:
        self._runs = runs
        self._artifacts = artifacts

    async def send(self, purge: PurgeRun) -> None:
        """Remove it; what is gone already is fine.

        Raises:
            UpstreamFailure: the workspace cannot, or will not.
        """
        for path in purge.upstream_paths:
            await self._artifacts.delete(purge.upstream_run_id, path)
        if not purge.deletes_run:
            return
        try:
            await self._runs.delete(purge.upstream_run_id)
        except UpstreamFailure as failure:
            if not failure.is_missing:
                raise
