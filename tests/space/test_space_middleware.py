"""Middleware before Gradio: known paths only, no path of the server, no remote address, bodies within their limits."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from space.content.holders import Holders
from space.middleware import API, PageDescription, RequestFilter
from space.settings import Limits

ROOT = Path(__file__).parent.parent.parent


class Behind:
    """An app that reads the whole body and answers 200."""

    def __init__(self, answer: bytes = b"[]"):
        self.bodies, self.disconnected, self.answer = [], False, answer

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected = True
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.answer})


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "uploads"
    (folder / "ab12").mkdir(parents=True)
    (folder / "ab12" / "cat.png").write_bytes(b"x" * 100)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "way_out").symlink_to(tmp_path / "secret.txt")
    return folder


def ask(
    folder: Path, path: str, method="GET", chunks=(b"",), headers=(), limits=None, holders=None, behind=None
) -> tuple[int, Behind, str]:
    """Status (0: no answer), the app behind, and the refusal's sentence."""
    behind, sent = behind or Behind(), []
    middleware = RequestFilter(behind, limits or Limits(), folder, holders or Holders(folder, folder / "examples"))
    messages = [
        {"type": "http.request", "body": chunk, "more_body": place < len(chunks) - 1}
        for place, chunk in enumerate(chunks)
    ]

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "headers": [(k.encode(), v.encode()) for k, v in headers],
        "query_string": b"",
    }
    asyncio.run(middleware(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent)
    is_refusal = bool(body) and sent[0]["status"] >= 400
    return (sent[0]["status"] if sent else 0), behind, json.loads(body)["detail"] if is_refusal else ""


def post(folder: Path, data, **kwargs) -> tuple[int, Behind, str]:
    return ask(folder, f"{API}/queue/join", "POST", [json.dumps(data).encode()], **kwargs)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/", "GET"),
        ("/config", "GET"),
        ("/assets/index.js", "GET"),
        ("/theme.css", "GET"),
        (f"{API}/heartbeat/abc123", "GET"),
        (f"{API}/queue/data", "GET"),
        (f"{API}/cancel", "POST"),
        (f"{API}/run/predict", "POST"),
    ],
)
def test_what_the_page_needs_passes(folder, path, method):
    assert ask(folder, path, method)[0] == 200


@pytest.mark.parametrize(
    ("path", "method"),
    [
        (f"{API}/proxy=http://127.0.0.1:1/x", "GET"),
        (f"{API}/file/etc/passwd", "GET"),
        (f"{API}/vibe-edit/", "POST"),
        (f"{API}/run-history/connect", "POST"),
        (f"{API}/process_recording", "POST"),
        (f"{API}/component_server", "POST"),
        (f"{API}/stream/abc", "POST"),
        (f"{API}/deep_link", "GET"),
        ("/gradio_api/deep_link", "GET"),
        ("/custom_component/1/client/component/x.js", "GET"),
        ("/monitoring", "GET"),
        ("/login", "POST"),
        ("/docs", "GET"),
        ("/openapi.json", "GET"),
        ("/", "PUT"),
        (f"{API}/upload", "DELETE"),
    ],
)
def test_all_other_routes_of_gradio_are_shut(folder, path, method):
    status, behind, sentence = ask(folder, path, method)
    assert (status, sentence) == (404, "There is no such page here.")
    assert behind.bodies == []


def test_an_upload_is_readable_and_no_other_path_of_the_server(folder):
    assert ask(folder, f"{API}/file={folder}/ab12/cat.png")[0] == 200
    for path in (
        "/etc/passwd",
        "etc/passwd",
        "//etc/passwd",
        str(ROOT / "checkpoints" / "plume-tiny" / "model.safetensors"),
        str(ROOT / "pyproject.toml"),
        f"{folder}/../secret.txt",
        f"{folder}/ab12/../../secret.txt",
        f"{folder}/way_out",
        f"{folder}",
        f"{folder}/ab12",
        "pyproject.toml",
        "/proc/self/environ",
        "",
        "\0",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "HTTPS://example.invalid/x.png",
    ):
        status, behind, _ = ask(folder, f"{API}/file={path}")
        assert (status, behind.bodies) == (403, []), path


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x.png", " https://example.invalid/x", "ftp://h/x", "data:,x"])
@pytest.mark.parametrize("nested", [lambda file: [file], lambda file: ["text", {"deep": [[file]]}]])
def test_a_remote_address_in_the_place_of_a_file_is_refused_and_never_passed_on(folder, address, nested):
    file = {"path": address, "meta": {"_type": "gradio.FileData"}}
    status, behind, sentence = post(folder, {"data": nested(file), "fn_index": 0, "session_hash": "abc"})
    assert (status, behind.bodies) == (400, [])
    assert sentence == "Addresses are not fetched: download the file and upload it."


