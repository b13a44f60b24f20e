"""The events a webhook can be told about.

MLflow's are about the registry. This server has events about runs besides, which MLflow's clients could not
read: an entity that they do not know fails their whole list of webhooks. So MLflow's routes speak
`MLFLOW_EVENTS` only, and this server's own routes `ALL_EVENTS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from server.domain.errors import invalid_parameter

# In the order of protobuf's numbers, by which clients may name them as well.
_NUMBERED_ACTIONS = ("ACTION_UNSPECIFIED", "CREATED", "UPDATED", "DELETED", "SET", "EXCEEDED")
_REGISTRY_ENTITIES: dict[str, tuple[str, ...]] = {
    "ENTITY_UNSPECIFIED": (),
    "REGISTERED_MODEL": ("CREATED",),
    "MODEL_VERSION": ("CREATED",),
    "MODEL_VERSION_TAG": ("DELETED", "SET"),
    "MODEL_VERSION_ALIAS": ("CREATED", "DELETED"),
    "PROMPT": ("CREATED",),
    "PROMPT_VERSION": ("CREATED",),
    "PROMPT_TAG": ("DELETED", "SET"),
    "PROMPT_VERSION_TAG": ("DELETED", "SET"),
    "PROMPT_ALIAS": ("CREATED", "DELETED"),
    # MLflow's AI gateway raises it, which is not part of this server: accepted, never sent.
    "BUDGET_POLICY": ("EXCEEDED",),
}
_RUN_ENTITY = {"RUN": ("CREATED", "FINISHED", "FAILED", "KILLED", "DELETED", "RESTORED")}
_NUMBERED_ENTITIES = tuple(_REGISTRY_ENTITIES)


class EventMessage(msgspec.Struct):
    """What a webhook is told about. Either part may come as protobuf's number."""

    entity: str | int = 0
    action: str | int = 0


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The events that a set of routes takes and shows: the actions of each entity."""

    actions: Mapping[str, tuple[str, ...]]

    @property
    def events(self) -> list[str]:
        """All of them, as `entity.action`."""
        return [
            f"{entity}.{action}".lower() for entity, actions in self.actions.items() for action in actions
        ]

    def parse_all(self, events: Sequence[EventMessage]) -> list[str]:
        """The events as `entity.action`, each once, in the order given.

        Raises:
            MlflowError: there are none, or one of them does not exist.
        """
        if not events:
            raise invalid_parameter("Webhook events must be a non-empty list of WebhookEvent objects: [].")
        return list(dict.fromkeys(map(self.parse, events)))

    def parse(self, event: EventMessage) -> str:
        """An event as `entity.action`.

        Raises:
            MlflowError: there is no such event.
        """
        entity, action = _name(event.entity, _NUMBERED_ENTITIES), _name(event.action, _NUMBERED_ACTIONS)
        if entity not in self.actions:
            known = list(self.actions)[1:]
            raise invalid_parameter(f"Invalid entity of a webhook event. Valid values are {known}.")
        if action not in self.actions[entity]:
            valid = [name.lower() for name in self.actions[entity]]
            raise invalid_parameter(
                f"Invalid action '{action.lower()}' for entity '{entity.lower()}'. Valid actions are: {valid}"
            )
        return f"{entity}.{action}".lower()


MLFLOW_EVENTS = Vocabulary(_REGISTRY_ENTITIES)
ALL_EVENTS = Vocabulary(_REGISTRY_ENTITIES | _RUN_ENTITY)


def _name(part: str | int, numbered: Sequence[str]) -> str:
    """The part's name; empty for a number that has none."""
    if isinstance(part, str):
        return part
    return numbered[part] if 0 <= part < len(numbered) else ""


def event_message(event: str) -> EventMessage:
    """`entity.action` as clients read it."""
    entity, _, action = event.upper().partition(".")
    return EventMessage(entity, action)


def example_data(event: str) -> dict[str, Any]:
    """An example of what an event tells; for MLflow's events it is MLflow's own."""
    return dict(_EXAMPLES[event])


_MODEL, _PROMPT, _VERSION = {"name": "example_model"}, {"name": "example_prompt"}, {"version": "1"}
_KEY, _VALUE = {"key": "example_key"}, {"value": "example_value"}
_ALIAS = {"alias": "example_alias"}
_TAGS = {"tags": {"example_key": "example_value"}}
_RUN = {
    "run_id": "abcd1234abcd5678abcd1234abcd5678",
    "run_name": "example_run",
    "experiment_id": "1",
    "user_id": "example_user",
    "status": "RUNNING",
    "start_time": 1704067200000,
    "end_time": None,
}
_ENDED = {"end_time": 1704067260000}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "registered_model.created": {**_MODEL, **_TAGS, "description": "An example registered model"},
    "model_version.created": {
        **_MODEL,
        **_VERSION,
        "source": "models:/123",
        "run_id": "abcd1234abcd5678",
        **_TAGS,
        "description": "An example model version",
    },
    "model_version_tag.set": {**_MODEL, **_VERSION, **_KEY, **_VALUE},
    "model_version_tag.deleted": {**_MODEL, **_VERSION, **_KEY},
    "model_version_alias.created": {**_MODEL, **_ALIAS, **_VERSION},
    "model_version_alias.deleted": {**_MODEL, **_ALIAS},
    "prompt.created": {**_PROMPT, **_TAGS, "description": "An example prompt"},
    "prompt_version.created": {
        **_PROMPT,
        **_VERSION,
        "template": "Hello {{name}}!",
        **_TAGS,
        "description": "An example prompt version",
    },
    "prompt_tag.set": {**_PROMPT, **_KEY, **_VALUE},
    "prompt_tag.deleted": {**_PROMPT, **_KEY},
    "prompt_version_tag.set": {**_PROMPT, **_VERSION, **_KEY, **_VALUE},
    "prompt_version_tag.deleted": {**_PROMPT, **_VERSION, **_KEY},
    "prompt_alias.created": {**_PROMPT, **_ALIAS, **_VERSION},
    "prompt_alias.deleted": {**_PROMPT, **_ALIAS},
    "budget_policy.exceeded": {
        "budget_policy_id": "bp-abc123",
        "budget_unit": "USD",
        "budget_amount": 100.0,
        "current_spend": 105.50,
        "duration_unit": "MONTHS",
        "duration_value": 1,
        "target_scope": "ENDPOINT",
        "workspace": "default",
        "target_value": "ep-abc123",
        "window_start": 1704067200000,
    },
    "run.created": _RUN,
    "run.finished": {**_RUN, **_ENDED, "status": "FINISHED"},
    "run.failed": {**_RUN, **_ENDED, "status": "FAILED"},
    "run.killed": {**_RUN, **_ENDED, "status": "KILLED"},
    "run.deleted": {**_RUN, **_ENDED, "status": "FINISHED"},
    "run.restored": {**_RUN, **_ENDED, "status": "FINISHED"},
}
