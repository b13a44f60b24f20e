"""Building an image's file system by running its Dockerfile's own commands."""

import glob
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.image.dockerfile import Instruction, Stage
from tests.image.roots import copy_root, run_in

_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# What .dockerignore keeps out everywhere.
_IGNORED = ["--exclude=__pycache__", "--exclude=*.egg-info"]
_NO_EFFECT_ON_FILES = {"LABEL", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD", "VOLUME"}


@dataclass
class Image:
    """A stage that was built."""

    stage: Stage
    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    folder: str = "/"
    user: str = "0:0"


class Builder:
    """Builds stages one after the other, each in a folder of its own, from one base."""

    def __init__(self, base: Path, context: Path, folder: Path) -> None:
        self._base = base
        self._context = context
        self._folder = folder
        self._built: dict[str, Image] = {}

    def build(self, stage: Stage) -> Image:
        """Carry out every instruction of a stage."""
        image = Image(stage, self._folder / stage.name)
        copy_root(self._base, image.root)
        for instruction in stage.instructions:
            print(f"{stage.name}: {instruction.name} {instruction.arguments[:100]}", flush=True)
            self._apply(instruction, image)
        self._built[stage.name] = image
        return image

    def _apply(self, instruction: Instruction, image: Image) -> None:
        match instruction.name:
            case "ENV":
                for word in instruction.words:
                    name, _, value = word.partition("=")
                    image.environment[name] = value.replace("$PATH", image.environment["PATH"])
            case "WORKDIR":
                image.folder = instruction.arguments
                (image.root / image.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "USER":
                image.user = instruction.arguments
            case "RUN":
                run_in(
                    image.root,
                    instruction.arguments,
                    environment=image.environment,
                    folder=image.folder,
                    user=image.user,
                )
            case "COPY":
                self._copy(instruction, image)
            case name if name not in _NO_EFFECT_ON_FILES:
                raise ValueError(f"{name} is not carried out by this check")

    def _copy(self, instruction: Instruction, image: Image) -> None:
        stage = instruction.from_stage
        words = [word for word in instruction.words if not word.startswith("--")]
        source_root = self._context if stage is None else self._built[stage].root
        target = image.root / str(Path(image.folder, words[-1])).lstrip("/")
        for word in words[:-1]:
            (found,) = glob.glob(str(source_root / word.lstrip("/")))
            if Path(found).is_dir():
                _copy_folder(Path(found), target, _IGNORED if stage is None else [])
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, target)


def _copy_folder(source: Path, target: Path, exclusions: list[str]) -> None:
    """The folder's contents, owned by root, as COPY does."""
    target.mkdir(parents=True, exist_ok=True)
    pack = ["tar", "-C", str(source), *exclusions, "--owner=0", "--group=0", "-c", "."]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        subprocess.run(["tar", "-C", target, "-x", "--same-owner"], stdin=packing.stdout, check=True)
    if packing.returncode != 0:
        raise OSError(f"{source} could not be copied")
