"""MLflow's own workspaces. There is one, `default`, and everything is in it; there can be no other.

They have nothing to do with the Azure ML workspace that is delivered to.
"""

import re

from server.domain.errors import ErrorCode, MlflowError, does_not_exist, invalid_parameter
from server.protocol.workspaces import DEFAULT_WORKSPACE, WorkspaceMessage

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SHORTEST, _LONGEST = 2, 63


def list_workspaces() -> list[WorkspaceMessage]:
    """The one workspace."""
    return [WorkspaceMessage(DEFAULT_WORKSPACE)]


def get_workspace(name: str) -> WorkspaceMessage:
    """A workspace by its name.

    Raises:
        MlflowError: it is not the one there is.
    """
    if name == DEFAULT_WORKSPACE:
        return WorkspaceMessage(name)
    if not _SHORTEST <= len(name) <= _LONGEST:
        raise invalid_parameter(
            f"Workspace name '{name}' must be between {_SHORTEST} and {_LONGEST} characters."
        )
    if not _NAME.fullmatch(name):
        raise invalid_parameter(
            f"Workspace name '{name}' must match the pattern ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ "
            "(lowercase alphanumeric with optional internal hyphens)."
        )
    raise does_not_exist(f"Workspace '{name}' not found")


def refuse() -> MlflowError:
    """Workspaces cannot be made, changed or deleted here, and no other can be asked for."""
    return MlflowError(
        ErrorCode.FEATURE_DISABLED,
        "Workspace APIs are not available: workspaces are not enabled on this server",
    )


def check_header(value: bytes) -> None:
    """Refuse a request that names another workspace; no name is the default.

    Raises:
        MlflowError: it does.
    """
    if value.strip().decode("latin-1") not in ("", DEFAULT_WORKSPACE):
        raise refuse()