@pytest.mark.parametrize("path", ["/etc/passwd", "way_out", "../secret.txt", 7, ["x"]])
def test_a_file_that_was_not_uploaded_is_refused(folder, path):
    given = str(folder / path) if path in ("way_out", "../secret.txt") else path
    status, behind, _ = post(folder, {"data": [{"path": given, "meta": {"_type": "gradio.FileData"}}]})
    assert (status, behind.bodies) == (400, [])


def test_an_uploaded_file_and_an_address_within_a_text_pass_unchanged(folder):
    data = {
        "data": [
            {"path": f"{folder}/ab12/cat.png", "meta": {"_type": "gradio.FileData"}},
            "see http://example.invalid",
        ],
        "session_hash": "abc",
    }
    status, behind, _ = post(folder, data)
    assert status == 200
    assert json.loads(behind.bodies[0]) == data


@pytest.mark.parametrize("session", ["abc123", "0f6f4b52-7a3f-4a55-9f0e-0d9fd0a1a1a1"])
def test_the_sessions_of_the_page_and_of_the_clients_pass(folder, session):
    assert post(folder, {"data": [], "session_hash": session})[0] == 200


def test_the_preview_image_is_served(folder):
    assert ask(folder, "/preview.webp")[0] == 200


def test_the_pages_head_describes_the_page_and_not_gradio():
    kept = '<meta name="viewport" content="w" /></head></html>'
    page = f'<html><head><meta property="og:title" content="Gradio" /><title>Gradio</title>{kept}'
    sent = []

    async def gradio(scope, receive, send):
        assert b"accept-encoding" not in dict(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1"), (b"x", b"y")]})
        await send({"type": "http.response.body", "body": page[:50].encode(), "more_body": True})
        await send({"type": "http.response.body", "body": page[50:].encode()})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/", "method": "GET", "headers": [(b"accept-encoding", b"br")]}
    asyncio.run(PageDescription(gradio, "<title>PLUME</title>")(scope, None, send))
    start, body = sent
    assert body["body"].decode() == f"<html><head><title>PLUME</title>{kept}"
    assert dict(start["headers"]) == {b"content-length": str(len(body["body"])).encode(), b"x": b"y"}


def test_odd_sessions_and_broken_json_are_refused(folder):
    for session in ("../../x", "a" * 65, 7, ""):
        assert post(folder, {"data": [], "session_hash": session})[0] == 400
    assert ask(folder, f"{API}/queue/join", "POST", [b"{broken"])[0] == 400
    assert ask(folder, f"{API}/queue/join", "POST", [b"[" * 100_000])[0] == 400


@pytest.mark.parametrize("depth", [51, 500, 5000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_json_that_is_nested_deeply_is_refused(folder, depth, start, end):
    body = (start * depth + "1" + end * depth).encode()
    assert ask(folder, f"{API}/queue/join", "POST", [body])[0] == 400


def test_a_long_body_is_cut_while_it_is_read(folder):
    limits = replace(Limits(), json_bytes=1000)
    status, behind, _ = ask(folder, f"{API}/queue/join", "POST", [b" " * 400] * 10, limits=limits)
    assert (status, behind.bodies) == (413, [])


def test_an_upload_is_limited_by_what_it_says_and_by_what_it_sends(folder):
    limits = replace(Limits(), request_bytes=1000)
    small = [("content-length", "500")]
    assert ask(folder, f"{API}/upload", "POST", [b"x" * 500], small, limits)[0] == 200
    status, behind, _ = ask(folder, f"{API}/upload", "POST", [b"x"], [("content-length", "1001")], limits)
    assert (status, behind.bodies) == (413, [])
    assert ask(folder, f"{API}/upload", "POST", [b"x"], [("content-length", "-1")], limits)[0] == 413
    _, behind, _ = ask(folder, f"{API}/upload", "POST", [b"x" * 400] * 5, small, limits)
    assert behind.disconnected and behind.bodies == []


def test_a_file_that_has_arrived_waits_for_the_call_that_it_was_uploaded_for(folder):
    holders, path = Holders(folder, folder / "examples"), folder / "ab12" / "cat.png"
    holders.hold(path)
    arriving = {"holders": holders, "behind": Behind(json.dumps([str(path)]).encode())}
    assert ask(folder, f"{API}/upload", "POST", [b"x"], **arriving)[0] == 200
    holders.hold(path)
    holders.hold(path)
    assert ask(folder, f"{API}/upload", "POST", [b"x"], **arriving)[0] == 200
    for _ in range(3):
        holders.release(path)
    assert path.is_file()
    holders.hold(path)
    holders.release(path)
    assert not path.exists()


def test_a_full_folder_takes_no_more(folder):
    limits = replace(Limits(), upload_folder_bytes=550)
    assert ask(folder, f"{API}/upload", "POST", [b"x"], [("content-length", "400")], limits)[0] == 200
    status, behind, sentence = ask(folder, f"{API}/upload", "POST", [b"x"], [("content-length", "500")], limits)
    assert (status, behind.bodies) == (503, [])
    assert "try again" in sentence
