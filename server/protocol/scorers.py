"""Wire messages about scorers, and what a serialized scorer may hold.

Scorers are code or configuration of code for whoever loads them. None is ever loaded here; what a
stock server would refuse to load is refused all the same, because clients trust what is registered.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from server.domain.errors import does_not_exist, invalid_parameter
from server.protocol import limits
from server.protocol.wire import Request

_GATEWAY = "gateway:/"
_DESTINATION_KEYS = frozenset({"api_base", "base_url", "model_list", "fallbacks", "custom_llm_provider"})
_NO_CODE = (
    "Custom scorer registration (using @scorer decorator) is disabled by default outside of Databricks"
    " tracking environments due to security concerns. Custom scorers require arbitrary code execution"
    " during deserialization.\n\nThis server never runs scorers and takes none that hold code: manage"
    " custom scorer code in a source code repository and import it directly, or use built-in scorers"
    " or make_judge() scorers instead."
)


class RegisterScorerRequest(Request):
    """scorers/register."""

    experiment_id: str = ""
    name: str = ""
    serialized_scorer: str = ""


class ListScorersRequest(Request):
    """scorers/list: of one experiment, of several, or of all."""

    experiment_id: str = ""
    experiment_ids: list[str] | None = None


class ScorerRequest(Request):
    """scorers/versions; with a version, scorers/get and scorers/delete."""

    experiment_id: str = ""
    name: str = ""
    version: int | None = None


class OnlineConfigsRequest(Request):
    """scorers/online-configs, which clients read with every list of scorers."""

    scorer_ids: list[str] = []


class RegisterScorerAnswer(msgspec.Struct):
    """The version that was made."""

    version: int
    scorer_id: str
    experiment_id: str
    name: str
    serialized_scorer: str
    creation_time: int


class ScorerMessage(msgspec.Struct):
    """A version of a scorer in an answer. The experiment's id is a number here, alone of all messages."""

    experiment_id: int
    scorer_name: str
    scorer_version: int
    serialized_scorer: str
    creation_time: int
    scorer_id: str


class ScorerAnswer(msgspec.Struct):
    """scorers/get."""

    scorer: ScorerMessage


class OnlineConfigsAnswer(msgspec.Struct):
    """How scorers are run on traces as they come: none is."""

    configs: list[str] = []


class ScorersAnswer(msgspec.Struct, omit_defaults=True):
    """scorers/list and scorers/versions."""

    scorers: list[ScorerMessage] = []


def check_name(name: str) -> str:
    """A scorer's name."""
    if not name.strip():
        raise invalid_parameter("Scorer name cannot be empty or contain only whitespace.")
    limits.check_length("name", limits.ENTITY_KEY, name)
    limits.check_text("name", name)
    return name


def check_serialized(text: str) -> str:
    """A serialized scorer, refused where it holds code or would choose where requests go.

    Raises:
        MlflowError: it is refused, is no JSON object, or names a gateway endpoint, of which there are none.
    """
    try:
        scorer = json.loads(text)
        _check_content(scorer)
    except (ValueError, RecursionError) as error:
        raise invalid_parameter("serialized_scorer must be valid JSON") from error
    limits.check_text("serialized_scorer", text)
    return text


def _check_content(scorer: object) -> None:
    if not isinstance(scorer, dict):
        raise invalid_parameter("serialized_scorer must be a JSON object")
    for part in _objects(scorer):
        if part.get("call_source") is not None:
            raise invalid_parameter(_NO_CODE)
        if isinstance(part.get("third_party_scorer_data"), dict):
            _check_third_party(part["third_party_scorer_data"])
    _check_model(_model_of(scorer))


def _check_third_party(data: dict[str, Any]) -> None:
    kwargs = data.get("kwargs")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise invalid_parameter(
            f"third_party_scorer_data.kwargs must be a JSON object, got {type(kwargs).__name__}."
        )
    found = sorted(set(_keys(kwargs)) & _DESTINATION_KEYS)
    if found:
        raise invalid_parameter(
            f"third_party_scorer_data.kwargs must not contain {', '.join(map(repr, found))}: these options"
            " choose where the scorer's LLM client sends requests. Configure the judge endpoint on the"
            " server instead, for example through a gateway endpoint ('gateway:/<name>') or the"
            " provider's environment variables."
        )


def _model_of(scorer: object) -> object:
    if not isinstance(scorer, dict):
        return None
    for key in ("instructions_judge_pydantic_data", "builtin_scorer_pydantic_data"):
        if isinstance(data := scorer.get(key), dict):
            return data.get("model")
    if isinstance(data := scorer.get("memory_augmented_judge_data"), dict):
        return _model_of(data.get("base_judge"))
    data = scorer.get("third_party_scorer_data")
    return data.get("model") if isinstance(data, dict) else None


def _check_model(model: object) -> None:
    if model is None:
        return
    if not isinstance(model, str):
        raise invalid_parameter(f"Scorer model must be a string, got {type(model).__name__}.")
    if not model.strip():
        raise invalid_parameter("Scorer model cannot be empty or contain only whitespace.")
    if model.startswith(_GATEWAY):
        name = model.removeprefix(_GATEWAY).strip("/")
        raise does_not_exist(f"GatewayEndpoint not found (name='{name}'): this server has no AI gateway.")


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """Every JSON object in a value, itself included."""
    if isinstance(value, dict):
        yield value
    for nested in _nested(value):
        yield from _objects(nested)


def _keys(value: object) -> Iterator[str]:
    """Every key in a value; a list of pairs is an object to whoever calls `dict` on it."""
    if isinstance(value, dict):
        yield from value
    elif isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
        yield value[0]
    for nested in _nested(value):
        yield from _keys(nested)


def _nested(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
