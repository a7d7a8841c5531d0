"""The server's application: OpenAI's and vLLM's embedding requests over one model."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from plume_embed.encode.encoder import Encoder
from plume_embed.serve.batcher import (
    Batcher,
    Embedded,
    ItemFailedError,
    QueueFullError,
    RequestTooLargeError,
    StoppedError,
)
from plume_embed.serve.contents import Contents
from plume_embed.serve.errors import RequestError, of_validation, plain_response
from plume_embed.serve.gate import Gate
from plume_embed.serve.metrics import Metrics
from plume_embed.serve.schema import EmbeddingRequest, TokenizeRequest
from plume_embed.serve.settings import DEFAULT_LIMITS, FINGERPRINT_HEADER, Limits

_LOOK_SECONDS = 1.0  # how often a waiting request looks whether its client is still there
_PROMPTS_FILE = "config_sentence_transformers.json"
# As `encode_query` and `encode_document` of sentence-transformers choose them.
_INPUT_TYPES = ("query", "document")


def create_app(
    encoder: Encoder,
    limits: Limits = DEFAULT_LIMITS,
    name: str | None = None,
    hosts: frozenset[str] = frozenset(),
    key: str | None = None,
) -> FastAPI:
    """The application for any ASGI server. Its batcher starts and stops with it.

    Args:
        encoder ([`Encoder`]): Its `max_image_pixels` is the limit of the server's pictures.
        limits ([`Limits`])
        name (`str`, *optional*): By which clients call the model; by default the name of its folder or its Hub id.
        hosts: From which addresses of pictures and films are fetched.
        key (`str`, *optional*): The API key that clients must send.
    """
    metrics = Metrics()
    service = Service(encoder, limits, metrics, name or served_name(encoder), hosts)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.batcher.stop)

    app = FastAPI(title="plume-embed", lifespan=lifespan)
    app.add_middleware(Gate, body_bytes=limits.body_bytes, key=key, metrics=metrics)

    @app.exception_handler(RequestError)
    async def answered(request: Request, error: RequestError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return plain_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return of_validation(error).response()

    @app.get("/health")
    async def health() -> dict[str, str]:
        """200 while the server takes requests."""
        if not service.batcher.is_running():
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "The server is stopping, or its model has died.")
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model, with what a client of plume-embed needs to know of it."""
        return {"object": "list", "data": [service.card]}

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Counters in Prometheus' form."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> dict[str, int]:
        """How many tokens a text has with the prompt around it, and how many a row may have."""
        return await service.tokenize(body)

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """OpenAI's `input`, or vLLM's `messages`."""
        return await service.embed(body, request)

    return app


def served_name(encoder: Encoder) -> str:
    """The name of a model's folder, or its Hub id."""
    return encoder.folder.name if encoder.name == str(encoder.folder) else encoder.name


