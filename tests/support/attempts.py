"""Claims about how soon something happens, on a machine that may stand still for seconds.

Such a claim is about what the code does when it gets to run. So it is tried again when it does not hold: a
defect makes every attempt fail, a moment in which the machine had other things to do does not.
"""

from collections.abc import Awaitable, Callable

ATTEMPTS = 5


def quickest(measure: Callable[[], float], *, under: float) -> float:
    """The least of some measurements in seconds; no more are made once one is below `under`."""
    found: list[float] = []
    while len(found) < ATTEMPTS and min(found, default=under) >= under:
        found.append(measure())
    return min(found)


async def quickest_of(measure: Callable[[], Awaitable[float]], *, under: float) -> float:
    """The same of what is awaited."""
    found: list[float] = []
    while len(found) < ATTEMPTS and min(found, default=under) >= under:
        found.append(await measure())
    return min(found)
