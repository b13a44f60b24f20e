"""Small calls that the stock UI makes, and its Python client too, about what the server can do."""

from collections.abc import Mapping
from typing import Any

from server.api.endpoints import MLFLOW_2, MLFLOW_3, Call, Endpoint, json_routes, stream_routes
from server.api.errors import send_json
from server.domain.access import Permission
from server.protocol.wire import encode

_AJAX_3 = MLFLOW_3[1:]
_SERVER_INFO: Mapping[str, object] = {
    # The name the UI knows a server with a database by: it shows what needs one only then.
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "artifact_serving_enabled": True,
    "presigned_upload_run_id_supported": False,
    "presigned_upload_model_id_supported": False,
    "model_artifact_presigned_downloads_supported": False,
    "artifacts_presigned_only": False,
    "features_enabled": {"gateway": False, "scheduled_issue_detection": False},
    "tracking_auth": "",
}
_EMPTY = ("label-schemas/list", "mcp-servers", "review-queues/list", "skills")
"""What the UI lists and this server never has any of; an empty message is an empty list."""

_NO_TELEMETRY: dict[str, object] = {
    "disable_ui_telemetry": True,
    "disable_ui_events": [],
    "ui_rollout_percentage": 0,
}


class UiCallRoutes:
    """server-info, and answers that keep what this server does not have out of the UI."""

    def __init__(self, *, has_direct_artifacts: bool) -> None:
        self._server_info = {
            **_SERVER_INFO,
            "multipart_uploads_enabled": has_direct_artifacts,
            "multipart_downloads_enabled": has_direct_artifacts,
        }

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read = Permission.READ
        gateway = [f"{prefix}/gateway-proxy" for prefix in MLFLOW_2]
        return [
            *json_routes("GET", "/server-info", self._tell_server_info, permission=read, prefixes=MLFLOW_3),
            *json_routes("GET", "/ui-telemetry", self._telemetry, permission=read, prefixes=_AJAX_3),
            *stream_routes("POST", [f"{_AJAX_3[0]}/ui-telemetry"], self._drop_telemetry, permission=read),
            *stream_routes("GET", gateway, self._no_gateway, permission=read),
            *stream_routes("POST", gateway, self._no_gateway, permission=read),
            *stream_routes(
                "POST", [f"{prefix}/issues/search" for prefix in MLFLOW_3], self._nothing, permission=read
            ),
            *stream_routes(
                "GET", [f"{_AJAX_3[0]}/{name}" for name in _EMPTY], self._nothing, permission=read
            ),
        ]

    async def _tell_server_info(self, call: Call, _: Any) -> dict[str, object]:
        return self._server_info

    async def _telemetry(self, call: Call, _: Any) -> dict[str, object]:
        return _NO_TELEMETRY

    async def _drop_telemetry(self, call: Call) -> None:
        await send_json(call.send, encode({"status": "disabled"}))

    async def _no_gateway(self, call: Call) -> None:
        await send_json(call.send, encode({"endpoints": []}))

    async def _nothing(self, call: Call) -> None:
        await send_json(call.send, b"{}")
