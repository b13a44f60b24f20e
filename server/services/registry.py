"""The model registry: registered models, their versions, stages, aliases and tags.

What the workspace can hold of it is delivered through the model's lane. Aliases, renames and deletes
of whole models stay here, and so does everything about prompts, which MLflow keeps in the registry too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from uuid import uuid4

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.entities import Birthplace
from server.domain.errors import already_exists, invalid_parameter
from server.domain.names import upstream_model_name
from server.domain.operations import (
    CreateModelVersion,
    CreateRegisteredModel,
    DeleteModelVersion,
    DeleteModelVersionTag,
    DeleteRegisteredModelTag,
    Operation,
    SetModelVersionTag,
    SetRegisteredModelTag,
    TransitionModelVersion,
    UpdateModelVersion,
    UpdateRegisteredModel,
)
from server.domain.origins import Origin
from server.journal.entries import Awaited, append_entry
from server.journal.lanes import LaneKind, is_settled, list_pending_lanes, open_lane
from server.protocol import limits, paging
from server.protocol import registry as messages
from server.protocol import search as grammar
from server.services import announcements
from server.services.claims import CreateKind, Made
from server.services.registry_messages import load_models, load_versions
from server.services.resends import DEDUPED, DEDUPED_TAG, Create, Resends
from server.services.sources import (
    Source,
    check_prompt_source,
    get_registered_model,
    get_version,
    get_version_by_alias,
    resolve_source,
)
from server.store import registry, runs, search
from server.store.registry import ModelVersion, RegisteredModel

T = TypeVar("T")
ReadVersion = Callable[[Transaction, RegisteredModel], ModelVersion]
ChangeVersion = Callable[[Transaction, RegisteredModel, ModelVersion], None]

_MODEL_SUBJECT = "registered model "
_READY = "READY"
_ARCHIVED = "Archived"
_CREATE_POSITION = 1
_NAME_LENGTH = 256
_DESCRIPTION_LENGTH = 100_000
_MODELS_DEFAULT_PAGE = 100
_MODELS_LARGEST_PAGE = 1000
_VERSIONS_DEFAULT_PAGE = 10_000
_VERSIONS_LARGEST_PAGE = 200_000


class Registry:
    """What can be done with registered models and their versions."""

    def __init__(self, *, database: Database, writer: Writer, resends: Resends) -> None:
        self._database = database
        self._writer = writer
        self._resends = resends

    # --- registered models ---

    async def create_model(
        self, request: messages.CreateRegisteredModelRequest, origin: Origin
    ) -> messages.RegisteredModelMessage:
        """Make a registered model, or a prompt.

        Raises:
            MlflowError: the name is taken, or not allowed.
        """
        name = _check_new_name(request.name)
        tags = messages.parse_tags(request.tags)
        _check_description(request.description)

        def make(transaction: Transaction) -> Made[messages.RegisteredModelMessage]:
            _refuse_taken_name(transaction, name, is_prompt=messages.says_prompt(tags))
            upstream_name = _free_upstream_name(transaction, name)
            lane_id = open_lane(transaction, LaneKind.REGISTERED_MODEL, 0)
            model_pk = registry.insert(
                transaction,
                name=name,
                upstream_name=upstream_name,
                description=request.description,
                principal=origin.principal,
                lane_id=lane_id,
            )
            registry.set_tags(transaction, model_pk, tags)
            if not messages.says_prompt(tags):
                operation = CreateRegisteredModel(upstream_name, request.description, tags)
                append_entry(transaction, lane_id, operation, principal=origin.principal)
            announcements.announce_model(transaction, name, tags, request.description)
            return Made(load_models(transaction, [model_pk])[0], f"{_MODEL_SUBJECT}{model_pk}")

        return await self._resends.commit(
            Create(CreateKind.REGISTERED_MODEL, make, _repeat_model, alone=True), origin
        )

    async def rename_model(self, name: str, new_name: str) -> messages.RegisteredModelMessage:
        """Rename here; the workspace cannot rename, so the name there stays as it was."""
        wanted = _check_new_name(new_name)

        def apply(transaction: Transaction) -> messages.RegisteredModelMessage:
            model = get_registered_model(transaction, name)
            taken = registry.find(transaction, wanted)
            if taken is not None and taken.model_pk != model.model_pk:
                raise already_exists(f"Registered Model (name={wanted}) already exists.")
            registry.set_name(transaction, model.model_pk, wanted)
            return load_models(transaction, [model.model_pk])[0]

        return await self._writer.commit(Work(apply, alone=True))

    async def update_model(
        self, name: str, description: str | None, principal: str | None
    ) -> messages.RegisteredModelMessage:
        """Change the description."""
        _check_description(description)

        def change(transaction: Transaction, model: RegisteredModel) -> messages.RegisteredModelMessage:
            registry.set_description(transaction, model.model_pk, description)
            operation = UpdateRegisteredModel(model.upstream_name, description or "")
            _deliver(transaction, model, operation, principal)
            return load_models(transaction, [model.model_pk])[0]

        return await self._change_model(name, change)

    async def delete_model(self, name: str) -> None:
        """Delete here, with all versions; the workspace keeps what it has."""
        await self._change_model(
            name, lambda transaction, model: registry.delete(transaction, model.model_pk)
        )

    async def get_model(self, name: str) -> messages.RegisteredModelMessage:
        """One registered model, with the latest version of each stage."""

        def find(transaction: Transaction) -> messages.RegisteredModelMessage:
            return load_models(transaction, [get_registered_model(transaction, name).model_pk])[0]

        return await self._database.read(find)

    async def search_models(
        self, request: messages.SearchRegistryRequest
    ) -> tuple[list[messages.RegisteredModelMessage], str | None]:
        """A page of registered models, and the token of the next one."""
        limit = limits.check_page_size(
            request.max_results, default=_MODELS_DEFAULT_PAGE, largest=_MODELS_LARGEST_PAGE
        )
        offset = paging.decode_offset(request.page_token)
        filters = grammar.parse_registered_model_filter(request.filter)
        order = grammar.parse_registered_model_order(request.order_by)

        def find(transaction: Transaction) -> tuple[list[messages.RegisteredModelMessage], str | None]:
            model_pks, has_more = search.find_registered_models(
                transaction.connection, filters=filters, order=order, offset=offset, limit=limit
            )
            found = load_models(transaction, model_pks)
            return found, paging.encode_offset(offset + limit) if has_more else None

        return await self._database.read(find)

    async def latest_versions(self, name: str, stages: Sequence[str]) -> list[messages.ModelVersionMessage]:
        """The latest version of each stage, or of those asked for."""

        def find(transaction: Transaction) -> list[messages.ModelVersionMessage]:
            model = get_registered_model(transaction, name)
            wanted = {messages.parse_stage(stage) for stage in stages} or set(messages.STAGES)
            latest = registry.list_latest(transaction, [model.model_pk])
            return load_versions(transaction, [item for item in latest if item.current_stage in wanted])

        return await self._database.read(find)

    async def set_model_tag(self, name: str, key: str, value: str | None, principal: str | None) -> None:
        """Set one tag."""
        tag = messages.parse_tag(key, value)

        def change(transaction: Transaction, model: RegisteredModel) -> None:
            registry.set_tags(transaction, model.model_pk, dict([tag]))
            _deliver(transaction, model, SetRegisteredModelTag(model.upstream_name, *tag), principal)
            announcements.announce_model_tag(transaction, model, *tag)

        await self._change_model(name, change)

    async def delete_model_tag(self, name: str, key: str, principal: str | None) -> None:
        """Delete one tag, if it is there."""
        limits.check_key(key, "key")

        def change(transaction: Transaction, model: RegisteredModel) -> None:
            if registry.delete_tag(transaction, model.model_pk, key):
                _deliver(transaction, model, DeleteRegisteredModelTag(model.upstream_name, key), principal)
            announcements.announce_model_tag(transaction, model, key, None)

        await self._change_model(name, change)

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias to a version."""
        limits.check_alias(alias)

        def change(transaction: Transaction, model: RegisteredModel) -> None:
            found = get_version(transaction, model, version)
            registry.set_alias(transaction, model.model_pk, alias, found.version)
            announcements.announce_alias(transaction, model, alias, found.version)

        await self._change_model(name, change)

    async def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias, if it is there."""
        messages.check_alias_reference(alias)

        def change(transaction: Transaction, model: RegisteredModel) -> None:
            registry.delete_alias(transaction, model.model_pk, alias)
            announcements.announce_alias(transaction, model, alias, None)

        await self._change_model(name, change)

    async def _change_model(self, name: str, change: Callable[[Transaction, RegisteredModel], T]) -> T:
        return await self._writer.commit(
            Work(lambda transaction: change(transaction, get_registered_model(transaction, name)))
        )

    # --- versions ---

    async def create_version(
        self, request: messages.CreateVersionRequest, origin: Origin
    ) -> messages.ModelVersionMessage:
        """Make the next version of a registered model.

        A client that asks again because it missed the answer is given the version it made.

        Raises:
            MlflowError: there is no such model, or the source is not allowed.
        """
        tags = messages.parse_tags(request.tags)
        _check_description(request.description)
        for field in ("run_id", "run_link", "model_id"):
            limits.check_length(field, limits.ARTIFACT_LOCATION, getattr(request, field))
            limits.check_text(field, getattr(request, field) or "")

        def make(transaction: Transaction) -> Made[messages.ModelVersionMessage]:
            model = get_registered_model(transaction, request.name)
            source = _source_of(transaction, request, is_prompt=messages.says_prompt(tags))
            version = _new_version(transaction, model, source, request, origin.principal)
            registry.insert_version(transaction, version, tags, principal=origin.principal)
            if not messages.says_prompt(tags):
                _deliver_version(transaction, model, version, source, tags, origin.principal)
            made = load_versions(transaction, [version])[0]
            announcements.announce_version(transaction, made, tags)
            return Made(made, registry.version_subject(model.model_pk, version.version))

        def repeat(transaction: Transaction, subject: str) -> messages.ModelVersionMessage | None:
            return _repeat_version(transaction, subject, origin.principal)

        create = Create(CreateKind.MODEL_VERSION, make, repeat, rows=2 + len(tags))
        return await self._resends.commit(create, origin)

    async def update_version(
        self, name: str, version: str, description: str | None, principal: str | None
    ) -> messages.ModelVersionMessage:
        """Change the description."""
        _check_description(description)

        def change(transaction: Transaction, model: RegisteredModel, found: ModelVersion) -> None:
            registry.set_version_description(transaction, (model.model_pk, found.version), description)
            operation = UpdateModelVersion(found.version, description or "")
            _deliver(transaction, model, operation, principal, of=found)

        return await self._change_version(name, version, change)

    async def transition(
        self, request: messages.TransitionRequest, principal: str | None
    ) -> messages.ModelVersionMessage:
        """Move a version to a stage, and those that are in it to `Archived` if asked for."""
        stage = messages.parse_stage(request.stage)
        archive = request.archive_existing_versions
        if archive and stage not in messages.ACTIVE_STAGES:
            raise invalid_parameter(
                "Model version transition cannot archive existing model versions because "
                f"'{request.stage}' is not an Active stage. Valid stages are {list(messages.ACTIVE_STAGES)}"
            )

        def change(transaction: Transaction, model: RegisteredModel, found: ModelVersion) -> None:
            if archive:
                others = registry.list_in_stage(transaction, model.model_pk, stage)
                keys = [(model.model_pk, other) for other in others if other != found.version]
                registry.set_stage(transaction, keys, _ARCHIVED)
            registry.set_stage(transaction, [(model.model_pk, found.version)], stage)
            registry.touch(transaction, model.model_pk)
            operation = TransitionModelVersion(found.version, stage, archive)
            _deliver(transaction, model, operation, principal, of=found)

        return await self._change_version(request.name, request.version, change)

    async def delete_version(self, name: str, version: str, principal: str | None) -> None:
        """Delete a version with its aliases; its number is not given out again."""

        def change(transaction: Transaction, model: RegisteredModel) -> None:
            found = get_version(transaction, model, version)
            _deliver(transaction, model, DeleteModelVersion(found.version), principal, of=found)
            registry.delete_version(transaction, (model.model_pk, found.version))
            registry.touch(transaction, model.model_pk)

        await self._change_model(name, change)

    async def get_version(self, name: str, version: str) -> messages.ModelVersionMessage:
        """One version."""
        return await self._read_version(
            name, lambda transaction, model: get_version(transaction, model, version)
        )

    async def get_version_by_alias(self, name: str, alias: str) -> messages.ModelVersionMessage:
        """The version that an alias points to."""
        return await self._read_version(
            name, lambda transaction, model: get_version_by_alias(transaction, model, alias)
        )

    async def search_versions(
        self, request: messages.SearchRegistryRequest
    ) -> tuple[list[messages.ModelVersionMessage], str | None]:
        """A page of versions, and the token of the next one."""
        limit = limits.check_page_size(
            request.max_results, default=_VERSIONS_DEFAULT_PAGE, largest=_VERSIONS_LARGEST_PAGE
        )
        offset = paging.decode_offset(request.page_token)
        filters = grammar.parse_model_version_filter(request.filter)
        order = grammar.parse_model_version_order(request.order_by)

        def find(transaction: Transaction) -> tuple[list[messages.ModelVersionMessage], str | None]:
            keys, has_more = search.find_model_versions(
                transaction.connection, filters=filters, order=order, offset=offset, limit=limit
            )
            found = load_versions(transaction, registry.get_versions(transaction, keys))
            return found, paging.encode_offset(offset + limit) if has_more else None

        return await self._database.read(find)

    async def download_uri(self, name: str, version: str) -> str:
        """Where the version's files can be loaded from."""

        def find(transaction: Transaction) -> str:
            found = get_version(transaction, get_registered_model(transaction, name), version)
            return found.storage_location or found.source

        return await self._database.read(find)

    async def set_version_tag(
        self, name: str, version: str, key: str, value: str | None, principal: str | None
    ) -> None:
        """Set one tag of a version."""
        tag = messages.parse_tag(key, value)

        def change(transaction: Transaction, model: RegisteredModel, found: ModelVersion) -> None:
            _deliver(transaction, model, SetModelVersionTag(found.version, *tag), principal, of=found)
            registry.set_version_tags(transaction, (model.model_pk, found.version), dict([tag]))
            announcements.announce_version_tag(transaction, model, found.version, *tag)

        await self._change_version(name, version, change)

    async def delete_version_tag(self, name: str, version: str, key: str, principal: str | None) -> None:
        """Delete one tag of a version, if it is there."""
        limits.check_key(key, "key")

        def change(transaction: Transaction, model: RegisteredModel, found: ModelVersion) -> None:
            if registry.delete_version_tag(transaction, (model.model_pk, found.version), key):
                _deliver(transaction, model, DeleteModelVersionTag(found.version, key), principal, of=found)
            announcements.announce_version_tag(transaction, model, found.version, key, None)

        await self._change_version(name, version, change)

    async def _read_version(self, name: str, read: ReadVersion) -> messages.ModelVersionMessage:
        def find(transaction: Transaction) -> messages.ModelVersionMessage:
            model = get_registered_model(transaction, name)
            return load_versions(transaction, [read(transaction, model)])[0]

        return await self._database.read(find)

    async def _change_version(
        self, name: str, version: str, change: ChangeVersion
    ) -> messages.ModelVersionMessage:
        def apply(transaction: Transaction, model: RegisteredModel) -> messages.ModelVersionMessage:
            found = get_version(transaction, model, version)
            change(transaction, model, found)
            return load_versions(transaction, [get_version(transaction, model, str(found.version))])[0]

        return await self._change_model(name, apply)


