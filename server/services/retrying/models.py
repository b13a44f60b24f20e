"""Parked operations of a registered model."""

from typing import assert_never

from server.domain.operations import (
    CreateModelVersion,
    CreateRegisteredModel,
    DeleteModelVersion,
    DeleteModelVersionTag,
    DeleteRegisteredModelTag,
    SetModelVersionTag,
    SetRegisteredModelTag,
    TransitionModelVersion,
    UpdateModelVersion,
    UpdateRegisteredModel,
)
from server.services.retrying.judgements import Ground, Judgement, Resend, Superseded, kept_if
from server.store import registry

OfModel = CreateRegisteredModel | UpdateRegisteredModel | SetRegisteredModelTag | DeleteRegisteredModelTag
OfVersion = (
    CreateModelVersion
    | UpdateModelVersion
    | TransitionModelVersion
    | SetModelVersionTag
    | DeleteModelVersionTag
    | DeleteModelVersion
)


def judge_model_operation(ground: Ground, model_pk: int, operation: OfModel) -> Judgement:
    """What to do with a parked operation of a registered model."""
    model = next(iter(registry.get_many(ground.transaction, [model_pk])), None)
    if model is None:
        return Superseded("The registered model was deleted since.")
    tags = dict(registry.list_tags(ground.transaction, [model_pk]).get(model_pk, []))
    match operation:
        case CreateRegisteredModel():
            return Resend(operation)
        case UpdateRegisteredModel(_, description):
            is_current = (model.description or "") == description
            return kept_if(is_current, operation, "The description was changed since.")
        case SetRegisteredModelTag(_, key, value):
            return kept_if(
                tags.get(key) == value, operation, f"The tag {key!r} was changed or deleted since."
            )
        case DeleteRegisteredModelTag(_, key):
            return kept_if(key not in tags, operation, f"The tag {key!r} was set again since.")
        case _:
            assert_never(operation)


def judge_version_operation(ground: Ground, model_pk: int, operation: OfVersion) -> Judgement:
    """What to do with a parked operation of a model version."""
    key = (model_pk, operation.version)
    upstream_version = ground.value(
        "SELECT upstream_version FROM model_versions WHERE model_pk = ? AND version = ?", *key
    )
    version = next(iter(registry.get_versions(ground.transaction, [key])), None)
    if isinstance(operation, DeleteModelVersion):
        is_there = upstream_version is not None
        return kept_if(is_there, operation, "The workspace never had this version.")
    if version is None:
        return Superseded("The version was deleted since.")
    tags = dict(registry.list_version_tags(ground.transaction, [key]).get(key, []))
    match operation:
        case CreateModelVersion():
            if upstream_version is not None:
                return Superseded("The workspace has this version.")
            return _create_version(ground, operation)
        case UpdateModelVersion(_, description):
            is_current = (version.description or "") == description
            return kept_if(is_current, operation, "The description was changed since.")
        case TransitionModelVersion(_, stage):
            return kept_if(version.current_stage == stage, operation, "The stage was changed since.")
        case SetModelVersionTag(_, name, value):
            is_current = tags.get(name) == value
            return kept_if(is_current, operation, f"The tag {name!r} was changed or deleted since.")
        case DeleteModelVersionTag(_, name):
            return kept_if(name not in tags, operation, f"The tag {name!r} was set again since.")
        case _:
            assert_never(operation)


def _create_version(ground: Ground, operation: CreateModelVersion) -> Judgement:
    """A version is made after the run that it belongs to and the files that it is made of."""
    lanes = ground.transaction.rows(
        "SELECT data_lane_id, artifact_lane_id FROM runs WHERE run_id = ? OR upstream_id = ?",
        (operation.run_id, operation.run_id),
    )
    if not lanes:
        return Resend(operation)
    data_lane, artifact_lane = lanes[0]
    files = (artifact_lane,) if operation.upstream_path is not None else ()
    return Resend(operation, awaits=ground.creates_of([data_lane]), awaits_end_of=files)
