"""Telling webhooks what happens in the registry.

Each function turns a change into MLflow's event about it, inside of the transaction that makes the change.
Without webhooks it costs one look-up.
"""

from collections.abc import Mapping
from typing import Any

from server.database.engine import Transaction
from server.protocol.registry import PROMPT_TAG, ModelVersionMessage, says_prompt
from server.store import registry, webhooks
from server.store.announcements import announce
from server.store.registry import RegisteredModel

_PROMPT_TYPE_TAG = "_mlflow_prompt_type"
_PROMPT_TEXT_TAG = "mlflow.prompt.text"


def announce_model(
    transaction: Transaction, name: str, tags: Mapping[str, str], description: str | None
) -> None:
    """A registered model, or a prompt, is new."""
    event = "registered_model.created"
    if says_prompt(dict(tags)):
        event, tags = "prompt.created", _without_marks(tags)
    announce(transaction, event, {"name": name, "tags": dict(tags), "description": description or ""})


def announce_version(transaction: Transaction, version: ModelVersionMessage, tags: Mapping[str, str]) -> None:
    """A version of either is new."""
    data: dict[str, Any] = {"name": version.name, "version": version.version}
    if says_prompt(dict(tags)):
        event = "prompt_version.created"
        rest = _without_marks(tags)
        data |= {"template": rest.pop(_PROMPT_TEXT_TAG, None), "tags": rest}
    else:
        event = "model_version.created"
        data |= {"source": version.source, "run_id": version.run_id or None, "tags": dict(tags)}
    announce(transaction, event, data | {"description": version.description or None})


def announce_model_tag(transaction: Transaction, model: RegisteredModel, key: str, value: str | None) -> None:
    """A tag of a prompt is set, or deleted when there is no value; MLflow has no event for models."""
    if webhooks.has_any(transaction) and _is_prompt(transaction, model):
        _announce_change(transaction, "prompt_tag", {"name": model.name, "key": key}, "value", value)


def announce_version_tag(
    transaction: Transaction, model: RegisteredModel, version: int, key: str, value: str | None
) -> None:
    """A tag of a version is set, or deleted when there is no value."""
    if webhooks.has_any(transaction):
        entity = "prompt_version_tag" if _is_prompt(transaction, model) else "model_version_tag"
        data = {"name": model.name, "version": str(version), "key": key}
        _announce_change(transaction, entity, data, "value", value)


def announce_alias(transaction: Transaction, model: RegisteredModel, alias: str, version: int | None) -> None:
    """An alias is set, or deleted when there is no version."""
    if webhooks.has_any(transaction):
        entity = "prompt_alias" if _is_prompt(transaction, model) else "model_version_alias"
        data = {"name": model.name, "alias": alias}
        text = None if version is None else str(version)
        _announce_change(transaction, entity, data, "version", text, action="created")


def _announce_change(
    transaction: Transaction,
    entity: str,
    data: dict[str, str],
    field: str,
    value: str | None,
    *,
    action: str = "set",
) -> None:
    if value is None:
        announce(transaction, f"{entity}.deleted", data)
    else:
        announce(transaction, f"{entity}.{action}", {**data, field: value})


def _is_prompt(transaction: Transaction, model: RegisteredModel) -> bool:
    tags = registry.list_tags(transaction, [model.model_pk]).get(model.model_pk, [])
    return says_prompt(dict(tags))


def _without_marks(tags: Mapping[str, str]) -> dict[str, str]:
    """A prompt's tags but for those that make it one."""
    return {key: value for key, value in tags.items() if key not in (PROMPT_TAG, _PROMPT_TYPE_TAG)}
