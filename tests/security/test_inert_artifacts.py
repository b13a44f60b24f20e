"""What clients uploaded does nothing in a browser: saved, never shown, never run, never taken apart."""

import io
import tarfile
import uuid

import httpx
import pytest

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
SCRIPT = b"<html><script>fetch('/api/2.0/mlproxy/keys')</script></html>"
NAMES = [
    "page.html", "page.htm", "page.xhtml", "page.HTML", "page.svg", "page.svgz", "page.xml", "page.js",
    "page.mjs",
    "page.css", "page.swf", "page.pdf", "page.mht", "page.json", "page.wasm", "page", ".html",
    "page.html;x.png",
    "page.png", "page.txt", "page.xsl", "page.hta", "page.eml", "page.vbs", "index.html.gz", "MLmodel",
    "conda.yaml",
]  # fmt: skip
RUN_BY_BROWSERS = ("html", "xml", "svg", "javascript", "css", "pdf", "flash", "wasm", "json")


def _assert_inert(answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert not any(word in answer.headers["content-type"] for word in RUN_BY_BROWSERS), answer.headers


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_saved_and_never_run(writer: httpx.Client, run_id: str, name: str) -> None:
    """Over every route that hands it out, as a whole, in part and by its head."""
    path = f"web/{name}"
    put = writer.put(f"{ARTIFACTS}0/{run_id}/artifacts/{path}", content=SCRIPT)
    assert put.status_code == 200, put.text
    where = {"run_id": run_id, "path": path}
    _assert_inert(writer.get(f"{ARTIFACTS}0/{run_id}/artifacts/{path}", headers={"Accept": "text/html"}))
    _assert_inert(writer.head(f"{ARTIFACTS}0/{run_id}/artifacts/{path}"))
    _assert_inert(writer.get(f"/ajax-api{ARTIFACTS.removeprefix('/api')}0/{run_id}/artifacts/{path}"))
    _assert_inert(writer.get("/get-artifact", params=where))
    _assert_inert(writer.get("/ajax-api/2.0/mlflow/get-artifact", params=where))


HEADER_NAMES = [
    'a"b.html', "a;filename=b.html", "a%0d%0aSet-Cookie:x=1", "\u2028.html", "a\u202egnp.html",
    "'\"><script>.html",
    "日本.html", "a\\\"b", "filename*=UTF-8''evil.html",
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in HEADER_NAMES if "\\" not in name])
def test_a_name_cannot_end_its_header(writer: httpx.Client, run_id: str, name: str) -> None:
    """There is one disposition, and no header that the name has brought."""
    where = {"run_id": run_id, "path": f"names/{name}"}
    put = writer.post("/ajax-api/2.0/mlflow/upload-artifact", params=where, content=b"x")
    if put.status_code == 400:
        return
    answer = writer.get("/get-artifact", params=where)
    _assert_inert(answer)
    assert len(answer.headers.get_list("content-disposition")) == 1
    assert "set-cookie" not in answer.headers
    shown = answer.headers["content-disposition"].partition('filename="')[2].partition('"')[0]
    assert not set(shown) & set('"\r\n;<>')


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "climbing", "absolute", "device"])
def test_an_archive_is_not_taken_apart(writer: httpx.Client, run_id: str, kind: str) -> None:
    """Not on the way in and not for a look inside: it comes back byte for byte (mlflow PR 21824)."""
    content = _archive(kind)
    path = f"{ARTIFACTS}0/{run_id}/artifacts/archives/{uuid.uuid4().hex}.tar.gz"
    assert writer.put(path, content=content).status_code == 200
    assert writer.get(path).content == content
    listed = writer.get(
        "/api/2.0/mlflow/artifacts/list", params={"run_id": run_id, "path": path.partition("artifacts/0")[2]}
    )
    assert "passwd" not in listed.text


def _archive(kind: str) -> bytes:
    kinds = {"symbolic link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
    name = {"climbing": "../../../../etc/passwd", "absolute": "/etc/passwd"}.get(kind, "model/MLmodel")
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kinds.get(kind, tarfile.REGTYPE), "/etc/passwd"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"!!python/object/apply:os.system ['touch /tmp/mlproxy-never']",
        b"\x80\x04cposix\nsystem\n(X\x18\x00\x00\x00touch /tmp/mlproxy-nevertR.",
        b"flavors: {python_function: {loader_module: os}}",
    ],
    ids=["yaml", "pickle", "loader"],
)
def test_a_model_is_bytes(writer: httpx.Client, run_id: str, content: bytes) -> None:
    """It is stored, listed and registered without anybody loading it."""
    base = f"{ARTIFACTS}0/{run_id}/artifacts/evil/"
    for name in ("MLmodel", "model.pkl"):
        assert writer.put(base + name, content=content).status_code == 200
        assert writer.get(base + name).content == content
    model = f"evil-{uuid.uuid4().hex[:8]}"
    writer.post("/api/2.0/mlflow/registered-models/create", json={"name": model})
    made = writer.post(
        "/api/2.0/mlflow/model-versions/create",
        json={"name": model, "source": f"runs:/{run_id}/evil", "run_id": run_id},
    )
    assert made.status_code == 200, made.text


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "${7*7}{{7*7}}"]
)
@pytest.mark.parametrize("path", ["/nowhere/", "/pages/", "/static-files/", "/api/2.0/mlproxy/runs/"])
def test_an_error_is_no_page(stranger: httpx.Client, writer: httpx.Client, path: str, text: str) -> None:
    """What a request says comes back as JSON that no browser takes for anything else."""
    for client in (stranger, writer):
        answer = client.get(
            path + text.replace("/", ""), headers={"Accept": "text/html", "Content-Type": text}
        )
        assert answer.status_code >= 400
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
