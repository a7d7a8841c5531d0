"""RemoteEncoder: a running server in the place of a model in this process. No torch, no package of an extra."""

import base64
import io
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np

from plume_embed.addresses import check_address
from plume_embed.encode.batching import BATCH_SIZE, check_batch_limits, most_tokens, run_ahead
from plume_embed.encode.steps import checked_steps
from plume_embed.model.images_plume import opened, to_rgb
from plume_embed.model.videos_plume import TimedFrames
from plume_embed.serve.settings import API_KEY_VARIABLE, FINGERPRINT_HEADER, api_key

if TYPE_CHECKING:
    from PIL import Image

_SECONDS = 120.0  # for an answer; longer where the server takes longer
_BUSY_SECONDS = 300.0  # how long a busy server is asked again
_MEDIA_AT_ONCE = 8  # pictures and films of a batch that are on their way together
_BATCHES_AT_ONCE = 2
_WAIT_SECONDS = 1.0  # for a busy server that does not say how long
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS})
# What `plume-embed serve` says of its model, and of which type.
_ABOUT: dict[str, Any] = {
    "dimension": int,
    "fingerprint": str,
    "num_latent_steps": int,
    "max_latent_steps": int,
    "document_latent_steps": int | None,
    "items": int,
    "body_bytes": int,
    "request_seconds": int | float,
    "num_frames": int | None,
    "fps": int | float | None,
    "max_image_pixels": int,
    "page_words": int,
    "sees_times": bool,
}


@dataclass(frozen=True)
class RemoteReader:
    """How a server's model wants its files read; see `MediaReader` of plume_embed.reading."""

    num_frames: int | None
    fps: float | None
    max_image_pixels: int
    page_words: int
    sees_times: bool

    def shrunk(self, content: dict[str, Any]) -> dict[str, Any]:
        """The item as it is: how the model resizes pictures is for the server to know."""
        return content


