"""Routes about registered models and their versions."""

from typing import Any

from server.api.endpoints import MLFLOW_AND_PREVIEW, Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.protocol import registry as messages
from server.protocol.wire import require
from server.services.registry import Registry


class RegistryRoutes:
    """registered-models/* and model-versions/*."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read, write = Permission.READ, Permission.WRITE
        models, versions = "/registered-models", "/model-versions"
        table: list[tuple[str, str, Handler, Permission, type[Any]]] = [
            ("POST", f"{models}/create", self._create_model, write, messages.CreateRegisteredModelRequest),
            ("POST", f"{models}/rename", self._rename_model, write, messages.RenameRegisteredModelRequest),
            ("PATCH", f"{models}/update", self._update_model, write, messages.UpdateRegisteredModelRequest),
            ("DELETE", f"{models}/delete", self._delete_model, write, messages.RegisteredModelRequest),
            ("GET", f"{models}/get", self._get_model, read, messages.RegisteredModelRequest),
            ("GET", f"{models}/search", self._search_models, read, messages.SearchRegistryRequest),
            # the R package
            ("POST", f"{models}/search", self._search_models, read, messages.SearchRegistryRequest),
            ("GET", f"{models}/list", self._search_models, read, messages.SearchRegistryRequest),
            ("POST", f"{models}/get-latest-versions", self._latest, read, messages.LatestVersionsRequest),
            ("GET", f"{models}/get-latest-versions", self._latest, read, messages.LatestVersionsRequest),
            ("POST", f"{models}/set-tag", self._set_model_tag, write, messages.ModelTagRequest),
            ("DELETE", f"{models}/delete-tag", self._delete_model_tag, write, messages.ModelTagRequest),
            ("POST", f"{models}/alias", self._set_alias, write, messages.SetAliasRequest),
            ("DELETE", f"{models}/alias", self._delete_alias, write, messages.AliasRequest),
            ("GET", f"{models}/alias", self._get_by_alias, read, messages.AliasRequest),
            ("POST", f"{versions}/create", self._create_version, write, messages.CreateVersionRequest),
            ("PATCH", f"{versions}/update", self._update_version, write, messages.UpdateVersionRequest),
            ("POST", f"{versions}/transition-stage", self._transition, write, messages.TransitionRequest),
            ("DELETE", f"{versions}/delete", self._delete_version, write, messages.ModelVersionRequest),
            ("GET", f"{versions}/get", self._get_version, read, messages.ModelVersionRequest),
            ("GET", f"{versions}/search", self._search_versions, read, messages.SearchRegistryRequest),
            ("GET", f"{versions}/get-download-uri", self._download_uri, read, messages.ModelVersionRequest),
            ("POST", f"{versions}/set-tag", self._set_version_tag, write, messages.VersionTagRequest),
            ("DELETE", f"{versions}/delete-tag", self._delete_version_tag, write, messages.VersionTagRequest),
        ]
        return [
            route
            for method, path, handler, permission, message in table
            for route in json_routes(
                method, path, handler, permission=permission, message=message, prefixes=MLFLOW_AND_PREVIEW
            )
        ]

    # --- registered models ---

    async def _create_model(
        self, call: Call, request: messages.CreateRegisteredModelRequest
    ) -> messages.RegisteredModelAnswer:
        require("name", request.name)
        return messages.RegisteredModelAnswer(await self._registry.create_model(request, call.origin))

    async def _rename_model(
        self, call: Call, request: messages.RenameRegisteredModelRequest
    ) -> messages.RegisteredModelAnswer:
        name, new_name = require("name", request.name), require("new_name", request.new_name)
        return messages.RegisteredModelAnswer(await self._registry.rename_model(name, new_name))

    async def _update_model(
        self, call: Call, request: messages.UpdateRegisteredModelRequest
    ) -> messages.RegisteredModelAnswer:
        name = require("name", request.name)
        return messages.RegisteredModelAnswer(
            await self._registry.update_model(name, request.description, call.user)
        )

    async def _delete_model(self, call: Call, request: messages.RegisteredModelRequest) -> None:
        await self._registry.delete_model(require("name", request.name))

    async def _get_model(
        self, call: Call, request: messages.RegisteredModelRequest
    ) -> messages.RegisteredModelAnswer:
        return messages.RegisteredModelAnswer(await self._registry.get_model(require("name", request.name)))

    async def _search_models(
        self, call: Call, request: messages.SearchRegistryRequest
    ) -> messages.RegisteredModelsAnswer:
        found, token = await self._registry.search_models(request)
        return messages.RegisteredModelsAnswer(found, token)

    async def _latest(
        self, call: Call, request: messages.LatestVersionsRequest
    ) -> messages.ModelVersionsAnswer:
        name = require("name", request.name)
        return messages.ModelVersionsAnswer(await self._registry.latest_versions(name, request.stages))

    async def _set_model_tag(self, call: Call, request: messages.ModelTagRequest) -> None:
        await self._registry.set_model_tag(
            require("name", request.name), require("key", request.key), request.value, call.user
        )

    async def _delete_model_tag(self, call: Call, request: messages.ModelTagRequest) -> None:
        await self._registry.delete_model_tag(
            require("name", request.name), require("key", request.key), call.user
        )

    async def _set_alias(self, call: Call, request: messages.SetAliasRequest) -> None:
        await self._registry.set_alias(
            require("name", request.name),
            require("alias", request.alias),
            require("version", request.version),
        )

    async def _delete_alias(self, call: Call, request: messages.AliasRequest) -> None:
        await self._registry.delete_alias(require("name", request.name), require("alias", request.alias))

    async def _get_by_alias(self, call: Call, request: messages.AliasRequest) -> messages.ModelVersionAnswer:
        name, alias = require("name", request.name), require("alias", request.alias)
        return messages.ModelVersionAnswer(await self._registry.get_version_by_alias(name, alias))

    # --- versions ---

    async def _create_version(
        self, call: Call, request: messages.CreateVersionRequest
    ) -> messages.ModelVersionAnswer:
        require("name", request.name)
        require("source", request.source)
        return messages.ModelVersionAnswer(await self._registry.create_version(request, call.origin))

    async def _update_version(
        self, call: Call, request: messages.UpdateVersionRequest
    ) -> messages.ModelVersionAnswer:
        name, version = _named(request)
        return messages.ModelVersionAnswer(
            await self._registry.update_version(name, version, request.description, call.user)
        )

    async def _transition(
        self, call: Call, request: messages.TransitionRequest
    ) -> messages.ModelVersionAnswer:
        _named(request)
        require("stage", request.stage)
        return messages.ModelVersionAnswer(await self._registry.transition(request, call.user))

    async def _delete_version(self, call: Call, request: messages.ModelVersionRequest) -> None:
        await self._registry.delete_version(*_named(request), call.user)

    async def _get_version(
        self, call: Call, request: messages.ModelVersionRequest
    ) -> messages.ModelVersionAnswer:
        return messages.ModelVersionAnswer(await self._registry.get_version(*_named(request)))

    async def _search_versions(
        self, call: Call, request: messages.SearchRegistryRequest
    ) -> messages.ModelVersionsAnswer:
        found, token = await self._registry.search_versions(request)
        return messages.ModelVersionsAnswer(found, token)

    async def _download_uri(
        self, call: Call, request: messages.ModelVersionRequest
    ) -> messages.DownloadUriAnswer:
        return messages.DownloadUriAnswer(await self._registry.download_uri(*_named(request)))

    async def _set_version_tag(self, call: Call, request: messages.VersionTagRequest) -> None:
        name, version = _named(request)
        key = require("key", request.key)
        await self._registry.set_version_tag(name, version, key, request.value, call.user)

    async def _delete_version_tag(self, call: Call, request: messages.VersionTagRequest) -> None:
        name, version = _named(request)
        await self._registry.delete_version_tag(name, version, require("key", request.key), call.user)


def _named(request: messages.ModelVersionRequest) -> tuple[str, str]:
    return require("name", request.name), require("version", request.version)
