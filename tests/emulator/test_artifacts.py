"""The artifact index, through both of its doors."""

from api import Api

from tests.support.emulator import EmulatorProcess


def put(api: Api, uri: str, content: bytes, **headers: str) -> int:
    """Write bytes; returns the status."""
    answer = api.http.put(uri, content=content, headers={"x-ms-blob-type": "BlockBlob", **headers})
    return answer.status_code


def test_a_path_is_created_once(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """Again it is answered 200 with a conflict under that path; other paths of the batch are made."""
    api.reserve(run_id, "a.txt")
    again = api.reserve(run_id, "a.txt", "b.txt")
    assert list(again["artifacts"]) == ["b.txt"]
    assert list(again["artifactContentInformation"]) == ["b.txt"]
    error = again["errors"]["a.txt"]["error"]
    assert error["code"] == "UserError"
    assert error["message"] == (
        f"Resource Conflict: ArtifactId ExperimentRun/dcid.{run_id}/a.txt already exists."
    )
    assert [found["path"] for found in emulator.run(run_id)["artifacts"]] == ["a.txt", "b.txt"]


def test_a_batch_has_a_limit(api: Api, run_id: str) -> None:
    """101 paths are refused in the service's words."""
    answer = api.reserve(run_id, *(f"{n}" for n in range(101)))
    assert answer["error"]["message"] == "Artifact batch size exceeded the limit of 100"


def test_a_listing_pages(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """`nextLink` leads through all pages and keeps the prefix."""
    emulator.settings(artifact_page_size=2)
    api.reserve(run_id, "d/1", "d/2", "e", "d/3 ö")
    answer = api.history("GET", f"/runs/{run_id}/artifacts/path", path="d").json()
    found = [one["path"] for one in answer["value"]]
    while answer["nextLink"]:
        answer = api.http.get(answer["nextLink"]).json()
        found += [one["path"] for one in answer["value"]]
    assert found == ["d/1", "d/2", "d/3 ö"]


def test_reserved_and_never_uploaded(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """The index lists it, the blob is missing, inspection shows no size."""
    api.reserve(run_id, "ghost")
    assert api.history("GET", f"/runs/{run_id}/artifacts").json()["value"][0]["path"] == "ghost"
    assert api.http.get(api.read_uri(run_id, "ghost")).status_code == 404
    (stored,) = emulator.run(run_id)["artifacts"]
    assert stored["size"] is None


def test_bytes_are_replaced_through_a_write_address(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """`write` gives an address for an artifact that exists; without If-None-Match the bytes change."""
    put(api, api.content_uri(run_id, "a.txt"), b"one")
    answer = api.artifact("GET", f"/ExperimentRun/dcid.{run_id}/write", params={"path": "a.txt"})
    uri = answer.json()["contentUri"]
    assert put(api, uri, b"no", **{"If-None-Match": "*"}) == 409
    assert put(api, uri, b"two!") == 201
    assert api.http.get(api.read_uri(run_id, "a.txt")).content == b"two!"
    assert emulator.run(run_id)["artifacts"][0]["size"] == 4


def test_direct_upload(api: Api) -> None:
    """`content` takes bytes and index entry in one call, and replaces only when told to."""
    address = "/LocalUpload/box/content"
    assert api.artifact("POST", address, params={"path": "f"}, content=b"1").status_code == 200
    assert api.artifact("POST", address, params={"path": "f"}, content=b"2").status_code == 409
    overwrite = {"path": "f", "allowOverwrite": "true"}
    assert api.artifact("POST", address, params=overwrite, content=b"3").status_code == 200
    assert api.artifact("GET", address, params={"path": "f"}).content == b"3"


def test_an_entry_can_be_deleted(api: Api, run_id: str) -> None:
    """After `DELETE metadata` the path is free again."""
    put(api, api.content_uri(run_id, "a.txt"), b"one")
    gone = api.artifact("DELETE", f"/ExperimentRun/dcid.{run_id}/metadata", params={"path": "a.txt"})
    assert gone.status_code == 200
    missing = api.history("GET", f"/runs/{run_id}/artifacts/contentinfo", path="a.txt")
    assert missing.status_code == 404
    assert put(api, api.content_uri(run_id, "a.txt"), b"two", **{"If-None-Match": "*"}) == 201


def test_a_blob_in_storage_can_be_registered(api: Api, run_id: str) -> None:
    """`register` makes an index entry for bytes that are there."""
    put(api, api.content_uri(run_id, "a.txt"), b"bytes")
    data_path = {
        "dataStoreName": "workspaceartifactstore",
        "relativePath": f"ExperimentRun/dcid.{run_id}/a.txt",
    }
    body = {"origin": "LocalUpload", "container": "kept", "path": "b.txt", "dataPath": data_path}
    assert api.artifact("POST", "/register", json=body).json()["artifactId"] == "LocalUpload/kept/b.txt"
    found = api.artifact("GET", "/LocalUpload/kept/contentinfo", params={"path": "b.txt"}).json()
    assert api.http.get(found["contentUri"]).content == b"bytes"
