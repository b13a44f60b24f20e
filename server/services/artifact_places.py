"""Where the path of an artifact leads, and what may be written there. Inside of the caller's transaction."""

from dataclasses import dataclass

from server.database.engine import Transaction
from server.database.together import Change
from server.domain.errors import does_not_exist, invalid_parameter
from server.domain.operations import DeleteArtifact, UploadArtifact
from server.domain.overflow_files import OWN_FOLDER
from server.journal.entries import Appends, Awaited
from server.journal.lanes import is_settled
from server.protocol.artifacts import checked_folder, possible_addresses, prefix_of_uri
from server.services.identity import get_run, require_active_run
from server.store import artifacts, runs
from server.store.artifacts import ArtifactFile
from server.store.runs import RunLanes

CREATE_POSITION = 1
"""The position of a run's creation in its data lane."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: a root, a path in it, and the run whose folder in the workspace it belongs to."""

    prefix: str
    path: str
    run_pk: int | None = None
    model_pk: int | None = None
    delivery: RunLanes | None = None
    upstream_folder: str = ""

    @property
    def upstream_path(self) -> str:
        """The path under the run in the workspace."""
        return f"{self.upstream_folder}/{self.path}" if self.upstream_folder else self.path


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be read. Of one whose bytes are here, `place` does not say whose it is."""

    place: Place
    file: ArtifactFile

    @property
    def name(self) -> str:
        """The last segment of its path."""
        return self.file.path.rpartition("/")[2]


# --- places ---------------------------------------------------------------------------------


def place_of(transaction: Transaction, path: str) -> Place:
    """Where a path leads. A run or a logged model owns a folder if it says so itself."""
    for address in possible_addresses(path):
        if address.owner_id is None:
            continue
        home = runs.find_home(transaction, address.owner_id)
        if home is not None and prefix_of_uri(home[0]) == address.prefix:
            run = home[1]
            return Place(address.prefix, address.path, run_pk=run.run_pk, delivery=run)
        model = artifacts.find_model_folder(transaction, address.owner_id)
        if model is not None and prefix_of_uri(model.artifact_uri) == address.prefix:
            lanes = None
            if model.source_run_id and model.upstream_folder:
                lanes = runs.find_lanes(transaction, model.source_run_id)
            return Place(
                address.prefix,
                address.path,
                model_pk=model.model_pk,
                delivery=lanes,
                upstream_folder=model.upstream_folder or "",
            )
    return Place("", path)


def run_folder(transaction: Transaction, run_id: str) -> tuple[str, str]:
    """A run's own folder, as a path and as its URI."""
    uri = get_run(transaction, run_id).artifact_uri
    return _folder_of(uri), uri


def model_folder(transaction: Transaction, model_id: str) -> tuple[str, str]:
    """A logged model's own folder, as a path and as its URI."""
    model = artifacts.find_model_folder(transaction, model_id)
    if model is None:
        raise does_not_exist(f"Logged model with ID '{model_id}' not found.")
    return _folder_of(model.artifact_uri), model.artifact_uri


def version_folder(transaction: Transaction, name: str, version: int) -> str:
    """The folder that a model version was made from."""
    uri = artifacts.find_version_uri(transaction, name, version)
    if uri is None:
        raise does_not_exist(f"Model Version (name={name}, version={version}) not found")
    scheme, _, rest = uri.partition(":")
    owner_id, _, folder = rest.strip("/").partition("/")
    if scheme == "runs":
        return joined(run_folder(transaction, owner_id)[0], checked_folder(folder))
    if scheme == "models" and not folder:
        return model_folder(transaction, owner_id)[0]
    return _folder_of(uri)


def _folder_of(uri: str) -> str:
    folder = prefix_of_uri(uri)
    if folder is None:
        raise invalid_parameter(f"The artifacts under '{uri}' are not kept by this server.")
    return checked_folder(folder)


def joined(folder: str, path: str) -> str:
    """A path in a folder; either may be empty."""
    return f"{folder}/{path}" if folder and path else folder or path


# --- files ----------------------------------------------------------------------------------


def find_file(transaction: Transaction, path: str) -> FoundFile:
    """The file of that path.

    Raises:
        MlflowError: there is none.
    """
    here = find_file_here(transaction, path)
    if here is not None:
        return here
    place = place_of(transaction, path)
    root_id, file = artifacts.find_in_root(transaction, place.prefix, place.path)
    if file is not None:
        return FoundFile(place, file)
    if root_id is not None and artifacts.is_folder(transaction, root_id, place.path):
        raise invalid_parameter(f"Artifact path refers to a directory, not a file: '{path}'")
    raise does_not_exist(f"No such artifact: '{path}'")


def find_file_here(transaction: Transaction, path: str) -> FoundFile | None:
    """A file whose bytes are here, by one statement. Whose run it belongs to does not matter then."""
    address = possible_addresses(path)[0]
    if address.owner_id is None:
        return None
    file = artifacts.find_owned(transaction, address.prefix, address.path)
    if file is None or not file.is_here:
        return None
    transaction.named.add(address.owner_id)
    return FoundFile(Place(address.prefix, address.path), file)


def place_for_writing(transaction: Transaction, path: str) -> Place:
    """Where a file of that path goes.

    Raises:
        MlflowError: it cannot be a file's path, its run is deleted, or the folder is this server's own.
    """
    place = place_of(transaction, path)
    if not place.path:
        raise invalid_parameter(f"Artifact path refers to a directory, not a file: '{path}'")
    if place.run_pk is not None and place.delivery is not None:
        require_active_run(place.delivery)
    if place.delivery is not None and place.upstream_path.partition("/")[0] == OWN_FOLDER:
        raise invalid_parameter(f"Invalid artifact path '{path}': this server keeps files of its own there.")
    return place


def check_is_free(transaction: Transaction, root_id: int, path: str) -> None:
    """A name cannot be a file and a folder, or nobody could download both.

    Raises:
        MlflowError: it would be both.
    """
    if artifacts.is_folder(transaction, root_id, path):
        raise invalid_parameter(f"Artifact path refers to a directory, not a file: '{path}'")
    above = artifacts.find_file_above(transaction, root_id, path)
    if above is not None:
        raise invalid_parameter(f"Artifact path '{path}' leads through '{above}', which is a file.")


class ArtifactLane:
    """A run's artifact lane, held until the transaction ends: others wait to write files of the run."""

    def __init__(self, transaction: Transaction, run: RunLanes) -> None:
        self._transaction = transaction
        self._run = run
        self._appends = Appends(transaction, [run.artifact_lane])

    def append(self, operation: UploadArtifact | DeleteArtifact, principal: str | None) -> None:
        """Append an entry, to be written by `write`. The lane's first one waits until the run is made."""
        awaits = []
        is_first = not self._appends.last_position(self._run.artifact_lane)
        if is_first and not is_settled(self._transaction, self._run.data_lane, CREATE_POSITION):
            awaits.append(Awaited(self._run.data_lane, CREATE_POSITION))
        self._appends.append(self._run.artifact_lane, operation, principal=principal, awaits=awaits)

    def write(self, *changes: Change) -> None:
        """Write what was appended, along with these changes to files. To be called once, at the end."""
        self._transaction.run_all([*changes, *self._appends.changes()])