# --- delivering -----------------------------------------------------------------------------


def _deliver(
    transaction: Transaction,
    model: RegisteredModel,
    operation: Operation,
    principal: str | None,
    *,
    of: ModelVersion | None = None,
    awaits: Sequence[Awaited] = (),
    awaits_end_of: Sequence[int] = (),
) -> None:
    """Put the operation on the model's lane, unless it is about a prompt."""
    if model.born == Birthplace.PROXY and not registry.is_announced(transaction, model.lane_id):
        return
    if of is not None and _is_prompt_version(transaction, of):
        return
    append_entry(
        transaction,
        model.lane_id,
        operation,
        principal=principal,
        awaits=awaits,
        awaits_end_of=awaits_end_of,
    )


def _is_prompt_version(transaction: Transaction, version: ModelVersion) -> bool:
    key = (version.model_pk, version.version)
    return messages.says_prompt(dict(registry.list_version_tags(transaction, [key]).get(key, [])))


def _deliver_version(
    transaction: Transaction,
    model: RegisteredModel,
    version: ModelVersion,
    source: Source,
    tags: Mapping[str, str],
    principal: str | None,
) -> None:
    """Deliver a new version, after the files it is made of and the run they belong to."""
    files = source.files
    run_id = files.run_id if files else source.run_id
    run = runs.find_lanes(transaction, run_id) if run_id else None
    awaits: list[Awaited] = []
    ends: list[int] = []
    if run is not None:
        pending = list_pending_lanes(transaction, [run.data_lane, run.artifact_lane])
        # A run that was born in the workspace has no create on its lane.
        if run.data_lane in pending and not is_settled(transaction, run.data_lane, _CREATE_POSITION):
            awaits.append(Awaited(run.data_lane, _CREATE_POSITION))
        if files is not None and run.artifact_lane in pending:
            ends.append(run.artifact_lane)
    operation = CreateModelVersion(
        version.version,
        run_id,
        files.upstream_path if files else None,
        source.location,
        version.description,
        dict(tags),
        uid=uuid4().hex,
    )
    _deliver(transaction, model, operation, principal, awaits=awaits, awaits_end_of=ends)


