"""Where the files of a model version are: reading the `source` that a client gives for it.

A source is foreign text that clients later load models from, so it is judged before anything is made
of it: in the form it has once nothing can be decoded any more, as a whole, and by what is allowed.
Places of our own (`mlflow-artifacts:`, `runs:`, `models:`) are resolved to the folder that holds the
files and to where these files are in the workspace; any other place is kept as it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, unquote

from server.database.engine import Transaction
from server.domain.entities import LifecycleStage, RunInfo
from server.domain.errors import MlflowError, does_not_exist, invalid_parameter
from server.protocol import limits
from server.protocol.artifacts import prefix_of_uri
from server.protocol.registry import check_alias_reference, parse_stage, parse_version, says_prompt
from server.store import artifacts, logged_models, registry, runs
from server.store.logged_models import LoggedModel
from server.store.registry import ModelVersion, RegisteredModel

PROMPT_SOURCES = frozenset({"dummy-source", "prompt-template"})
_ARTIFACTS = "mlflow-artifacts"
_OWN_SCHEMES = frozenset({_ARTIFACTS, "runs", "models"})
_ARTIFACT_ROUTE = "/api/2.0/mlflow-artifacts/artifacts/"
# One letter is a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):")
# Backslashes become slashes, and what follows # or ? is dropped, in the hands of some reader.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\#?]")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Files in the workspace: a path under the artifact folder of a run."""

    run_id: str
    upstream_path: str


@dataclass(frozen=True, slots=True)
class Source:
    """What a version's source means.

    `storage_location` is where clients load it from, None where that is the source itself; `files` is
    None where the workspace does not get the files from us.
    """

    source: str
    storage_location: str | None
    run_id: str | None
    model_id: str | None
    files: RunFiles | None

    @property
    def location(self) -> str:
        """Where the files are, for whoever asks."""
        return self.storage_location or self.source


@dataclass(frozen=True, slots=True)
class _Place:
    """A path inside the folder of a run or of a logged model."""

    run: RunInfo | None
    model: LoggedModel | None
    rest: Sequence[str]


def check_source(source: str) -> str:
    """The source's scheme, in lower case.

    Raises:
        MlflowError: the source leads into this server's files, out of its own folder, or reads
            differently to different readers.
    """
    limits.check_length("source", limits.ARTIFACT_LOCATION, source)
    limits.check_text("source", source)
    decoded = _fully_decoded(source)
    if any(_FORBIDDEN.search(text) or text != text.strip() for text in (source, decoded)):
        raise _not_absolute(source)
    match = _SCHEME.match(source)
    scheme = match.group(1).lower() if match else ""
    if not match or scheme == "file":
        raise invalid_parameter(
            f"Invalid model version source: '{source}'. To use a local path as a model version source, the"
            " run_id request parameter has to be specified and the local path has to be contained within the"
            " artifact directory of the run specified by the run_id."
            " This server keeps no artifacts under local paths."
        )
    rest = decoded[match.end() :]
    if not decoded.startswith(match.group()) or any(part in (".", "..") for part in rest.split("/")):
        raise _not_absolute(source)
    if scheme in _OWN_SCHEMES:
        _check_own(source, source[match.end() :])
    elif scheme in ("http", "https") and _ARTIFACT_ROUTE in re.sub("/+", "/", rest):
        _refuse_other("run_id", source)
    return scheme


def _check_own(source: str, rest: str) -> None:
    """A place of our own has no authority, and only such slashes as are written."""
    has_authority = rest.startswith("//") and not rest.startswith("///")
    parts = [part for part in rest.split("/") if part]
    hides_slash = any("/" in _fully_decoded(part) for part in parts)
    if not rest.startswith("/") or has_authority or hides_slash or not parts:
        raise _not_absolute(source)


def check_prompt_source(source: str) -> None:
    """A prompt has no files; its source is one of MLflow's placeholders.

    Raises:
        MlflowError: it is anything else.
    """
    if source not in PROMPT_SOURCES:
        raise invalid_parameter(
            f"Invalid prompt source: '{source}'. Prompt sources must use an MLflow placeholder."
        )


