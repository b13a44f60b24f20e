"""Links from a run's page to the same run in Azure ML studio.

A link is shown as a tag. It is made when the run is looked at in the UI: it is not stored, not delivered,
and a client that reads the run over the API sees only the tags that clients set.
"""

from collections.abc import Callable

import msgspec

from server.database.engine import Database
from server.protocol.experiments import TagMessage
from server.protocol.runs import RunMessage
from server.store import upstream_ids

STUDIO_TAG = "mlproxy.studioUrl"


class StudioLinks:
    """Knows where runs are shown in the workspace. Without `url_of` there are no links."""

    def __init__(self, *, database: Database, url_of: Callable[[str], str] | None) -> None:
        self._database = database
        self._url_of = url_of

    async def linked(self, run: RunMessage) -> RunMessage:
        """The run with the link among its tags, once the workspace has the run."""
        if self._url_of is None or any(tag.key == STUDIO_TAG for tag in run.data.tags):
            return run
        ids = await self._database.read(
            lambda transaction: upstream_ids.find_run_by_id(transaction, run.info.run_id)
        )
        if ids is None or ids.upstream_id is None:
            return run
        tags = [*run.data.tags, TagMessage(STUDIO_TAG, self._url_of(ids.upstream_id))]
        return msgspec.structs.replace(run, data=msgspec.structs.replace(run.data, tags=tags))