# --- creating -------------------------------------------------------------------------------


def _refuse_taken_name(transaction: Transaction, name: str, *, is_prompt: bool) -> None:
    taken = registry.find(transaction, name)
    if taken is None:
        return
    tags = dict(registry.list_tags(transaction, [taken.model_pk]).get(taken.model_pk, []))
    old, new = (
        "Prompt" if prompt else "Registered Model" for prompt in (messages.says_prompt(tags), is_prompt)
    )
    if old != new:
        raise already_exists(
            f"Tried to create a {new.lower()} with name {name!r}, but the name is already taken by a"
            f" {old.lower()}. MLflow does not allow creating a model and a prompt with the same name."
        )
    raise already_exists(f"{new} (name={name}) already exists.")


def _free_upstream_name(transaction: Transaction, name: str) -> str:
    wanted = upstream_model_name(name)
    candidate = wanted
    number = 2
    while registry.upstream_name_is_taken(transaction, candidate):
        candidate = f"{wanted}-{number}"
        number += 1
    return candidate


def _repeat_model(transaction: Transaction, subject: str) -> messages.RegisteredModelMessage | None:
    """The registered model that an earlier create made, as it is now; None when it is deleted."""
    found = load_models(transaction, [int(subject.removeprefix(_MODEL_SUBJECT))])
    return found[0] if found else None