class Service:
    """What the routes do.

    Args:
        encoder ([`Encoder`])
        limits ([`Limits`])
        metrics ([`Metrics`])
        name (`str`): The served name.
        hosts: From which addresses are fetched.

    Attributes:
        card: What `/v1/models` says of the model.
    """

    def __init__(self, encoder: Encoder, limits: Limits, metrics: Metrics, name: str, hosts: frozenset[str]):
        self._encoder, self._limits, self._metrics, self._name = encoder, limits, metrics, name
        self._contents = Contents(limits, hosts, _prompts(encoder), encoder.processor.max_image_pixels)
        self._dimension = encoder.dimension  # transformers' configurations are slow to read
        self.card = {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "plume-embed",
            "max_model_len": encoder.processor.max_length,
            "plume": _about(encoder, limits),
        }

    def start(self) -> None:
        """Starts the batcher."""
        self.batcher = Batcher(self._encoder, self._limits, self._metrics)

    def check_name(self, name: str | None) -> None:
        """Refuses another model's name: a client that means another model must not get vectors of this one."""
        if name not in (None, self._name):
            message = f"The model {name!r} is not served here; there is {self._name!r}."
            raise RequestError(HTTPStatus.NOT_FOUND, message, "model", "model_not_found")

    async def tokenize(self, body: TokenizeRequest) -> dict[str, int]:
        """The answer to a question for the length of a text."""
        self.check_name(body.model)
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                count = await asyncio.to_thread(self._counted, body.prompt)
        except TimeoutError as error:
            raise self._too_slow() from error
        return {"count": count, "max_model_len": self._encoder.processor.max_length}

    def _counted(self, text: str) -> int:
        if least := self._encoder.least_tokens(text):
            message = (
                f"It has {least} tokens or more, far over the {self._encoder.processor.max_length} of a row, and is "
                "not counted to its end; send parts of it."
            )
            raise RequestError(HTTPStatus.BAD_REQUEST, message, "prompt")
        return self._encoder.row_tokens(text)

    def _too_slow(self) -> RequestError:
        message = (
            f"It took longer than {self._limits.request_seconds:g} seconds (--timeout); send fewer or smaller items."
        )
        return RequestError(HTTPStatus.GATEWAY_TIMEOUT, message)

    async def embed(self, body: EmbeddingRequest, request: Request) -> Response:
        """The answer to an embedding request."""
        self.check_name(body.model)
        if body.dimensions is not None and body.dimensions > self._dimension:
            message = f"This model has vectors of {self._dimension} dimensions, got {body.dimensions}."
            raise RequestError(HTTPStatus.BAD_REQUEST, message, "dimensions")
        try:
            is_document = body.input_type == "document" and body.latent_steps is None
            own = self._encoder.document_latent_steps() if is_document else body.latent_steps
            steps = self._encoder.latent_steps(own)
        except ValueError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error), "latent_steps") from error
        try:
            items = self._contents.items_of(body)
        except ItemFailedError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error), error.part) from error
        except ValueError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error), _field(body)) from error
        try:
            futures = self.batcher.submit(items, steps)
        except RequestTooLargeError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error), _field(body)) from error
        except QueueFullError as error:
            headers = {"Retry-After": str(error.retry_after)}
            raise RequestError(HTTPStatus.TOO_MANY_REQUESTS, str(error), headers=headers) from error
        except StoppedError as error:
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"Retry-After": "5"}) from error
        return self._answer(body, await self._results(futures, request, _field(body)))

    async def _results(self, futures: list[Future[Embedded]], request: Request, field: str) -> list[Embedded]:
        """Waits for all of them; whatever ends the wait early takes the rest out of the queue."""
        waiting = [asyncio.wrap_future(future) for future in futures]
        ends = time.monotonic() + self._limits.request_seconds
        try:
            while True:
                seconds = min(_LOOK_SECONDS, max(0.0, ends - time.monotonic()))
                done, pending = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
                for one in waiting:  # in order: the error is that of the first one that failed, as its place below is
                    if one in done:
                        one.result()
                if not pending:
                    return [one.result() for one in waiting]
                if await request.is_disconnected():
                    raise RequestError(499, "The client has gone.")
                if time.monotonic() >= ends:
                    raise self._too_slow()
        except ItemFailedError as error:
            place = next(i for i, one in enumerate(waiting) if one.done() and not one.cancelled() and one.exception())
            param = field if field == "messages" else f"{field}[{place}]"
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error), error.part or param) from error
        finally:
            for one in waiting:
                one.cancel()

    def _answer(self, body: EmbeddingRequest, results: list[Embedded]) -> Response:
        vectors = np.stack([result.vector for result in results])  # [N, D]
        if body.dimensions is not None:
            vectors = vectors[:, : body.dimensions]
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        if body.encoding_format == "base64":
            shown = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        else:
            shown = vectors.tolist()
        num_tokens = sum(result.num_tokens for result in results)
        data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shown)]
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        # The framework's own encoder walks through every number in Python.
        answer = {"object": "list", "model": self._name, "data": data, "usage": usage}
        headers = {FINGERPRINT_HEADER: self.card["plume"]["fingerprint"]}
        return Response(json.dumps(answer), headers=headers, media_type="application/json")


def _field(body: EmbeddingRequest) -> str:
    return "messages" if body.messages is not None else "input"


def _about(encoder: Encoder, limits: Limits) -> dict[str, Any]:
    """What the client in `plume_embed.serve.client` reads."""
    processor = encoder.processor
    return {
        "fingerprint": encoder.fingerprint,
        "fingerprints": encoder.fingerprints,
        "dimension": encoder.dimension,
        "num_latent_steps": encoder.latent_steps(),
        "document_latent_steps": encoder.model.config.document_latent_steps,
        "max_latent_steps": encoder.model.config.num_step_embeddings,
        "items": min(limits.items, limits.queue_items),  # more of them in a request have no room
        "body_bytes": limits.body_bytes,
        "request_seconds": limits.request_seconds,
        "num_frames": processor.num_frames,
        "fps": processor.fps,
        "max_image_pixels": processor.max_image_pixels,
        "page_words": processor.page_words,
        "sees_times": processor.sees_times,
    }


def _prompts(encoder: Encoder) -> dict[str, str]:
    """The texts that go in front of a query and of a document."""
    file = encoder.folder / _PROMPTS_FILE
    known = json.loads(file.read_text()).get("prompts", {}) if file.is_file() else {}
    return {kind: known[kind] for kind in _INPUT_TYPES if known.get(kind)}
