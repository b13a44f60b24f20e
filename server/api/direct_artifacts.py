"""Routes for bytes that go between clients and storage directly: multipart uploads, presigned downloads."""

import posixpath
from typing import Any
from urllib.parse import quote

from server.api.artifacts import ARTIFACT_PREFIXES, artifact_path
from server.api.endpoints import MLFLOW_2, Call, Endpoint, Handler, json_routes
from server.domain.access import Permission
from server.protocol import direct_artifacts as messages
from server.protocol.wire import missing_parameter, require
from server.services.artifacts import Artifacts
from server.services.direct_artifacts import DirectArtifacts


class DirectArtifactRoutes:
    """mpu/*, presigned/*, artifacts/presigned-*."""

    def __init__(self, *, direct: DirectArtifacts, artifacts: Artifacts, path_prefix: str) -> None:
        self._direct = direct
        self._artifacts = artifacts
        self._path_prefix = path_prefix

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read, write = Permission.READ, Permission.WRITE
        tail = "{artifact_path:path}"
        proxied: list[tuple[str, str, Handler, Permission, type[Any] | None]] = [
            ("POST", f"/mpu/create/{tail}", self._create, write, messages.CreateMultipartRequest),
            ("POST", f"/mpu/complete/{tail}", self._complete, write, messages.CompleteMultipartRequest),
            ("POST", f"/mpu/abort/{tail}", self._abort, write, messages.AbortMultipartRequest),
            ("GET", f"/presigned/{tail}", self._presign, read, None),
        ]
        by_run: list[tuple[str, Handler, Permission, type[Any]]] = [
            ("download", self._presign_of_run, read, messages.PresignedDownloadRequest),
            ("upload", self._refuse_upload, write, messages.PresignedUploadRequest),
        ]
        routes = [
            route
            for method, path, handler, permission, message in proxied
            for route in json_routes(
                method, path, handler, permission=permission, message=message, prefixes=ARTIFACT_PREFIXES
            )
        ]
        for kind, handler, permission, message in by_run:
            routes += json_routes(
                "POST",
                f"/artifacts/presigned-{kind}-url",
                handler,
                permission=permission,
                message=message,
                prefixes=MLFLOW_2,
            )
        return routes

    # --- multipart uploads ---

    async def _create(
        self, call: Call, request: messages.CreateMultipartRequest
    ) -> messages.CreateMultipartAnswer:
        if request.num_parts is None:
            raise missing_parameter("num_parts")
        opened = await self._direct.create(
            upload_target(call, "mpu/create", request), request.num_parts, call.user
        )
        credentials = [
            messages.CredentialMessage(address, number, dict(opened.headers))
            for number, address in enumerate(opened.addresses, start=1)
        ]
        return messages.CreateMultipartAnswer(opened.upload_id, credentials)

    async def _complete(self, call: Call, request: messages.CompleteMultipartRequest) -> None:
        if not self._direct.is_offered:
            raise messages.no_multipart()
        upload_id = require("upload_id", request.upload_id)
        numbers = [part.part_number for part in request.parts]
        await self._direct.complete(upload_target(call, "mpu/complete", request), upload_id, numbers)

    async def _abort(self, call: Call, request: messages.AbortMultipartRequest) -> None:
        if not self._direct.is_offered:
            raise messages.no_multipart()
        upload_id = require("upload_id", request.upload_id)
        await self._direct.abort(upload_target(call, "mpu/abort", request), upload_id)

    # --- presigned downloads ---

    async def _presign(self, call: Call, request: None) -> messages.ProxiedPresignedAnswer:
        if not self._direct.is_offered:
            raise messages.no_presigned_download()
        path = artifact_path(call, "presigned")
        found = await self._artifacts.find(path)
        address = await self._direct.read_address(found)
        if address is None:
            here = f"{self._path_prefix}{ARTIFACT_PREFIXES[0]}/artifacts/{quote(path)}"
            return messages.ProxiedPresignedAnswer(here, {})
        return messages.ProxiedPresignedAnswer(address, {}, found.file.size_bytes)

    async def _presign_of_run(
        self, call: Call, request: messages.PresignedDownloadRequest
    ) -> messages.PresignedDownloadAnswer:
        run_id, path = request.named_run, require("path", request.path)
        messages.check_expiration(request.expiration)
        if not self._direct.is_offered:
            raise messages.no_presigned_download()
        found = await self._artifacts.find_for_run(run_id, path)
        address = await self._direct.read_address(found)
        if address is None:
            raise messages.no_presigned_download()
        return messages.PresignedDownloadAnswer(address, found.file.size_bytes)

    async def _refuse_upload(self, call: Call, request: messages.PresignedUploadRequest) -> None:
        raise messages.no_presigned_upload()


def upload_target(call: Call, kind: str, request: messages.MultipartRequest) -> str:
    """The path of the file: the folder that the route names, the name that the file has at the client."""
    folder = artifact_path(call, kind)
    return posixpath.join(folder, messages.file_name_of(require("path", request.path)))