class RemoteEncoder:
    """The model of a server, used as an [`Encoder`] is.

    Args:
        address (`str`): Of the server, "http://host:port", with or without /v1.
        key (`str`, *optional*): Its API key; by default that of the environment variable PLUME_API_KEY.

    Attributes:
        name (`str`): The model's name there.
        processor ([`RemoteReader`]): How files are read for it.

    Raises:
        ValueError: nobody answers there, or it is no server of plume-embed, with the remedy.
    """

    def __init__(self, address: str, key: str | None = None):
        self._address = check_address(address, "--server", "http://127.0.0.1:8000").rstrip("/").removesuffix("/v1")
        self._key, self._seconds = key or api_key(), _SECONDS
        self.name, self._max_length, self._about = _served(self._asked("/v1/models")[0], self._address)
        self._seconds = max(_SECONDS, 2 * self._about["request_seconds"])
        reading = ("num_frames", "fps", "max_image_pixels", "page_words", "sees_times")
        self.processor = RemoteReader(**{name: self._about[name] for name in reading})

    @property
    def dimension(self) -> int:
        """D, the size of a vector."""
        return self._about["dimension"]

    @property
    def fingerprint(self) -> str:
        """Of the server's model: see [`Encoder.fingerprint`]."""
        return self._about["fingerprint"]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the server's model with each `--dtype`; none of an older server."""
        return self._about.get("fingerprints", {})

    def latent_steps(self, num_latent_steps: int | None = None) -> int:
        """K as it will be used: the model's own unless given.

        Raises:
            ValueError: no whole number, or more steps than the model has.
        """
        return checked_steps(num_latent_steps, self._about["num_latent_steps"], self._about["max_latent_steps"])

    def document_latent_steps(self, num_latent_steps: int | None = None) -> int:
        """K of documents: the model's own where it has one for them, else as of queries."""
        own = self._about["document_latent_steps"]
        return self.latent_steps(num_latent_steps) if own is None else own

    def num_tokens(self, item: Any) -> float:
        """0: the server cuts its own batches, out of what all clients send."""
        return 0.0

    def fits(self, text: str) -> bool:
        """Whether the text fits into one row; the server is asked only where that is not plain."""
        if self._prompt_length + most_tokens(text) <= self._max_length:
            return True
        return self._row_tokens(text) <= self._max_length

    @cached_property
    def _prompt_length(self) -> int:
        return self._row_tokens("")

    def _row_tokens(self, text: str) -> int:
        match self._asked("/tokenize", {"model": self.name, "prompt": text})[0]:
            case {"count": int(count)}:
                return count
        raise self._strange()

    def encode_readable(
        self, items: Iterable[Any], batch_size: int = BATCH_SIZE, num_latent_steps: int | None = None
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Vectors [N, D]; what cannot be embedded leaves a row of NaN and its reason, by its place.

        Raises:
            ValueError: a batch size that is no whole number above 0, or a K that the model does not take.
        """
        check_batch_limits(batch_size)
        rows = list(items)  # by position: a Series of pandas looks up by label
        starts = range(0, len(rows), batch_size)
        vectors, errors = np.full((len(rows), self.dimension), np.nan, dtype=np.float32), {}
        results = self.encode_batches([rows[start : start + batch_size] for start in starts], num_latent_steps)
        for start, (part, refused) in zip(starts, results, strict=True):
            vectors[start : start + len(part)] = part
            errors |= {start + place: reason for place, reason in refused.items()}
        return vectors, errors

    def encode_batches(
        self, batches: Iterable[list[Any]], num_latent_steps: int | None = None
    ) -> Iterator[tuple[np.ndarray, dict[int, str]]]:
        """The same for batch after batch; the next is on its way while one is used."""
        steps = self.latent_steps(num_latent_steps)
        for _, done in run_ahead(lambda batch: self._encode(batch, steps), batches, _BATCHES_AT_ONCE, _BATCHES_AT_ONCE):
            yield done.result()

    def _encode(self, items: list[Any], steps: int) -> tuple[np.ndarray, dict[int, str]]:
        vectors, errors = np.full((len(items), self.dimension), np.nan, dtype=np.float32), {}

        def take(places: list[int], body: dict[str, Any]) -> None:
            try:
                vectors[places] = self._vectors(body, steps, len(places))
            except (_RefusedError, _SlowError) as error:
                if len(places) > 1:  # one of them is at fault, or they are too many: find it, and keep the others
                    middle = len(places) // 2
                    for half in (places[:middle], places[middle:]):
                        take(half, texts_of(half))
                elif isinstance(error, _SlowError):  # other clients may be the reason
                    raise
                else:
                    errors[places[0]] = _of_files(items[places[0]], str(error))

        def texts_of(places: list[int]) -> dict[str, Any]:
            return {"input": [items[place]["text"] for place in places]}

        texts = [place for place, item in enumerate(items) if set(item) == {"text"}]
        media = [place for place in range(len(items)) if place not in set(texts)]
        with ThreadPoolExecutor(_MEDIA_AT_ONCE) as pool:
            waiting = [pool.submit(take, [place], {"messages": [_message(items[place])]}) for place in media]
            for start in range(0, len(texts), self._about["items"]):
                places = texts[start : start + self._about["items"]]
                take(places, texts_of(places))
            for one in waiting:
                one.result()
        return vectors, errors

    def _vectors(self, body: dict[str, Any], steps: int, number: int) -> np.ndarray:
        """Vectors [number, D] of the items of a request."""
        request = {"model": self.name, "encoding_format": "base64", "latent_steps": steps, **body}
        again = _BUSY if number > 1 else _BUSY | {HTTPStatus.GATEWAY_TIMEOUT}  # of several, fewer are sent
        answer, fingerprint = self._asked("/v1/embeddings", request, self._about["body_bytes"], again)
        if fingerprint is None:
            raise self._strange()
        if fingerprint != self.fingerprint:  # it was started anew: vectors of two models must not mix
            raise ValueError(f"{self._address} serves another model than it did at first; run the command again.")
        try:
            rows = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]]
            vectors = np.stack(rows).astype(np.float32)
        except (LookupError, TypeError, ValueError) as error:
            raise self._strange() from error
        if vectors.shape != (number, self.dimension):
            raise self._strange()
        return vectors

    def _asked(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        most_bytes: float = math.inf,
        again: frozenset[int] = _BUSY,
    ) -> tuple[Any, str | None]:
        """What the server answers, and the fingerprint of its model where it says that; a busy one is asked again.

        Args:
            most_bytes (`float`): Of a body. A larger one is not sent: whoever refuses it need not read it to its end.
            again: Statuses after which the server is asked again, for a while.

        Raises:
            _RefusedError: the request itself is at fault.
            _SlowError: it took the server too long.
            ValueError: the server cannot answer, with the remedy.
        """
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode() if body is not None else None
        if data is not None and len(data) > most_bytes:
            raise _RefusedError(
                f"It has {len(data)} bytes as a request, and {self._address} takes {most_bytes:.0f}; start that with "
                "a higher --max-body-mb."
            )
        request = Request(self._address + path, data, headers)
        ends = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                with urlopen(request, timeout=self._seconds) as answer:
                    return json.load(answer), answer.headers.get(FINGERPRINT_HEADER)
            except HTTPError as error:
                if error.code in again and time.monotonic() < ends:
                    after = error.headers.get("Retry-After", "")
                    time.sleep(min(float(after), _BUSY_SECONDS) if after.isdecimal() else _WAIT_SECONDS)
                    continue
                raise self._refusal(error) from error
            except (URLError, OSError, HTTPException, ValueError, RecursionError) as error:
                reason = error.reason if isinstance(error, URLError) else error
                raise ValueError(
                    f"No server answers at {self._address} ({reason}); start it with `plume-embed serve`."
                ) from error

    def _refusal(self, error: HTTPError) -> ValueError:
        try:
            message = json.load(error)["error"]["message"]
        except (OSError, HTTPException, ValueError, KeyError, TypeError, RecursionError):
            message = error.reason
        if error.code in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            return _RefusedError(message)
        if error.code == HTTPStatus.UNAUTHORIZED:
            return ValueError(f"{self._address}: {message} The command line sends ${API_KEY_VARIABLE}.")
        kind = _SlowError if error.code == HTTPStatus.GATEWAY_TIMEOUT else ValueError
        return kind(f"{self._address} answers with status {error.code}: {message}")

    def _strange(self) -> ValueError:
        return ValueError(f"{self._address} answers as no `plume-embed serve` does: start that there, of this version.")


class _RefusedError(ValueError):
    """The server cannot embed what was sent; the message is the reason alone."""


class _SlowError(ValueError):
    """The server gave up before it had the vectors."""


def _served(answer: Any, address: str) -> tuple[str, int, dict[str, Any]]:
    """The model of a server: its name, its max_length, and what [`_ABOUT`] lists.

    Args:
        answer: Of `/v1/models`.

    Raises:
        ValueError: it is not that of `plume-embed serve`.
    """
    match answer:
        case {"data": [{"id": str(name), "max_model_len": int(max_length), "plume": dict(about)}]}:
            if all(name in about and isinstance(about[name], kind) for name, kind in _ABOUT.items()):
                return name, max_length, about
            raise ValueError(f"{address} is a `plume-embed serve` of another version; start it by this one.")
        case {"data": [{"id": str(name)}, *_]}:
            raise ValueError(f"{address} serves {name}, but not by `plume-embed serve`; use that.")
    raise ValueError(f"{address} is no server of embeddings; start one with `plume-embed serve`.")


def _of_files(item: dict[str, Any], reason: str) -> str:
    """Why an item was refused, with the names of its files: the server knows their bytes alone."""
    files = [str(value) for value in item.values() if isinstance(value, Path)]
    return f"{', '.join(files)}: {reason}" if files else reason


def _message(item: dict[str, Any]) -> dict[str, Any]:
    """An item as vLLM's message: text, image (one or a list), video (a path or a list of frames)."""
    parts: list[dict[str, Any]] = []
    images = item.get("image", [])
    for image in images if isinstance(images, list) else [images]:
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_file(image)}"}})
    if "video" in item:
        video = item["video"]
        data = f"video/mp4;base64,{_file(video, 'video')}" if isinstance(video, Path) else _frames(video)
        parts.append({"type": "video_url", "video_url": {"url": f"data:{data}"}})
    if "text" in item:
        parts.append({"type": "text", "text": item["text"]})
    return {"role": "user", "content": parts}


def _frames(frames: Sequence["Image.Image"]) -> str:
    times = f"times={'+'.join(map(repr, frames.times))};" if isinstance(frames, TimedFrames) else ""
    return f"video/png;{times}base64,{','.join(map(_file, frames))}"


def _file(media: "Image.Image | Path", kind: str = "image") -> str:
    """A file's own bytes, or a picture as PNG, which loses nothing; its size matters less than the time.

    Raises:
        ValueError: no such file, or no regular one: a pipe would be waited for, for ever.
    """
    if isinstance(media, Path):
        with opened(media, kind) as file:
            return _base64(file.read())
    png = io.BytesIO()
    to_rgb(media).save(png, "PNG", compress_level=1)
    return _base64(png.getvalue())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
