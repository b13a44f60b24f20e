"""What a model version's source may be, as text."""

import pytest

from server.domain.errors import MlflowError
from server.services.sources import check_prompt_source, check_source

_ALLOWED = [
    ("mlflow-artifacts:/1/0123456789abcdef0123456789abcdef/artifacts/model", "mlflow-artifacts"),
    ("mlflow-artifacts:///1/run/artifacts", "mlflow-artifacts"),
    ("MLflow-Artifacts:/1/run/artifacts", "mlflow-artifacts"),
    ("mlflow-artifacts:/1/run/artifacts/my model/v1..2/.hidden/...", "mlflow-artifacts"),
    ("mlflow-artifacts:/1/run/artifacts/my%20model", "mlflow-artifacts"),
    ("runs:/run/model", "runs"),
    ("models:/m-0123456789abcdef0123456789abcdef", "models"),
    ("models:/name@champion", "models"),
    ("s3://bucket/key/model", "s3"),
    ("dbfs:/model", "dbfs"),
    ("azureml://artifacts/LocalUpload/x/model", "azureml"),
    ("wasbs://container@account.blob.core.windows.net/model", "wasbs"),
    ("https://host/model", "https"),
]

_REFUSED = [
    # CVE-2023-1177: local files, absolute and relative, as the source of a version
    "/etc/passwd",
    "//proc/self/root",
    "/",
    "model",
    "./model",
    "file:///etc",
    "FILE:/etc",
    "file://localhost/etc",
    "file:etc",
    # CVE-2023-2356 and CVE-2023-6909: climbing out of a remote place
    "mlflow-artifacts://host:9000/../../../..",
    "mlflow-artifacts:/1/run/artifacts/../../2/other",
    "mlflow-artifacts:/..",
    "mlflow-artifacts:../x",
    "http://host:5000/api/2.0/mlflow-artifacts/artifacts/../../../../",
    "https://host/api/2.0//mlflow-artifacts/artifacts/1/run/artifacts",
    "s3:/bucket/models/path/../../other",
    "runs:/run/../other",
    "models:/../name",
    "mlflow-artifacts:/1/./run",
    # CVE-2023-2780: forms that only look remote
    "file://some.host/etc",
    "\\\\host\\share\\x",
    "C:\\Windows",
    "C:/Windows",
    "mlflow-artifacts:/1/run\\..\\..\\x",
    "file:\\\\\\etc",
    "http:\\\\host\\x",
    # CVE-2023-6909: what follows a question mark; CVE-2024-1483: what follows a hash
    "http:///?/../../../etc/",
    "http://host/?path",
    "http:///#/../../../etc/",
    "s3://bucket/#/../../../etc",
    "mlflow-artifacts:/1/run/artifacts?x=1",
    "mlflow-artifacts:/1/run/artifacts#x",
    # the same, encoded once, twice, and in parts
    "mlflow-artifacts:/%2e%2e/%2e%2e/etc",
    "mlflow-artifacts:/..%2f..%2f..%2fetc",
    "mlflow-artifacts:/%252e%252e%252fetc",
    "mlflow-artifacts:/1%2f2",
    "mlflow-artifacts:/1/x%23",
    "mlflow-artifacts:/1/x%3f",
    "mlflow-artifacts:/1/x%5c..",
    "mlflow%2Dartifacts:/1/x",
    "file%3A///etc",
    "%66ile:///etc",
    "http://host/api/2.0/mlflow-artifacts/artifacts%00",
    # what readers strip or cut off
    " file:///etc",
    "\tfile:///etc",
    "mlflow-artifacts:/1/run\x00/x",
    "mlflow-artifacts:/1/\nrun",
    "mlflow-artifacts:/1/run%0a",
    "s3://bucket/x ",
    # a place of our own on a host of somebody's choice, or without a path
    "mlflow-artifacts://host/1/run/artifacts",
    "runs://profile@databricks/run/model",
    "models://host/name/1",
    "mlflow-artifacts:",
    "mlflow-artifacts:/",
    "runs:model",
    "s3://bucket/\udce4",
    "s3://bucket/" + "x" * 2048,
]


@pytest.mark.parametrize(("source", "scheme"), _ALLOWED)
def test_allowed(source: str, scheme: str) -> None:
    """A place of our own and a place on another store are let through, with their scheme."""
    assert check_source(source) == scheme


@pytest.mark.parametrize("source", _REFUSED)
def test_refused(source: str) -> None:
    """Whatever could lead into this server's files, or elsewhere for another reader, is refused."""
    with pytest.raises(MlflowError) as caught:
        check_source(source)
    assert caught.value.status == 400
    assert caught.value.code.value == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("source", ["dummy-source", "prompt-template"])
def test_prompt_placeholders(source: str) -> None:
    """The sources that MLflow's own clients give to prompts are let through."""
    check_prompt_source(source)


@pytest.mark.parametrize("source", ["/etc/passwd", "file:///etc", "Dummy-Source", "s3://bucket/x"])
def test_prompt_with_another_source(source: str) -> None:
    """CVE-2026-2614: calling a version a prompt does not let a source past the checks."""
    with pytest.raises(MlflowError, match="Invalid prompt source"):
        check_prompt_source(source)
