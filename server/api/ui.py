"""The stock MLflow UI: its first page and its files.

The page names its files relative to itself, so it works below any path. It runs under a content
security policy: scripts come from here and nowhere else, and nothing is sent elsewhere.
"""

import asyncio

from server.api.endpoints import Call, Endpoint, stream_routes
from server.api.errors import send_json
from server.domain.access import Permission
from server.domain.errors import does_not_exist
from server.services.ui_files import INDEX, UI_VERSION, UiFile, UiFiles

_FILES = "/static-files/"
_NOTEBOOK_PAGE = "lib/notebook-trace-renderer/index.html"
_HTML = b"text/html; charset=utf-8"
_SCRIPTS_OF_ARTIFACTS = " 'unsafe-inline' https:"
_FOREVER = "public, max-age=2419200, immutable"

_MISSING = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>mlproxy</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:4rem auto;padding:0 1rem}
code{background:#f1f3f5;padding:.15em .35em;border-radius:4px}</style>
<h1>mlproxy is running</h1>
<p>MLflow clients can use it: their tracking URI is this page's address.</p>
<p>The stock MLflow UI is not here yet. On the server's machine run</p>
<p><code>mlproxy ui install</code></p>
<p>with the settings that the server has, then load this page again. The server need not be restarted.</p>
</html>
"""


class UiRoutes:
    """/ and /static-files/*."""

    def __init__(self, files: UiFiles, *, path_prefix: str = "", runs_artifact_scripts: bool = False) -> None:
        self._files = files
        self._prefix = path_prefix.rstrip("/")
        self._policy = _policy(runs_artifact_scripts=runs_artifact_scripts)

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read = Permission.READ
        return [
            *stream_routes("GET", ["/"], self._index, permission=read, is_page=True),
            *stream_routes("GET", [_FILES + "{name:path}"], self._file, permission=read),
        ]

    async def _index(self, call: Call) -> None:
        raw: bytes = call.scope.get("raw_path") or b"/"
        if self._prefix and raw.split(b"?", 1)[0] == self._prefix.encode():
            # Below `/prefix` the page's relative addresses would lead beside it.
            await send_json(call.send, b"", status=308, headers={"Location": f"{self._prefix}/"})
            return
        headers = self._page_headers()
        found = self._files.find(INDEX)
        if found is None:
            body = _MISSING
        else:
            body = await asyncio.to_thread(found.path.read_bytes)
        await send_json(call.send, body, headers=headers, content_type=_HTML)

    async def _file(self, call: Call) -> None:
        name = call.path_params["name"]
        found = self._files.find(name)
        if found is None:
            raise does_not_exist(f"The UI has no file '{name}'.")
        is_compressed = found.compressed_path is not None and _takes_gzip(call)
        headers = self._file_headers(name, found, is_compressed=is_compressed)
        if _has(call, headers["ETag"]):
            await send_json(call.send, b"", status=304, headers=headers)
            return
        path = found.compressed_path if is_compressed else None
        body = await asyncio.to_thread((path or found.path).read_bytes)
        await send_json(call.send, body, headers=headers, content_type=found.content_type.encode())

    def _page_headers(self) -> dict[str, str]:
        return {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": self._policy,
            "X-Frame-Options": "SAMEORIGIN",
            "Referrer-Policy": "same-origin",
        }

    def _file_headers(self, name: str, found: UiFile, *, is_compressed: bool) -> dict[str, str]:
        # A version's files never change, so its name stands for their content.
        headers = {
            "Cache-Control": _FOREVER,
            "ETag": f'"{UI_VERSION}-gzip"' if is_compressed else f'"{UI_VERSION}"',
        }
        if found.compressed_path is not None:
            headers["Vary"] = "Accept-Encoding"
        if is_compressed:
            headers["Content-Encoding"] = "gzip"
        if found.content_type.startswith("text/html"):
            headers |= self._page_headers()
        if name == _NOTEBOOK_PAGE:
            # A notebook shows a trace in a frame of its own page.
            del headers["X-Frame-Options"]
            headers["Content-Security-Policy"] = self._policy.replace("frame-ancestors 'self'", "")
        return headers


def _policy(*, runs_artifact_scripts: bool) -> str:
    """What the page may do. HTML artifacts are shown in a frame that has the page's policy too."""
    # The charts on WebGL (parallel coordinates) compile their drawing: without 'unsafe-eval' they are empty.
    scripts = "'self' 'unsafe-eval'" + (_SCRIPTS_OF_ARTIFACTS if runs_artifact_scripts else "")
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {scripts}",
            "worker-src 'self' blob:",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "frame-src 'self' blob:",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
        ]
    )


def _takes_gzip(call: Call) -> bool:
    for part in (call.header(b"accept-encoding") or b"").lower().replace(b" ", b"").split(b","):
        coding, _, quality = part.partition(b";q=")
        if coding == b"gzip":
            return not quality or bool(quality.strip(b"0."))
    return False


def _has(call: Call, etag: str) -> bool:
    condition = call.header(b"if-none-match")
    if condition is None:
        return False
    tags = {tag.strip().removeprefix(b"W/") for tag in condition.split(b",")}
    return bool(tags & {etag.encode(), b"*"})
