"""What the workspace holds of a run in its overflow files."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from server.domain.overflow_files import OverflowKind, OverflowLine, decode_line, number_of_path
from server.upstream.artifacts import UpstreamArtifacts

OverflowPoint = tuple[int, int, float | None]
"""Step, timestamp in milliseconds, value; None for NaN, which does not equal itself."""


@dataclass(slots=True)
class OverflowContents:
    """The values in a run's overflow files. Of a tag that is in them several times, the last.

    `files` are their paths with the number of values in each, `faults` what in them is not a value of ours.
    """

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: dict[str, Counter[OverflowPoint]] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, line: OverflowLine) -> None:
        """Take in one value."""
        match line.kind:
            case OverflowKind.METRIC:
                value = float(line.value)
                point = (line.step or 0, line.timestamp_ms, None if math.isnan(value) else value)
                self.points.setdefault(line.key, Counter())[point] += 1
            case OverflowKind.PARAM:
                self.params[line.key] = str(line.value)
            case OverflowKind.TAG:
                self.tags[line.key] = str(line.value)


async def read_overflow(
    artifacts: UpstreamArtifacts, experiment: str, run_id: str, paths: Iterable[str] | None = None
) -> OverflowContents:
    """What the run's overflow files hold; `paths` are all its artifacts, where they are known already.

    Raises:
        UpstreamFailure: the workspace cannot be read.
    """
    if paths is None:
        paths = await artifacts.list_paths(experiment, run_id)
    numbers = {path: number for path in paths if (number := number_of_path(path)) is not None}
    contents = OverflowContents()
    for path in sorted(numbers, key=lambda path: numbers[path]):
        chunks = [chunk async for chunk in artifacts.open_read(experiment, run_id, path)]
        contents.files[path] = 0
        for text in b"".join(chunks).splitlines():
            try:
                contents.add(decode_line(text))
            except ValueError as error:
                contents.faults.append(f"{path}: {error}")
            else:
                contents.files[path] += 1
    return contents
