"""A Dockerfile as a list of stages, in the little of its language that ours uses.

An instruction that is not known here is refused: what the check cannot do, it must not pass over.
"""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

_KNOWN = {
    "FROM", "ENV", "WORKDIR", "RUN", "COPY", "LABEL", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
    "ENTRYPOINT", "CMD",
}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined."""

    name: str
    arguments: str

    @property
    def words(self) -> list[str]:
        """Its arguments as a shell would split them."""
        return shlex.split(self.arguments)

    @property
    def exec_form(self) -> list[str]:
        """The command of one that is written as a JSON list."""
        found = re.search(r"\[.*\]$", self.arguments, flags=re.DOTALL)
        if found is None:
            raise ValueError(f"{self.name} is not in exec form: {self.arguments}")
        return [str(word) for word in json.loads(found[0])]

    @property
    def from_stage(self) -> str | None:
        """The stage that a COPY takes from; None for the build context."""
        found = re.match(r"--from=(\S+)", self.arguments)
        return found[1] if found else None


@dataclass
class Stage:
    """What begins with a FROM."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, name: str) -> Instruction:
        """The one that holds: a later one replaces an earlier one."""
        return [one for one in self.instructions if one.name == name][-1]


def read_stages(dockerfile: Path) -> list[Stage]:
    """All stages, in order.

    Raises:
        ValueError: it has an instruction that is not known here.
    """
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, arguments = line.partition(" ")
        if name not in _KNOWN:
            raise ValueError(f"{dockerfile} has {name}, which this check does not know")
        if name == "FROM":
            base, _, alias = arguments.partition(" AS ")
            stages.append(Stage(alias, base))
        else:
            stages[-1].instructions.append(Instruction(name, arguments.strip()))
    return stages
