"""Prompts, models and webhooks through MLflow's own client. Arguments: the server's URL, a receiver's URL."""

import sys

import mlflow
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookStatus
from mlflow.exceptions import MlflowException

EVENTS = [
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt.created",
    "prompt_version.created",
    "prompt_tag.set",
    "prompt_tag.deleted",
    "prompt_version_tag.set",
    "prompt_version_tag.deleted",
    "prompt_alias.created",
    "prompt_alias.deleted",
]


def manage_webhooks(client: MlflowClient, receiver: str) -> str:
    """Make, change, find, try and delete webhooks; the one that stays, with a secret."""
    made = client.create_webhook("all", f"{receiver}/all", EVENTS, description="everything", secret="s3cret")
    assert made.status == WebhookStatus.ACTIVE
    assert [str(event) for event in made.events] == EVENTS
    assert made.secret is None
    result = client.test_webhook(made.webhook_id)
    assert result.success, result
    assert result.response_status == 200
    result = client.test_webhook(made.webhook_id, "prompt_version.created")
    assert result.success, result

    other = client.create_webhook("other", f"{receiver}/other", ["model_version.created"])
    changed = client.update_webhook(
        other.webhook_id,
        name="renamed",
        description="no more",
        events=["prompt.created", "prompt_tag.set"],
        status="DISABLED",
        url=f"{receiver}/refuse",
    )
    assert changed.name == "renamed"
    assert [str(event) for event in changed.events] == ["prompt.created", "prompt_tag.set"]
    assert client.get_webhook(other.webhook_id).status == WebhookStatus.DISABLED
    result = client.test_webhook(other.webhook_id)
    assert not result.success
    assert result.response_status == 403
    assert result.response_body == "no"

    page = client.list_webhooks(max_results=1)
    assert [item.name for item in page] == ["renamed"]
    page = client.list_webhooks(max_results=1, page_token=page.token)
    assert [item.name for item in page] == ["all"]
    client.delete_webhook(other.webhook_id)
    for url in ("http://169.254.169.254/latest", "https://10.0.0.1/", "http://example.com/"):
        assert refusal(client, url) == "INVALID_PARAMETER_VALUE", url
    return made.webhook_id


def refusal(client: MlflowClient, url: str) -> str | None:
    """The code of the error that a webhook with this URL ends in."""
    try:
        client.create_webhook("bad", url, ["prompt.created"])
    except MlflowException as error:
        return error.error_code
    return None


def use_prompts() -> None:
    """Register, load, search, tag and alias prompts."""
    first = mlflow.genai.register_prompt(
        name="greeting", template="Hello {{name}}!", commit_message="first", tags={"team": "search"}
    )
    second = mlflow.genai.register_prompt(
        name="greeting", template=[{"role": "user", "content": "Hi {{name}}"}], commit_message="chat"
    )
    assert (first.version, second.version) == (1, 2)
    mlflow.genai.set_prompt_alias("greeting", alias="live", version=1)
    loaded = mlflow.genai.load_prompt("prompts:/greeting@live")
    assert loaded.format(name="Ann") == "Hello Ann!"
    assert mlflow.genai.load_prompt("greeting", version=2).template == [
        {"role": "user", "content": "Hi {{name}}"}
    ]
    mlflow.genai.set_prompt_tag("greeting", "owner", "ann")
    mlflow.genai.set_prompt_version_tag("greeting", 1, "checked", "yes")
    assert mlflow.genai.get_prompt_tags("greeting")["owner"] == "ann"
    assert mlflow.genai.load_prompt("greeting", version=1).tags["checked"] == "yes"
    mlflow.genai.delete_prompt_version_tag("greeting", 1, "checked")
    mlflow.genai.delete_prompt_tag("greeting", "owner")
    mlflow.genai.delete_prompt_alias("greeting", alias="live")
    mlflow.genai.register_prompt(name="farewell", template="Bye")
    assert sorted(item.name for item in mlflow.genai.search_prompts()) == ["farewell", "greeting"]
    assert [item.name for item in mlflow.genai.search_prompts("name = 'greeting'")] == ["greeting"]
    versions = MlflowClient().search_prompt_versions("greeting")
    assert len(versions) == 2, versions


def use_models(client: MlflowClient) -> None:
    """Do to a model what webhooks are told about."""
    client.create_registered_model("iris", tags={"a": "b"}, description="flowers")
    with mlflow.start_run() as run:
        mlflow.log_text("weights", "model/weights.txt")
    source = f"runs:/{run.info.run_id}/model"
    version = client.create_model_version("iris", source, run.info.run_id, tags={"c": "d"})
    client.set_model_version_tag("iris", version.version, "stage", "new")
    client.delete_model_version_tag("iris", version.version, "stage")
    client.set_registered_model_alias("iris", "champion", version.version)
    client.delete_registered_model_alias("iris", "champion")


def main() -> None:
    """Run everything against the server and the receiver named on the command line."""
    mlflow.set_tracking_uri(sys.argv[1])
    client = MlflowClient()
    manage_webhooks(client, sys.argv[2])
    use_prompts()
    use_models(client)
    print("done")


main()