def resolve_source(
    transaction: Transaction, source: str, *, run_id: str | None, model_id: str | None
) -> Source:
    """What the source means, for a version that a client says is of this run and this logged model.

    Raises:
        MlflowError: the source is not allowed, or is not of that run or logged model.
    """
    scheme = check_source(source)
    known = runs.find_info(transaction, run_id) if run_id else None
    given_run = known.run_id if known else run_id or None
    if scheme == "models":
        return _resolve_models(transaction, source, given_run, model_id or None)
    if scheme == "runs":
        if model_id:
            _refuse_other("model_id", source)
        return _resolve_runs(transaction, source, given_run)
    if scheme == _ARTIFACTS:
        return _resolve_artifacts(transaction, source, given_run, model_id or None)
    if model_id:
        model = _get_logged_model(transaction, model_id, source)
        return Source(source, None, given_run or model.source_run_id, model_id, None)
    return Source(source, None, given_run, None, None)


def _resolve_artifacts(
    transaction: Transaction, source: str, run_id: str | None, model_id: str | None
) -> Source:
    parts = _parts(source)
    location = f"{_ARTIFACTS}:/{'/'.join(map(_quoted, parts))}"
    place = _locate(transaction, parts)
    model = place.model if place else None
    if model_id and (model is None or model.model_id != model_id):
        _refuse_other("model_id", source)
    owner = None
    if place is not None:
        owner = place.run.run_id if place.run else model.source_run_id if model else None
    if run_id and not model_id and owner != run_id:
        _refuse_other("run_id", source)
    files = _files(place) if place else None
    return Source(source, location, run_id or owner, model_id or (model.model_id if model else None), files)


def _resolve_runs(transaction: Transaction, source: str, run_id: str | None) -> Source:
    named, *path = _parts(source)
    run = runs.find_info(transaction, named)
    if run_id and run_id != (run.run_id if run else named):
        _refuse_other("run_id", source)
    if run is None:
        return Source(source, None, named, None, None)
    model = _find_logged_model_at(transaction, run, path)
    folder, rest = (run.artifact_uri, path) if model is None else (model.artifact_uri, path[1:])
    location = "/".join([folder.rstrip("/"), *map(_quoted, rest)])
    return Source(source, location, run.run_id, None, RunFiles(run.run_id, "/".join(path)))


def _find_logged_model_at(transaction: Transaction, run: RunInfo, path: Sequence[str]) -> LoggedModel | None:
    """What MLflow 3 calls `runs:/…/model` may be a logged model, unless the run has such files itself."""
    model = logged_models.find_by_upstream_folder(transaction, run.run_id, path[0]) if path else None
    if model is None or model.lifecycle_stage is not LifecycleStage.ACTIVE:
        return None
    root_id = artifacts.find_root(transaction, prefix_of_uri(run.artifact_uri) or "")
    has_own = root_id is not None and artifacts.is_folder(transaction, root_id, path[0])
    return None if has_own else model


def _resolve_models(
    transaction: Transaction, source: str, run_id: str | None, model_id: str | None
) -> Source:
    parts = _parts(source)
    if len(parts) == 1 and "@" not in parts[0]:
        if model_id and model_id != parts[0]:
            _refuse_other("model_id", source)
        model = _get_logged_model(transaction, parts[0], source)
        files = _files(_Place(None, model, ()))
        return Source(source, model.artifact_uri, run_id or model.source_run_id, model.model_id, files)
    registered, version = _find_named_version(transaction, source, parts)
    if (run_id and run_id != version.run_id) or (model_id and model_id != version.model_id):
        raise invalid_parameter(
            f"Invalid model version source: '{source}'. The run_id and model_id request parameters must match"
            " the referenced model version."
        )
    location = version.storage_location or version.source
    place = _locate(transaction, _parts(location)) if location.startswith(f"{_ARTIFACTS}:/") else None
    return Source(
        f"models:/{registered.name}/{version.version}",
        location,
        version.run_id,
        version.model_id,
        _files(place) if place else None,
    )


def _find_named_version(
    transaction: Transaction, source: str, parts: Sequence[str]
) -> tuple[RegisteredModel, ModelVersion]:
    """The version that `models:/name/version`, `/stage`, `/latest` or `name@alias` names."""
    name, at, alias = parts[0].rpartition("@") if len(parts) == 1 else (parts[0], "", "")
    if len(parts) > len(("name", "version")) or (at and not alias):
        _refuse_other("model_id", source)
    model = get_registered_model(transaction, name)
    if says_prompt(dict(registry.list_tags(transaction, [model.model_pk]).get(model.model_pk, []))):
        raise invalid_parameter(
            f"Invalid model version source: '{source}'. Prompt versions cannot be used as"
            " model version sources."
        )
    if at:
        return model, get_version_by_alias(transaction, model, alias)
    if parts[1].isascii() and parts[1].isdigit():
        return model, get_version(transaction, model, parts[1])
    stage = None if parts[1].lower() == "latest" else parse_stage(parts[1])
    return model, get_latest_version(transaction, model, stage)


