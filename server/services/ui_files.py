"""The files of the stock MLflow UI, found by the names that its pages ask for.

A name is looked up in a table of what is in the folder and never becomes a path: what is not in the
table cannot be read, however the name is spelt.
"""

import os
from dataclasses import dataclass
from pathlib import Path

UI_VERSION = "3.18.0"
"""The MLflow release that the UI comes from."""

BUILD = "build"
INDEX = "index.html"
COMPRESSED = ".gz"

_TYPES = {
    ".cjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".eot": "application/vnd.ms-fontobject",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class UiFile:
    """One file, and the same compressed where that is worth it."""

    path: Path
    compressed_path: Path | None
    content_type: str


class UiFiles:
    """The files under a folder of versions. They may be put there while the server runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = build_folder(folder)
        self._files: dict[str, UiFile] = {}

    def find(self, name: str) -> UiFile | None:
        """The file of that name, as `static/js/main.js`."""
        if not self._files and is_installed(self._folder):
            self._files = _list_files(self._folder)
        return self._files.get(name)


def build_folder(folder: Path) -> Path:
    """Where this version's files are, under the folder of all versions."""
    return folder / UI_VERSION / BUILD


def is_installed(build: Path) -> bool:
    """Whether the files are there; they are put there all at once."""
    return (build / INDEX).is_file()


def is_text(name: str) -> bool:
    """Whether a file of that name gets much smaller when it is compressed."""
    content_type = _TYPES.get(os.path.splitext(name)[1], _UNKNOWN_TYPE)
    return content_type.startswith("text/") or content_type in ("application/json", "image/svg+xml")


def _list_files(build: Path) -> dict[str, UiFile]:
    paths = {path.relative_to(build).as_posix(): path for path in build.rglob("*") if path.is_file()}
    return {
        name: UiFile(path, paths.get(name + COMPRESSED), _TYPES.get(path.suffix, _UNKNOWN_TYPE))
        for name, path in paths.items()
        if not name.endswith(COMPRESSED)
    }
