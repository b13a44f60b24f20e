"""The proxy's own pages: HTML, styles and scripts from the package, under a strict policy."""

import asyncio
from functools import lru_cache
from pathlib import Path

from server.api.endpoints import Call, Endpoint, stream_routes
from server.api.errors import send_json
from server.domain.access import Permission
from server.domain.errors import does_not_exist

_FOLDER = Path(__file__).parents[1] / "pages"
_KINDS = {".html": b"text/html; charset=utf-8", ".js": b"text/javascript", ".css": b"text/css"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


class PageFileRoutes:
    """/pages/*: what the pages load. There is nothing to know from them, so they are open."""

    def routes(self) -> list[Endpoint]:
        """The route table."""
        return stream_routes("GET", ["/pages/{name}"], self._file, permission=Permission.PUBLIC)

    async def _file(self, call: Call) -> None:
        name = call.path_params["name"]
        if Path(name).suffix not in (".js", ".css") or name not in _names():
            raise does_not_exist(f"There is no page file '{name}'.")
        await send_page(call, name)


async def send_page(call: Call, name: str) -> None:
    """Answer with one of the package's page files."""
    body = await asyncio.to_thread(_read, name)
    await send_json(call.send, body, headers=_HEADERS, content_type=_KINDS[Path(name).suffix])


@lru_cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in _FOLDER.iterdir())


@lru_cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
