"""Wire messages about MLflow workspaces, of which there is one."""

import msgspec

HEADER = b"x-mlflow-workspace"
DEFAULT_WORKSPACE = "default"


class WorkspaceMessage(msgspec.Struct):
    """A workspace in an answer."""

    name: str


class WorkspaceAnswer(msgspec.Struct):
    """One workspace."""

    workspace: WorkspaceMessage


class WorkspacesAnswer(msgspec.Struct):
    """Every workspace."""

    workspaces: list[WorkspaceMessage]
