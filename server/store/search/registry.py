"""Finding registered models and model versions.

Prompts live in the registry too, told apart by a tag. They are left out unless the filter asks for
them: the first condition on that tag decides, and when it does not ask for prompts every condition on
the tag is dropped, because models do not carry it.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, not_, select

from server.database.schema import (
    model_version_tags,
    model_versions,
    registered_model_tags,
    registered_models,
)
from server.protocol.search.terms import Comparison, Entity, Operator, Order
from server.store.registry import DELETED_STAGE
from server.store.search.conditions import Conditions
from server.store.search.pages import read_page

_PROMPT_TAG = "mlflow.prompt.is_prompt"
_MODEL_COLUMNS = {
    "last_updated_timestamp": registered_models.c.last_updated_timestamp_ms,
    "name": registered_models.c.name,
}
_VERSION_COLUMNS = {
    "creation_timestamp": model_versions.c.creation_timestamp_ms,
    "last_updated_timestamp": model_versions.c.last_updated_timestamp_ms,
    "name": registered_models.c.name,
    "run_id": model_versions.c.run_id,
    "source_path": model_versions.c.source,
    "version_number": model_versions.c.version,
}
_VERSION_TIES = (
    Order(Entity.ATTRIBUTE, "name", ascending=True),
    Order(Entity.ATTRIBUTE, "version_number", ascending=False),
)
_VERSION_DEFAULT = (Order(Entity.ATTRIBUTE, "last_updated_timestamp", ascending=False),)


def find_registered_models(
    connection: Connection,
    *,
    filters: Sequence[Comparison],
    order: Sequence[Order],
    offset: int,
    limit: int,
) -> tuple[list[int], bool]:
    """The registered models that meet every filter, in order, and whether there are more.

    Ties, and everything when there is no order, go by name.
    """
    conditions = Conditions(dialect=connection.dialect.name)
    query = select(registered_models.c.model_pk)
    for comparison in _without_prompt_tag(filters):
        query = query.where(_model_condition(conditions, comparison))
    if not _asks_for_prompts(filters):
        query = query.where(
            not_(
                exists().where(
                    registered_model_tags.c.model_pk == registered_models.c.model_pk,
                    registered_model_tags.c.key == _PROMPT_TAG,
                    registered_model_tags.c.value == "true",
                )
            )
        )
    ties = (Order(Entity.ATTRIBUTE, "name", ascending=True),)
    query = query.order_by(*_sorting(_MODEL_COLUMNS, order, ties))
    rows, has_more = read_page(connection, query, offset=offset, limit=limit)
    return [row.model_pk for row in rows], has_more


def find_model_versions(
    connection: Connection,
    *,
    filters: Sequence[Comparison],
    order: Sequence[Order],
    offset: int,
    limit: int,
) -> tuple[list[tuple[int, int]], bool]:
    """The versions, as (model_pk, version), that meet every filter, and whether there are more.

    Without an order the latest updated come first; ties go by name, then the highest version.
    """
    conditions = Conditions(dialect=connection.dialect.name)
    query = (
        select(model_versions.c.model_pk, model_versions.c.version)
        .join(registered_models, registered_models.c.model_pk == model_versions.c.model_pk)
        .where(model_versions.c.current_stage != DELETED_STAGE)
    )
    for comparison in _without_prompt_tag(filters):
        query = query.where(_version_condition(conditions, comparison))
    if not _asks_for_prompts(filters):
        # One version marked as a prompt makes prompts of all of them.
        query = query.where(
            not_(
                exists().where(
                    model_version_tags.c.model_pk == model_versions.c.model_pk,
                    model_version_tags.c.key == _PROMPT_TAG,
                    model_version_tags.c.value == "true",
                )
            )
        )
    query = query.order_by(*_sorting(_VERSION_COLUMNS, order or _VERSION_DEFAULT, _VERSION_TIES))
    rows, has_more = read_page(connection, query, offset=offset, limit=limit)
    return [(row.model_pk, row.version) for row in rows], has_more


def _asks_for_prompts(filters: Sequence[Comparison]) -> bool:
    for comparison in filters:
        if comparison.entity is Entity.TAG and comparison.key == _PROMPT_TAG:
            value = str(comparison.value).lower()
            return (comparison.operator, value) in (
                (Operator.EQUAL, "true"),
                (Operator.NOT_EQUAL, "false"),
            )
    return False


def _without_prompt_tag(filters: Sequence[Comparison]) -> list[Comparison]:
    """The conditions that count: those on the prompt tag only when prompts are asked for."""
    if _asks_for_prompts(filters):
        return list(filters)
    return [
        comparison
        for comparison in filters
        if comparison.entity is not Entity.TAG or comparison.key != _PROMPT_TAG
    ]


def _model_condition(conditions: Conditions, comparison: Comparison) -> ColumnElement[bool]:
    if comparison.entity is Entity.ATTRIBUTE:
        return conditions.compare(_MODEL_COLUMNS[comparison.key], comparison)
    return exists().where(
        registered_model_tags.c.model_pk == registered_models.c.model_pk,
        registered_model_tags.c.key == comparison.key,
        conditions.compare(registered_model_tags.c.value, comparison),
    )


def _version_condition(conditions: Conditions, comparison: Comparison) -> ColumnElement[bool]:
    if comparison.entity is Entity.ATTRIBUTE:
        return conditions.compare(_VERSION_COLUMNS[comparison.key], comparison)
    return exists().where(
        and_(
            model_version_tags.c.model_pk == model_versions.c.model_pk,
            model_version_tags.c.version == model_versions.c.version,
            model_version_tags.c.key == comparison.key,
        ),
        conditions.compare(model_version_tags.c.value, comparison),
    )


def _sorting(
    columns: dict[str, Any], order: Sequence[Order], ties: Sequence[Order]
) -> list[ColumnElement[Any]]:
    named = {key.key for key in order}
    keys = [*order, *(tie for tie in ties if tie.key not in named)]
    return [columns[key.key].asc() if key.ascending else columns[key.key].desc() for key in keys]
