"""The guards that the promises rest on, and how each is turned off.

A mutation is a few small replacements in the code; what it replaces must be there exactly once. The tests it
names must notice: at least one of them goes red.
"""

from dataclasses import dataclass
from pathlib import Path


class PatternError(Exception):
    """The code has changed: what a mutation replaces is not there exactly once."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement in one file."""

    file: str
    old: str
    new: str

    def apply(self, tree: Path) -> None:
        """Make it below `tree`.

        Raises:
            PatternError: it cannot be made, or not in one place only.
        """
        path = tree / self.file
        text = path.read_text()
        if (count := text.count(self.old)) != 1:
            raise PatternError(f"{self.file}: {count} times instead of once: {self.old!r}")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Mutation:
    """One guard turned off, and the tests that must notice."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


D = "tests/durability/"

MUTATIONS = (
    Mutation(
        "a commit is not flushed",
        (
            Edit("server/database/engine.py", "PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL"),
            Edit("server/database/engine.py", "_SQLITE_FULL = 2", "_SQLITE_FULL = 1"),
        ),
        (f"{D}test_power_loss.py::test_after_every_answer",),
    ),
    Mutation(
        "a spooled file is not flushed",
        (Edit("server/spool/spool.py", "            os.fsync(self._descriptor)\n", ""),),
        (f"{D}test_power_loss.py::test_after_every_answer",),
    ),
    Mutation(
        "a spooled file's folder is not flushed",
        (Edit("server/spool/spool.py", "            flush_folder(self._folder)\n", ""),),
        (f"{D}test_power_loss.py::test_after_every_answer",),
    ),
    Mutation(
        "clients are answered before the commit",
        (
            Edit(
                "server/commit/writer.py",
                '                failpoints.reach("commit.before")\n',
                "                if self._loop is not None:\n"
                "                    self._loop.call_soon_threadsafe(self._answer, list(outcomes), set())\n"
                "                    time.sleep(0.05)\n"
                '                failpoints.reach("commit.before")\n',
            ),
        ),
        (f"{D}test_crash_points.py::test_killed_at[sqlite: commit.before: set tag]",),
    ),
    Mutation(
        "a failed group fails all its requests",
        (
            Edit(
                "server/commit/writer.py",
                '            log.warning("group_rolled_back", jobs=len(group), error=type(error).__name__)\n',
                "            failed = _as_request_error(error)\n"
                "            return [_Outcome(waiting, error=failed) for waiting in group], set()\n",
            ),
        ),
        ("tests/integration/tracking/test_group_commit.py",),
    ),
    Mutation(
        "nothing is read back before it is sent again",
        (
            Edit(
                "server/replay/read_back.py",
                "missing = await delivery.find_missing(lane, batch, contents)",
                "missing = contents",
            ),
        ),
        (f"{D}test_faults.py::test_a_fault_leaves_no_trace[log-batch: answer lost]",),
    ),
    Mutation(
        "absence is believed at once",
        (
            Edit(
                "server/replay/read_back.py",
                "return batch.empty_reads >= EMPTY_READS_NEEDED and lasted >= settle",
                "return bool(lasted) or True",
            ),
        ),
        (f"{D}test_search_lag.py",),
    ),
    Mutation(
        "what is about to be sent is not written down as sent",
        (
            Edit(
                "server/journal/batches.py",
                "(lease.lane.lane_id, first, last, BatchState.SENT.value, lease.epoch, transaction.now_ms)",
                "(lease.lane.lane_id, first, last, BatchState.FIXED.value, lease.epoch, transaction.now_ms)",
            ),
        ),
        (f"{D}test_crash_points.py::test_killed_at[sqlite: send.after: log batch]",),
    ),
    Mutation(
        "a result is taken without its lease",
        (
            Edit(
                "server/journal/leases.py",
                "lease_epoch = lease_epoch{prolong} WHERE lane_id = ? AND lease_token = ?",
                "lease_epoch = lease_epoch{prolong} WHERE lane_id = ? AND ? <> ''",
            ),
        ),
        (f"{D}test_lost_lease.py",),
    ),
    Mutation(
        "positions are given out without the lane's lock",
        (
            Edit(
                "server/journal/lanes.py",
                'suffix = " ORDER BY lane_id FOR UPDATE" if transaction.is_postgres else ""',
                'suffix = ""',
            ),
            Edit(
                "server/commit/run_state.py",
                '    " ORDER BY lane_id FOR UPDATE"\n',
                '    " ORDER BY lane_id"\n',
            ),
        ),
        (f"{D}postgres/test_two_replicas.py",),
    ),
    Mutation(
        "a run's end does not wait for its files",
        (
            Edit(
                "server/commit/run_writes.py",
                "    append(update, awaits_end_of=[run.artifact_lane] if ends else [])\n",
                "    append(update)\n",
            ),
        ),
        (f"{D}test_large_artifacts.py::test_metrics_overtake_a_big_upload",),
    ),
    Mutation(
        "a model version does not wait for its files",
        (
            Edit(
                "server/services/registry.py",
                "    _deliver(transaction, model, operation, principal, awaits=awaits, awaits_end_of=ends)\n",
                "    _deliver(transaction, model, operation, principal, awaits=awaits)\n",
            ),
        ),
        (f"{D}test_scenarios.py::test_a_model_version_whose_files_are_still_on_their_way",),
    ),
    Mutation(
        "a child does not wait for its parent",
        (
            Edit(
                "server/services/run_creates.py",
                "            awaits = [*awaits, Awaited(parent.data_lane, _CREATE_POSITION)]\n",
                "            pass\n",
            ),
        ),
        (f"{D}test_scenarios.py::test_a_child_acknowledged_before_its_parent_is_delivered",),
    ),
    Mutation(
        "a refused batch is parked as a whole",
        (
            Edit(
                "server/replay/attempts.py",
                "        if division.to_send.count == 1:\n",
                "        if division.to_send.count:\n",
            ),
        ),
        (f"{D}test_refusals.py::test_only_what_is_refused_is_parked",),
    ),
    Mutation(
        "an earlier value of a tag is sent again after a later one",
        (
            Edit(
                "server/replay/deliveries/runs.py",
                "or last[entry.operation.key] is entry",
                "or last[entry.operation.key] is not None",
            ),
        ),
        (f"{D}test_faults.py::test_a_fault_leaves_no_trace[log-batch: answer lost]",),
    ),
    Mutation(
        "an upload is believed without size and MD5",
        (
            Edit(
                "server/upstream/artifacts.py",
                "        stored = await self.info(experiment, run_id, path)\n        if stored != wanted:\n",
                "        stored = None\n        if stored == wanted:\n",
            ),
        ),
        (f"{D}test_artifact_faults.py::test_storage_says_that_it_has_it_and_has_not",),
    ),
    Mutation(
        "a journal row's checksum is not looked at",
        (
            Edit(
                "server/journal/codec.py",
                'if payload[1:_BODY_START] != zlib.crc32(body, _kind_checksums[kind]).to_bytes(4, "big"):',
                "if not payload[1:_BODY_START]:",
            ),
        ),
        (f"{D}test_parked.py::test_a_corrupt_row_is_parked_and_the_rest_goes_on", "tests/unit/journal"),
    ),
    Mutation(
        "Retry-After is not heeded",
        (
            Edit(
                "server/upstream/failures.py",
                "    return min(timedelta(seconds=min(seconds, 1e6)), LONGEST_RETRY_AFTER)\n",
                "    return None\n",
            ),
        ),
        (f"{D}test_throttling.py::test_until_a_date", f"{D}test_faults.py::test_retry_after_is_obeyed"),
    ),
    Mutation(
        "Retry-After is heeded without a limit",
        (
            Edit(
                "server/upstream/failures.py",
                "    return min(timedelta(seconds=min(seconds, 1e6)), LONGEST_RETRY_AFTER)\n",
                "    return timedelta(seconds=min(seconds, 1e6))\n",
            ),
        ),
        (f"{D}test_throttling.py::test_an_absurd_time_is_capped",),
    ),
    Mutation(
        "a workspace in trouble is asked by everyone",
        (
            Edit(
                "server/replay/gate.py",
                "self._closed_until = now + _BACKOFF.delay(self._failures, self._jitter).total_seconds()",
                "self._closed_until = now",
            ),
            Edit(
                "server/replay/gate.py",
                "        if self._failures:\n            if self._clock",
                "        if False:\n            if self._clock",
            ),
        ),
        (f"{D}test_fair_share.py::test_a_workspace_that_is_away_is_asked_by_one_at_a_time",),
    ),
    Mutation(
        "a call may last for ever",
        (
            Edit(
                "server/upstream/channel.py",
                "async with asyncio.timeout(self._patience_seconds):",
                "async with asyncio.timeout(None):",
            ),
        ),
        (f"{D}test_slow_answers.py::test_a_body_that_never_ends",),
    ),
    Mutation(
        "half of a batch overtakes the other",
        (Edit("server/journal/batches.py", "    if behind:\n", "    if behind and not behind:\n"),),
        (f"{D}test_halving.py::test_an_interruption_between_the_halves",),
    ),
    Mutation(
        "damaged points are sent",
        (
            Edit(
                "server/journal/blocks.py",
                "return packed[:_CHECKSUM_BYTES] == _checksum(lane_id, first, body)",
                "return body is not None",
            ),
        ),
        (f"{D}test_parked.py::test_a_corrupt_row_is_parked_and_the_rest_goes_on",),
    ),
    Mutation(
        "a remembered run is believed whoever wrote to it since",
        (
            Edit(
                "server/commit/run_state.py",
                "if positions.get(held.run.data_lane) == held.position\n",
                "if held.run.data_lane in positions\n",
            ),
        ),
        ("tests/integration/test_remembered_runs.py",),
    ),
)
