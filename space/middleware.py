"""Middleware before Gradio: it lets through what this page needs and nothing else, and describes the page to others.

Gradio serves more routes than the page uses, among them some that fetch addresses. Here every path has to be on a list,
bodies have a limit while they are read, and a request that hands over a remote address as a file is refused.
"""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from space.content.holders import Holders
from space.settings import MEGABYTE, Limits

API = "/gradio_api"
_PAGE = re.compile(
    r"/|/preview\.webp|/config/?|/theme\.css|/manifest\.json|/robots\.txt|/favicon\.ico|/pwa_icon(/\w+)?|/(static|assets|svelte)/.*"
)
_API_GET = re.compile(
    rf"{API}/(info/?|startup-events|theme\.css|app_id/?|heartbeat/\w+|queue/data|upload_progress|call/\w+/\w+|file=.*)"
)
_API_POST = re.compile(rf"{API}/(queue/join|upload|cancel|reset/?|(call|run)/\w+/?)")
_ADDRESS = re.compile(r"^\s*[A-Za-z][A-Za-z0-9+.-]*:")
_DEPTH = 50  # of lists and dicts in a request; the page's own has 6, and Gradio walks through them by recursion
_SESSION = re.compile(r"[\w-]{1,64}")  # the page's are words, the clients' are UUIDs with hyphens
_OF_GRADIO = re.compile(rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>|<title>[^<]*</title>')
PREVIEW_IMAGE, PREVIEW_FILE = "/preview.webp", Path(__file__).parent / "preview.webp"


class RequestFilter:
    """Middleware for Gradio's app.

    Args:
        app: The app behind it.
        limits ([`Limits`])
        upload_folder (`Path`): Where Gradio puts uploads.
        holders ([`Holders`]): Told of each file that has arrived.
        on_missing (`Callable`, *optional*): Called with the path of whatever is turned away, for tests and logs.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        upload_folder: Path,
        holders: Holders,
        on_missing: Callable[[str], None] = lambda path: None,
    ):
        self.app, self.limits, self.upload_folder, self.holders = app, limits, upload_folder, holders
        self.on_missing = on_missing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if not _is_known(path, method):
            self.on_missing(path)
            await _refuse(404, "There is no such page here.")(scope, receive, send)
        elif path.startswith(f"{API}/file=") and not self._is_upload(path.removeprefix(f"{API}/file=")):
            self.on_missing(path)
            await _refuse(403, "Only what was uploaded through this page can be read.")(scope, receive, send)
        elif path == PREVIEW_IMAGE:
            await FileResponse(PREVIEW_FILE)(scope, receive, send)
        elif path == f"{API}/upload":
            await self._upload(scope, receive, send)
        elif method == "POST":
            await self._post(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_upload(self, path: str) -> bool:
        """Whether a path of the file route leads into Gradio's folder, links followed, and to a file."""
        if _ADDRESS.match(path) or "\0" in path:
            return False
        try:
            target = Path("/" + path.lstrip("/")).resolve(strict=True)
        except (OSError, RuntimeError):
            return False
        return target.is_file() and target.is_relative_to(self.upload_folder.resolve())

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets an upload through while it stays within the limit of a request and of the folder."""
        limit = self.limits.request_bytes
        declared = Request(scope).headers.get("content-length", "0")
        too_large = f"All files of one upload together may have {limit // MEGABYTE} MB."
        if not declared.isdigit() or int(declared) > limit:
            await _refuse(413, too_large)(scope, receive, send)
            return
        if _folder_bytes(self.upload_folder) + int(declared) > self.limits.upload_folder_bytes:
            await _refuse(503, "Too many files are waiting to be read; try again in some minutes.")(
                scope, receive, send
            )
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            # Beyond what was declared, or without any declaration: the connection ends here for the app behind.
            return message if received <= limit else {"type": "http.disconnect"}

        with self.holders.arriving() as arrived:
            await self.app(scope, counted, _telling(send, arrived))

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads a small body whole, looks for remote addresses in the place of files, and passes it on."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > self.limits.json_bytes:
                await _refuse(413, "That is too much at once.")(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        try:
            data = json.loads(bytes(body) or b"{}")
        except (ValueError, RecursionError):
            await _refuse(400, "That is no JSON.")(scope, receive, send)
            return
        reason = self._wrong_in(data)
        if reason:
            await _refuse(400, reason)(scope, receive, send)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, replay, send)

    def _wrong_in(self, data: Any) -> str | None:
        waiting = [(data, 0)]
        while waiting:
            value, depth = waiting.pop()
            reason = "That is nested too deep." if depth > _DEPTH else self._wrong_with(value)
            if reason:
                return reason
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            waiting += [(one, depth + 1) for one in inner]
        return None

    def _wrong_with(self, data: Any) -> str | None:
        """What is wrong with a value, whatever is in it."""
        if isinstance(data, dict):
            session = data.get("session_hash")
            if session is not None and not (isinstance(session, str) and _SESSION.fullmatch(session)):
                return "That is no session."
            if "path" in data or "meta" in data:
                path, url = data.get("path"), data.get("url")
                if isinstance(path, str) and _ADDRESS.match(path):
                    return "Addresses are not fetched: download the file and upload it."
                if path is not None and not (isinstance(path, str) and self._is_upload(path)):
                    return "That file is not there (any more): upload it again."
                if url is not None and not isinstance(url, str):
                    return "That is no address."
        return None


class PageDescription:
    """Puts the page's own description into its head, in the place of Gradio's, which praises Gradio.

    Args:
        app: The app behind it.
        head (`str`): HTML.
    """

    def __init__(self, app: ASGIApp, head: str):
        self.app, self.head = app, head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        start, body = {}, bytearray()

        async def rewritten(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body.extend(message.get("body", b""))
            if message.get("more_body", False):
                return
            page = _OF_GRADIO.sub(b"", bytes(body)).replace(b"<head>", b"<head>" + self.head, 1)
            kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            headers = [*kept, (b"content-length", str(len(page)).encode())]
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": page})

        # A compressed page could not be rewritten.
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
        await self.app({**scope, "headers": headers}, receive, rewritten)


def _telling(send: Send, arrived: Callable[[Path], None]) -> Send:
    """Tells of each path in Gradio's answer to an upload before the answer goes out."""
    status, body = 0, bytearray()

    async def told(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            body.extend(message.get("body", b""))
            if status == 200 and not message.get("more_body", False):
                for path in json.loads(body):
                    arrived(Path(path))
        await send(message)

    return told


def _is_known(path: str, method: str) -> bool:
    if method in ("GET", "HEAD"):
        return bool(_PAGE.fullmatch(path) or _API_GET.fullmatch(path))
    return method == "POST" and bool(_API_POST.fullmatch(path))


def _refuse(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence, "error": sentence}, status)


def _folder_bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            status = file.lstat()
        except OSError:  # another session's file, gone meanwhile
            continue
        total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
