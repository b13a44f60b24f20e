"""The OpenAPI document, from the route table and the messages' own types."""

from collections.abc import Sequence
from typing import Any

import msgspec

from server import __version__
from server.api.endpoints import Endpoint

_COMPONENT = "#/components/schemas/{name}"


def describe(routes: Sequence[Endpoint]) -> dict[str, Any]:
    """The document for these routes."""
    types = list(dict.fromkeys(route.message for route in routes if route.message is not None))
    references, components = msgspec.json.schema_components(types, ref_template=_COMPONENT)
    schemas = dict(zip(types, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = route.path.replace(":path}", "}")
        for method in sorted((route.methods or set()) - {"HEAD"}):
            paths.setdefault(path, {})[method.lower()] = _operation(route, method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mlproxy", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{"bearer": []}, {"basic": []}],
    }


_ERROR = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}


def _operation(route: Endpoint, method: str, schemas: dict[type, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "x-permission": route.permission.value,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in sorted(route.param_convertors)
        ],
        "responses": {
            "200": {"description": "Done."},
            "default": {
                "description": "Refused.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if route.message is None:
        return operation
    if method == "GET":
        operation["parameters"].extend(
            {"name": field.encode_name, "in": "query", "required": False, "schema": {}}
            for field in msgspec.structs.fields(route.message)
        )
    else:
        operation["requestBody"] = {"content": {"application/json": {"schema": schemas[route.message]}}}
    return operation