def _locate(transaction: Transaction, parts: Sequence[str]) -> _Place | None:
    """The run or logged model whose folder holds this place of our artifact store."""
    for index in range(1, len(parts)):
        if parts[index] != "artifacts":
            continue
        name, folder, rest = parts[index - 1], list(parts[: index + 1]), parts[index + 1 :]
        if _MODEL_ID.fullmatch(name):
            model = logged_models.find(transaction, name)
            if model is not None and _parts(model.artifact_uri) == folder:
                return _Place(None, model, rest)
        else:
            run = runs.find_info(transaction, name)
            if run is not None and _parts(run.artifact_uri) == folder:
                return _Place(run, None, rest)
    return None


def _files(place: _Place) -> RunFiles | None:
    if place.run is not None:
        return RunFiles(place.run.run_id, "/".join(place.rest))
    model = place.model
    if model is None or model.upstream_folder is None or model.source_run_id is None:
        return None
    return RunFiles(model.source_run_id, "/".join([model.upstream_folder, *place.rest]))


# --- finding registered things --------------------------------------------------------------


def get_registered_model(transaction: Transaction, name: str) -> RegisteredModel:
    """The registered model.

    Raises:
        MlflowError: there is none.
    """
    model = registry.find(transaction, limits.check_model_name(name))
    if model is None:
        raise does_not_exist(f"Registered Model with name={name} not found")
    return model


def get_version(transaction: Transaction, model: RegisteredModel, text: str) -> ModelVersion:
    """The version of this number.

    Raises:
        MlflowError: there is none, or it is deleted.
    """
    version = registry.find_version(transaction, model.model_pk, parse_version(text))
    if version is None:
        raise does_not_exist(f"Model Version (name={model.name}, version={text}) not found")
    return version


def get_latest_version(transaction: Transaction, model: RegisteredModel, stage: str | None) -> ModelVersion:
    """The highest version, of one stage or of all.

    Raises:
        MlflowError: there is none.
    """
    found = [
        version
        for version in registry.list_latest(transaction, [model.model_pk])
        if stage is None or version.current_stage == stage
    ]
    if not found:
        raise does_not_exist(f"Latest version not found for model {model.name}.")
    return found[-1]


def get_version_by_alias(transaction: Transaction, model: RegisteredModel, alias: str) -> ModelVersion:
    """The version that an alias points to; `latest` always points to the highest.

    Raises:
        MlflowError: there is no such alias.
    """
    if alias.lower() == "latest":
        return get_latest_version(transaction, model, None)
    check_alias_reference(alias)
    number = registry.find_alias(transaction, model.model_pk, alias)
    if number is None:
        raise invalid_parameter(f"Registered model alias {alias} not found.")
    return get_version(transaction, model, str(number))


def _get_logged_model(transaction: Transaction, model_id: str, source: str) -> LoggedModel:
    model = logged_models.find(transaction, model_id)
    if model is None or model.lifecycle_stage is not LifecycleStage.ACTIVE:
        _refuse_other("model_id", source)
    return model


# --- text -----------------------------------------------------------------------------------


def _fully_decoded(text: str) -> str:
    while (plain := unquote(text)) != text:
        text = plain
    return text


def _rest(source: str) -> str:
    return source.partition(":")[2]


def _parts(source: str) -> list[str]:
    """The names in the source's path, decoded as the artifact routes decode them: once."""
    return [unquote(part) for part in _rest(source).split("/") if part]


def _quoted(part: str) -> str:
    return quote(part, safe=" !$&'()*+,;=:@") if "%" in part else part


def _not_absolute(source: str) -> MlflowError:
    return invalid_parameter(
        f"Invalid model version source: '{source}'. If supplying a source as an http, https, local file path,"
        " ftp, objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path"
        " references present. Please provide an absolute path."
    )


def _refuse_other(field: str, source: str) -> NoReturn:
    raise invalid_parameter(
        f"Invalid model version source: '{source}'. The {field} request parameter must identify the resource"
        " that contains the source."
    )
