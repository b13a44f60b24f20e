"""Wire messages about registered models and their versions."""

import re

import msgspec

from server.domain.errors import invalid_parameter
from server.protocol import limits
from server.protocol.experiments import TagMessage
from server.protocol.wire import Request

PROMPT_TAG = "mlflow.prompt.is_prompt"
NO_STAGE = "None"
STAGES = (NO_STAGE, "Staging", "Production", "Archived")
ACTIVE_STAGES = ("Staging", "Production")
_STAGE_BY_LOWER = {stage.lower(): stage for stage in STAGES}
_LARGEST_VERSION = 2**31 - 1
_RESERVED_ALIAS = re.compile(r"latest|v[0-9]+", re.IGNORECASE)


class CreateRegisteredModelRequest(Request):
    """registered-models/create."""

    name: str = ""
    tags: list[TagMessage] = msgspec.field(default_factory=list)
    description: str | None = None


class RegisteredModelRequest(Request):
    """A request that names a registered model."""

    name: str = ""


class RenameRegisteredModelRequest(RegisteredModelRequest):
    """registered-models/rename."""

    new_name: str = ""


class UpdateRegisteredModelRequest(RegisteredModelRequest):
    """registered-models/update."""

    description: str | None = None


class SearchRegistryRequest(Request):
    """registered-models/search, model-versions/search, and registered-models/list of 1.x."""

    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] = msgspec.field(default_factory=list)
    page_token: str | None = None


class LatestVersionsRequest(RegisteredModelRequest):
    """registered-models/get-latest-versions."""

    stages: list[str] = msgspec.field(default_factory=list)


class ModelTagRequest(RegisteredModelRequest):
    """registered-models/set-tag and delete-tag."""

    key: str = ""
    value: str | None = None


class AliasRequest(RegisteredModelRequest):
    """registered-models/alias, to read or to delete one."""

    alias: str = ""


class SetAliasRequest(AliasRequest):
    """registered-models/alias, to set one."""

    version: str = ""


class CreateVersionRequest(RegisteredModelRequest):
    """model-versions/create."""

    source: str = ""
    run_id: str | None = None
    tags: list[TagMessage] = msgspec.field(default_factory=list)
    run_link: str | None = None
    description: str | None = None
    model_id: str | None = None


class ModelVersionRequest(RegisteredModelRequest):
    """A request that names a version."""

    version: str = ""


class UpdateVersionRequest(ModelVersionRequest):
    """model-versions/update."""

    description: str | None = None


class TransitionRequest(ModelVersionRequest):
    """model-versions/transition-stage."""

    stage: str = ""
    archive_existing_versions: bool = False


class VersionTagRequest(ModelVersionRequest):
    """model-versions/set-tag and delete-tag."""

    key: str = ""
    value: str | None = None


class ModelVersionMessage(msgspec.Struct, omit_defaults=True):
    """A version in an answer."""

    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    current_stage: str
    source: str
    status: str
    description: str
    run_id: str
    run_link: str
    user_id: str | None = None
    status_message: str | None = None
    tags: list[TagMessage] = []
    aliases: list[str] = []
    model_id: str | None = None


class AliasMessage(msgspec.Struct):
    """An alias of a registered model."""

    alias: str
    version: str


class RegisteredModelMessage(msgspec.Struct, omit_defaults=True):
    """A registered model in an answer, with the latest version of each stage."""

    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None
    latest_versions: list[ModelVersionMessage] = []
    tags: list[TagMessage] = []
    aliases: list[AliasMessage] = []


class RegisteredModelAnswer(msgspec.Struct):
    """registered-models/create, get, update and rename."""

    registered_model: RegisteredModelMessage


class RegisteredModelsAnswer(msgspec.Struct, omit_defaults=True):
    """registered-models/search and list."""

    registered_models: list[RegisteredModelMessage] = []
    next_page_token: str | None = None


class ModelVersionAnswer(msgspec.Struct):
    """One version."""

    model_version: ModelVersionMessage


class ModelVersionsAnswer(msgspec.Struct, omit_defaults=True):
    """model-versions/search and registered-models/get-latest-versions."""

    model_versions: list[ModelVersionMessage] = []
    next_page_token: str | None = None


class DownloadUriAnswer(msgspec.Struct):
    """model-versions/get-download-uri."""

    artifact_uri: str


def parse_stage(text: str) -> str:
    """A stage as MLflow spells it, from any case.

    Raises:
        MlflowError: there is no such stage.
    """
    stage = _STAGE_BY_LOWER.get(text.lower())
    if stage is None:
        raise invalid_parameter(
            f"Invalid Model Version stage: {text}. Value must be one of {', '.join(STAGES)}."
        )
    return stage


def check_alias_reference(alias: str) -> None:
    """An alias that is read or deleted: like one that is set, or one of those that are reserved.

    Raises:
        MlflowError: there can be no such alias.
    """
    if not _RESERVED_ALIAS.fullmatch(alias):
        limits.check_alias(alias)


def parse_version(text: str) -> int:
    """A version's number. One beyond what can exist is 0, which no version has.

    Raises:
        MlflowError: it is not a number.
    """
    try:
        version = int(text)
    except ValueError as error:
        raise invalid_parameter(f"Parameter 'version' must be an integer, got '{text[:100]}'.") from error
    return version if 0 < version <= _LARGEST_VERSION else 0


def parse_tag(key: str, value: str | None) -> tuple[str, str]:
    """A tag of a registered model or a version, checked.

    Raises:
        MlflowError: the key has characters that are not allowed, or one of them is too long.
    """
    limits.check_key(key, "key")
    text = value or ""
    limits.check_length("value", limits.REGISTRY_TAG_VALUE, text)
    limits.check_text("value", text)
    return key, text


def parse_tags(tags: list[TagMessage]) -> dict[str, str]:
    """The tags in a message, checked; of a repeated key the last counts."""
    return dict(parse_tag(tag.key, tag.value) for tag in tags)


def says_prompt(tags: dict[str, str]) -> bool:
    """Whether these tags make a registered model, or a version, a prompt."""
    return tags.get(PROMPT_TAG, "").lower() == "true"
