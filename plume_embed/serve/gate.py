"""The door of the server: key, size of a body, and what is counted. It stands before anything is parsed."""

import asyncio
import secrets
import time
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plume_embed.serve.errors import RequestError
from plume_embed.serve.metrics import Metrics
from plume_embed.serve.settings import MEGABYTE

OPEN_PATHS = ("/health", "/metrics")
PATHS = (*OPEN_PATHS, "/v1/embeddings", "/v1/models", "/tokenize")
# What is taken of a refused body, and thrown away, so that its client comes to read why.
_DRAINED_BYTES = 256 * MEGABYTE
_DRAIN_SECONDS = 10.0


class Gate:
    """Middleware before the app.

    Args:
        app: The app behind it.
        body_bytes (`int`): Most bytes of a body.
        key (`str`, *optional*): What a client has to send as `Authorization: Bearer KEY`, except on OPEN_PATHS.
        metrics ([`Metrics`])
    """

    def __init__(self, app: ASGIApp, body_bytes: int, key: str | None, metrics: Metrics):
        self.app, self.body_bytes, self.key, self.metrics = app, body_bytes, key, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), HTTPStatus.INTERNAL_SERVER_ERROR
        headers = Headers(scope=scope)
        body = _Body(receive, is_held_back="expect" in headers)

        async def noting_the_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= HTTPStatus.BAD_REQUEST:
                    await body.drain()
            await send(message)

        try:
            error = self._refusal(scope["path"], headers)
            if error is not None:
                await error.response()(scope, body.receive, noting_the_status)
            else:
                await self.app(scope, self._limited(body), noting_the_status)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.request(path, status, time.perf_counter() - started)

    def _refusal(self, path: str, headers: Headers) -> RequestError | None:
        if self.key is not None and path not in OPEN_PATHS:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), self.key.encode()):
                message = "This server asks for its API key: send it as `Authorization: Bearer KEY`."
                return RequestError(HTTPStatus.UNAUTHORIZED, message, code="invalid_api_key")
        declared = headers.get("content-length", "0")
        return self._too_large() if declared.isdigit() and int(declared) > self.body_bytes else None

    def _limited(self, body: "_Body") -> Receive:
        """A body without a declared length, or with a false one, is counted while it comes."""

        async def counted() -> Message:
            message = await body.receive()
            if body.num_bytes > self.body_bytes:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> RequestError:
        message = f"A request may have {self.body_bytes} bytes (--max-body-mb); send fewer items or smaller pictures."
        return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


class _Body:
    """The body of a request on its way in.

    Args:
        receive: Gives its pieces.
        is_held_back (`bool`): The client sends it only when it is asked to (`Expect: 100-continue`).

    Attributes:
        num_bytes: That have come.
    """

    def __init__(self, receive: Receive, is_held_back: bool):
        self._receive, self._is_held_back, self._is_whole = receive, is_held_back, False
        self.num_bytes = 0

    async def receive(self) -> Message:
        """The next piece."""
        message = await self._receive()
        self._is_held_back = False
        self._is_whole = not message.get("more_body", False)
        self.num_bytes += len(message.get("body", b""))
        return message

    async def drain(self) -> None:
        """Takes what is left of a body that nobody wants, within bounds.

        A connection that is closed before the body is whole breaks while the client sends: it never sees the answer.
        """
        if self._is_held_back:
            return
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._is_whole and self.num_bytes < _DRAINED_BYTES:
                    await self.receive()
        except TimeoutError:
            return
