"""The door of the server: key, size of a body, and what is counted. It stands before anything is parsed."""

import secrets
import time
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plume_embed.serve.errors import RequestError
from plume_embed.serve.metrics import Metrics

OPEN_PATHS = ("/health", "/metrics")
PATHS = (*OPEN_PATHS, "/v1/embeddings", "/v1/models", "/tokenize")


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

        async def noting_the_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            error = self._refusal(scope)
            if error is not None:
                await error.response()(scope, receive, noting_the_status)
            else:
                await self.app(scope, self._limited(receive), noting_the_status)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.request(path, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers = Headers(scope=scope)
        if self.key is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), self.key.encode()):
                message = "This server asks for its API key: send it as `Authorization: Bearer KEY`."
                return RequestError(HTTPStatus.UNAUTHORIZED, message, code="invalid_api_key")
        declared = headers.get("content-length", "0")
        return self._too_large() if declared.isdigit() and int(declared) > self.body_bytes else None

    def _limited(self, receive: Receive) -> Receive:
        """A body without a declared length, or with a false one, is counted while it comes."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.body_bytes:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> RequestError:
        message = f"A request may have {self.body_bytes} bytes (--max-body-mb); send fewer items or smaller pictures."
        return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
