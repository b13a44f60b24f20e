"""The prefixes of experiments and of the registry: attributes and tags, nothing else."""

from server.domain.errors import invalid_parameter
from server.protocol.search.quoting import plain_key
from server.protocol.search.terms import Entity

ENTITIES = {"attribute": Entity.ATTRIBUTE, "tag": Entity.TAG, "tags": Entity.TAG}
UNKNOWN_ENTITY = "Valid entity types are ('attribute', 'tag', 'tags')"


def attribute_or_tag(identifier: str, attributes: frozenset[str]) -> tuple[Entity, str]:
    """What an order clause names; no prefix is an attribute, which must be one of `attributes`."""
    prefix, dot, rest = identifier.partition(".")
    if not dot:
        prefix, rest = "attribute", identifier
    entity = ENTITIES.get(prefix)
    if entity is None:
        raise invalid_parameter(f"Invalid entity type '{prefix}'. {UNKNOWN_ENTITY}")
    key = plain_key(rest)
    if entity is Entity.ATTRIBUTE and key not in attributes:
        raise invalid_parameter(
            f"Invalid attribute key '{key}' specified. Valid keys are {sorted(attributes)}"
        )
    return entity, key
