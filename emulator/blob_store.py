"""Where artifact bytes are: files of the emulator's own, or a container of Azurite.

Both hand out addresses that the real storage client takes, and say of a blob what inspection shows.
"""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote

from emulator.sas import SharedAccess
from emulator.store import Store

ACCOUNT = "emustore.blob.core.windows.net"
CONTAINER = "azureml"
CHUNK_BYTES = 1 << 20
AZURITE_ACCOUNT = "devstoreaccount1"
# Azurite's published development key: it opens nothing but a local emulator.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """Size and digests of a blob's content."""

    size: int
    md5: str
    sha256: str


class BlobStore(Protocol):
    """`name` is the path inside the container."""

    def content_uri(self, origin: str | None, name: str, *, permissions: str, seconds: float) -> str:
        """An address that allows `permissions` for `seconds`."""

    async def find_facts(self, name: str) -> BlobFacts | None:
        """What inspection shows, or nothing for a blob that is not there."""

    async def write(self, name: str, content: bytes) -> None:
        """Store a whole content, replacing any."""

    def read(self, name: str) -> AsyncIterator[bytes]:
        """The content in pieces."""

    async def exists(self, name: str) -> bool:
        """Whether there is such a blob."""

    async def delete(self, name: str) -> None:
        """Remove the blob."""


class FileBlobs:
    """Blobs as files below the data folder; served by `blobs`."""

    def __init__(self, *, store: Store, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._store = store
        self._folder = folder
        self.access = SharedAccess(store)

    def content_uri(self, origin: str | None, name: str, *, permissions: str, seconds: float) -> str:
        """With the account as the first part of the path, or, without an origin, as the host.

        A loopback host makes storage clients take the first part of the path for the account [C]; that
        this part looks like the real host satisfies azureml-mlflow, which searches the address for it [W].
        azureml-core splits the host itself and so needs the real form [W].
        """
        query = self.access.query(name, permissions=permissions, seconds=seconds)
        base = f"https://{ACCOUNT}" if origin is None else f"{origin}/{ACCOUNT}"
        return f"{base}/{CONTAINER}/{quote(name)}?{query}"

    def new_file(self) -> Path:
        """A place for bytes that nobody sees until a row names it."""
        return self._folder / uuid.uuid4().hex

    def file(self, name: str) -> Path:
        """The place of a stored file."""
        return self._folder / name

    def remove(self, file_names: list[str]) -> None:
        """Delete files that no row names any more."""
        for file_name in file_names:
            self.file(file_name).unlink(missing_ok=True)

    def publish(
        self,
        name: str,
        file: Path,
        *,
        content_md5: str | None,
        content_type: str = "application/octet-stream",
        metadata: str = "{}",
    ) -> Any:
        """Make a finished file the blob's content and return its row; the old content goes."""
        old = self.find(name)
        self._store.run(
            "INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?)",
            name,
            file.name,
            file.stat().st_size,
            f'"0x{uuid.uuid4().hex[:15].upper()}"',
            time.time(),
            content_type,
            content_md5,
            metadata,
            self._store.next_seq(),
        )
        if old is not None:
            self.remove([old["file"]])
        return self.find(name)

    def find(self, name: str) -> Any:
        """The blob's row, or nothing."""
        return self._store.find("SELECT * FROM blobs WHERE name = ?", name)

    async def find_facts(self, name: str) -> BlobFacts | None:
        """Digests are worked out once and kept."""
        row = self.find(name)
        if row is None:
            return None
        if row["sha256"] is None:
            md5, sha256 = await asyncio.to_thread(_digests, self.file(row["file"]))
            self._store.run(
                "UPDATE blobs SET md5 = ?, sha256 = ? WHERE name = ? AND file = ?",
                md5,
                sha256,
                name,
                row["file"],
            )
            return BlobFacts(row["size"], md5, sha256)
        return BlobFacts(row["size"], row["md5"], row["sha256"])

    async def write(self, name: str, content: bytes) -> None:
        """Store a whole content, replacing any."""
        file = self.new_file()
        await asyncio.to_thread(file.write_bytes, content)
        self.publish(name, file, content_md5=None)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """The content in pieces."""
        with self.file(self.find(name)["file"]).open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk

    async def exists(self, name: str) -> bool:
        """Whether there is such a blob."""
        return self.find(name) is not None

    async def delete(self, name: str) -> None:
        """Remove the blob."""
        self.discard(name)

    def discard(self, name: str) -> bool:
        """Remove the blob; says whether there was one."""
        row = self.find(name)
        if row is None:
            return False
        self._store.run("DELETE FROM blobs WHERE name = ?", name)
        self.remove([row["file"]])
        return True


class AzuriteBlobs:
    """Blobs in Azurite, Microsoft's storage emulator: real signatures, real storage behaviour."""

    def __init__(self, endpoint: str) -> None:
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import ContainerClient

        self._endpoint = endpoint.rstrip("/")
        self._container = ContainerClient(self._endpoint, CONTAINER, credential=AZURITE_KEY)
        try:
            self._container.create_container()
        except ResourceExistsError:
            return

    def content_uri(self, origin: str | None, name: str, *, permissions: str, seconds: float) -> str:
        """A real signature with Azurite's development key."""
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        del origin
        now = datetime.now(UTC)
        query = generate_blob_sas(
            account_name=AZURITE_ACCOUNT,
            container_name=CONTAINER,
            blob_name=name,
            account_key=AZURITE_KEY,
            permission=BlobSasPermissions.from_string(permissions),
            start=now - timedelta(minutes=10),
            expiry=now + timedelta(seconds=seconds),
        )
        return f"{self._endpoint}/{CONTAINER}/{quote(name)}?{query}"

    async def find_facts(self, name: str) -> BlobFacts | None:
        """Digests are worked out from the content each time."""
        return await asyncio.to_thread(self._find_facts, name)

    async def write(self, name: str, content: bytes) -> None:
        """Store a whole content, replacing any."""
        await asyncio.to_thread(self._container.upload_blob, name, content, overwrite=True)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """The content in one piece."""
        download = await asyncio.to_thread(self._container.download_blob, name)
        yield await asyncio.to_thread(download.readall)

    async def exists(self, name: str) -> bool:
        """Whether there is such a blob."""
        return await asyncio.to_thread(self._container.get_blob_client(name).exists)

    async def delete(self, name: str) -> None:
        """Remove the blob."""
        await asyncio.to_thread(self._container.delete_blob, name)

    def _find_facts(self, name: str) -> BlobFacts | None:
        if not self._container.get_blob_client(name).exists():
            return None
        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        for chunk in self._container.download_blob(name).chunks():
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
        return BlobFacts(size, md5.hexdigest(), sha256.hexdigest())


def join_files(sources: list[Path], target: Path) -> None:
    """Write the sources one after the other into the target."""
    with target.open("wb") as sink:
        for source in sources:
            with source.open("rb") as part:
                _copy(part, sink)


def _copy(source: IO[bytes], sink: IO[bytes]) -> None:
    while chunk := source.read(CHUNK_BYTES):
        sink.write(chunk)


def _digests(file: Path) -> tuple[str, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with file.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            md5.update(chunk)
            sha256.update(chunk)
    return md5.hexdigest(), sha256.hexdigest()
