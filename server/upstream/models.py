"""Registered models and their versions in the workspace."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from server.domain.verdicts import Verdict
from server.upstream.answers import read_answer
from server.upstream.connection import Connection
from server.upstream.failures import UpstreamFailure, refused_here

_PAGE = 500


class _Tag(msgspec.Struct):
    key: str
    value: str | None = ""


@dataclass(frozen=True, slots=True)
class UpstreamModel:
    """A registered model as the workspace has it."""

    description: str
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class UpstreamVersion:
    """A model version as the workspace has it."""

    version: str
    description: str
    stage: str
    tags: dict[str, str]


class _Model(msgspec.Struct):
    description: str | None = ""
    tags: list[_Tag] | None = None


class _ModelAnswer(msgspec.Struct):
    registered_model: _Model


class _Version(msgspec.Struct):
    name: str = ""
    version: str = ""
    description: str | None = ""
    current_stage: str | None = ""
    tags: list[_Tag] | None = None

    def to_domain(self) -> UpstreamVersion:
        return UpstreamVersion(
            self.version, self.description or "", self.current_stage or "", _tags_of(self.tags)
        )


class _VersionAnswer(msgspec.Struct):
    model_version: _Version


class _VersionsPage(msgspec.Struct):
    model_versions: list[_Version] = []
    next_page_token: str | None = None


class UpstreamModels:
    """Calls about registered models."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create_model(
        self, name: str, description: str = "", tags: Mapping[str, str] | None = None
    ) -> None:
        """Make the model; one that is there already is fine and stays as it is."""
        body = {"name": name, "description": description, "tags": _tag_list(tags)}
        try:
            await self._connection.mlflow("POST", "registered-models/create", json=_without_empty(body))
        except UpstreamFailure as failure:
            if failure.verdict is not Verdict.ALREADY_APPLIED:
                raise

    async def update_model(self, name: str, description: str) -> None:
        """Change the description."""
        body = {"name": name, "description": description}
        await self._connection.mlflow("PATCH", "registered-models/update", json=body)

    async def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag, over the one before."""
        body = {"name": name, "key": key, "value": value}
        await self._connection.mlflow("POST", "registered-models/set-tag", json=body)

    async def delete_model_tag(self, name: str, key: str) -> None:
        """Take a tag off."""
        body = {"name": name, "key": key}
        await self._connection.mlflow("DELETE", "registered-models/delete-tag", json=body)

    async def create_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Make a new version, each time another; its number as text. Resend only after reading back."""
        body = {
            "name": name,
            "source": source,
            "run_id": run_id or "",
            "description": description,
            "tags": _tag_list(tags),
        }
        answer = await self._connection.mlflow("POST", "model-versions/create", json=_without_empty(body))
        return read_answer(answer, _VersionAnswer, is_repeatable=False).model_version.version

    async def find_versions_by_tag(self, name: str, key: str, value: str) -> list[str]:
        """The versions of the model that carry this tag, oldest first.

        The workspace cannot filter by tag, so all versions of the model are looked at.
        """
        versions = await self.list_versions(name)
        return [version.version for version in versions if version.tags.get(key) == value]

    async def list_versions(self, name: str) -> list[UpstreamVersion]:
        """All versions of the model, oldest first; none where there is no such model."""
        found: list[UpstreamVersion] = []
        params: dict[str, str | int] = {"filter": f"name={_quoted(name)}", "max_results": _PAGE}
        while True:
            answer = await self._connection.mlflow("GET", "model-versions/search", params=params)
            page = read_answer(answer, _VersionsPage, is_repeatable=True)
            found += [version.to_domain() for version in page.model_versions if version.name == name]
            if not page.next_page_token:
                return sorted(found, key=lambda version: (len(version.version), version.version))
            params["page_token"] = page.next_page_token

    async def find_model(self, name: str) -> UpstreamModel | None:
        """The registered model, or `None` when the workspace does not have it."""
        try:
            answer = await self._connection.mlflow("GET", "registered-models/get", params={"name": name})
        except UpstreamFailure as failure:
            if failure.is_missing:
                return None
            raise
        model = read_answer(answer, _ModelAnswer, is_repeatable=True).registered_model
        return UpstreamModel(model.description or "", _tags_of(model.tags))

    async def update_version(self, name: str, version: str, description: str) -> None:
        """Change the description."""
        body = {"name": name, "version": version, "description": description}
        await self._connection.mlflow("PATCH", "model-versions/update", json=body)

    async def transition_stage(
        self, name: str, version: str, stage: str, *, archive_existing: bool = False
    ) -> None:
        """Move the version to a stage."""
        body = {
            "name": name,
            "version": version,
            "stage": stage,
            "archive_existing_versions": archive_existing,
        }
        await self._connection.mlflow("POST", "model-versions/transition-stage", json=body)

    async def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag, over the one before."""
        body = {"name": name, "version": version, "key": key, "value": value}
        await self._connection.mlflow("POST", "model-versions/set-tag", json=body)

    async def delete_version_tag(self, name: str, version: str, key: str) -> None:
        """Take a tag off."""
        body = {"name": name, "version": version, "key": key}
        await self._connection.mlflow("DELETE", "model-versions/delete-tag", json=body)

    async def delete_version(self, name: str, version: str) -> None:
        """Delete it; one that is gone already is fine."""
        body = {"name": name, "version": version}
        try:
            await self._connection.mlflow("DELETE", "model-versions/delete", json=body)
        except UpstreamFailure as failure:
            if not failure.is_missing:
                raise


def _tags_of(tags: list[_Tag] | None) -> dict[str, str]:
    return {tag.key: tag.value or "" for tag in tags or []}


def _tag_list(tags: Mapping[str, str] | None) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in (tags or {}).items()]


def _without_empty(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value}


def _quoted(name: str) -> str:
    """`name` as a literal of the filter grammar, which knows no escapes."""
    for quote in ("'", '"'):
        if quote not in name:
            return f"{quote}{name}{quote}"
    raise refused_here(f"a name with both kinds of quotes cannot be searched: {name[:200]!r}")