def _repeat_version(
    transaction: Transaction, subject: str, principal: str | None
) -> messages.ModelVersionMessage | None:
    """The version that an earlier create made, tagged as asked for again; None when it is deleted."""
    key = registry.version_key(subject)
    models = registry.get_many(transaction, [key[0]])
    versions = registry.get_versions(transaction, [key])
    if not models or not versions:
        return None
    if DEDUPED_TAG not in dict(registry.list_version_tags(transaction, [key]).get(key, [])):
        registry.set_version_tags(transaction, key, {DEDUPED_TAG: DEDUPED})
        operation = SetModelVersionTag(key[1], DEDUPED_TAG, DEDUPED)
        _deliver(transaction, models[0], operation, principal, of=versions[0])
    return load_versions(transaction, versions)[0]


def _source_of(
    transaction: Transaction, request: messages.CreateVersionRequest, *, is_prompt: bool
) -> Source:
    if is_prompt:
        check_prompt_source(request.source)
        return Source(request.source, None, request.run_id or None, request.model_id or None, None)
    return resolve_source(transaction, request.source, run_id=request.run_id, model_id=request.model_id)


def _new_version(
    transaction: Transaction,
    model: RegisteredModel,
    source: Source,
    request: messages.CreateVersionRequest,
    principal: str | None,
) -> ModelVersion:
    return ModelVersion(
        model_pk=model.model_pk,
        version=registry.take_version(transaction, model.model_pk),
        creation_timestamp_ms=transaction.now_ms,
        last_updated_timestamp_ms=transaction.now_ms,
        description=request.description,
        user_id=principal,
        current_stage=messages.NO_STAGE,
        source=source.source,
        storage_location=source.storage_location,
        run_id=source.run_id,
        run_link=request.run_link or None,
        model_id=source.model_id,
        status=_READY,
        status_message=None,
    )


def _check_new_name(name: str) -> str:
    checked = limits.check_model_name(name)
    limits.check_length("name", _NAME_LENGTH, checked)
    return checked


def _check_description(description: str | None) -> None:
    limits.check_length("description", _DESCRIPTION_LENGTH, description)
    limits.check_text("description", description or "")
