"""Registered models and their versions as clients see them."""

from collections.abc import Sequence

from server.database.engine import Transaction
from server.protocol import registry as messages
from server.protocol.experiments import TagMessage
from server.store import registry
from server.store.registry import ModelVersion


def load_models(transaction: Transaction, model_pks: Sequence[int]) -> list[messages.RegisteredModelMessage]:
    """The registered models with all that is shown of them."""
    models = registry.get_many(transaction, model_pks)
    tags = registry.list_tags(transaction, model_pks)
    aliases = registry.list_aliases(transaction, model_pks)
    latest: dict[str, list[messages.ModelVersionMessage]] = {}
    for version in load_versions(transaction, registry.list_latest(transaction, model_pks)):
        latest.setdefault(version.name, []).append(version)
    return [
        messages.RegisteredModelMessage(
            model.name,
            model.creation_timestamp_ms,
            model.last_updated_timestamp_ms,
            model.description,
            latest.get(model.name, []),
            [TagMessage(key, value) for key, value in tags.get(model.model_pk, ())],
            [
                messages.AliasMessage(alias, str(version))
                for alias, version in aliases.get(model.model_pk, ())
            ],
        )
        for model in models
    ]


def load_versions(
    transaction: Transaction, versions: Sequence[ModelVersion]
) -> list[messages.ModelVersionMessage]:
    """The versions with all they hold, in as many statements as there are kinds of data."""
    model_pks = list(dict.fromkeys(version.model_pk for version in versions))
    names = {model.model_pk: model.name for model in registry.get_many(transaction, model_pks)}
    tags = registry.list_version_tags(transaction, [(item.model_pk, item.version) for item in versions])
    aliases: dict[tuple[int, int], list[str]] = {}
    for model_pk, pairs in registry.list_aliases(transaction, model_pks).items():
        for alias, number in pairs:
            aliases.setdefault((model_pk, number), []).append(alias)
    return [
        messages.ModelVersionMessage(
            name=names[item.model_pk],
            version=str(item.version),
            creation_timestamp=item.creation_timestamp_ms,
            last_updated_timestamp=item.last_updated_timestamp_ms,
            current_stage=item.current_stage,
            source=item.source,
            status=item.status,
            user_id=item.user_id,
            description=item.description or "",
            run_id=item.run_id or "",
            status_message=item.status_message,
            tags=[TagMessage(key, value) for key, value in tags.get((item.model_pk, item.version), ())],
            run_link=item.run_link or "",
            aliases=aliases.get((item.model_pk, item.version), []),
            model_id=item.model_id,
        )
        for item in versions
    ]
