"""A request's texts, pictures and films -> items for the processor. Here nothing is trusted.

Files come as base64 in data URLs. An address is fetched only from the hosts of --allow-host.
"""

import asyncio
import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx

from plume_embed.model.images_plume import MAX_PIXELS, is_source, read_image
from plume_embed.model.videos_plume import TimedFrames, film_seconds
from plume_embed.serve.batcher import Incoming, ItemFailedError
from plume_embed.serve.schema import EmbeddingRequest, Message, TextPart
from plume_embed.serve.settings import Limits

_FRAMES = ("video/jpeg", "video/png")  # frames one by one, with commas between them, as vLLM takes the first
_TIMES = "times="  # of the frames, in seconds: times=0+0.5+1
_MOST_SECONDS = 10**6
_SHOWN = 60  # characters of what is wrong
# A piece that is read grows a thousand times at most; one of brotli or zstd, or packed twice, a million times.
_PACKINGS = frozenset({"identity", "gzip", "deflate"})


@dataclass(frozen=True)
class Contents:
    """How requests become items.

    Args:
        limits ([`Limits`])
        hosts: From which addresses may be fetched, each "name" or "name:port".
        prompts: Texts that go in front, by the input types that have one.
        max_pixels (`int`): Most pixels of a picture that the processor takes.
    """

    limits: Limits
    hosts: frozenset[str] = frozenset()
    prompts: dict[str, str] = field(default_factory=dict)
    max_pixels: int = MAX_PIXELS

    def items_of(self, body: EmbeddingRequest) -> list[Incoming]:
        """The items of a request, files not yet decoded or fetched.

        Raises:
            ItemFailedError: a part is no file and no address that may be fetched.
            ValueError: too many items.
        """
        prompt = self.prompts.get(body.input_type or "")
        instruction = [{"role": "system", "content": prompt}] if prompt else []
        if body.messages is not None:
            return [self._conversation(instruction, body.messages)]
        texts = [body.input] if isinstance(body.input, str) else body.input or []
        if len(texts) > self.limits.items:
            raise ValueError(f"{len(texts)} items are over the limit of {self.limits.items} a request; send several.")
        return [Incoming(_text_item(instruction, text), len(text.encode(errors="replace")), False) for text in texts]

    def _conversation(self, instruction: list[dict], messages: list[Message]) -> Incoming:
        num_bytes, media = 0, 0
        for part in _parts(messages):
            num_bytes += len(part.value)
            if part.kind != "text":
                media += 1
                with _naming(part):
                    self._check_address(part.value)
        if media > self.limits.items:
            raise ValueError(f"{media} pictures and films are over the limit of {self.limits.items} a request.")
        read = partial(self._read, instruction, messages, time.monotonic() + self.limits.request_seconds)
        part_at_fault = partial(self._part_at_fault, messages)
        return Incoming(read if media else read(), num_bytes, bool(media), part_at_fault)

    def _read(self, instruction: list[dict], messages: list[Message], ends: float) -> list[dict]:
        """The conversation with its files; it may fetch, so it is called in a thread ahead of the model.

        Args:
            ends (`float`): When the request has had its time, by `time.monotonic()`.
        """
        fetching = _Fetching(self.limits, ends)
        read = [*instruction]
        for number, message in enumerate(messages):
            if message.role != "assistant":
                parts = _parts_of(number, message)
                content = [{"type": part.kind, part.kind: self._value(part, fetching)} for part in parts]
                read.append({"role": message.role, "content": content})
        return read

    def _part_at_fault(self, messages: list[Message]) -> str | None:
        """The first picture, or frame of a film, that came as a file and that cannot be decoded."""
        for part in _parts(messages):
            if part.kind != "text" and part.value.startswith("data:"):
                data = _data(part.value)
                try:
                    for picture in [data] if part.kind == "image" else data if isinstance(data, list) else []:
                        read_image(picture, self.max_pixels)
                except ValueError:
                    return part.place
        return None

    def _value(self, part: "_Part", fetching: "_Fetching") -> Any:
        if part.kind == "text":
            return part.value
        with _naming(part):
            data = _data(part.value) if part.value.startswith("data:") else fetching.fetched(part.value)
            if part.kind == "video" and is_source(data):
                self._check_film(data)
        return data

    def _check_film(self, film: Any) -> None:
        seconds = film_seconds(film)
        if seconds > self.limits.film_seconds:
            raise ValueError(
                f"A film of {seconds:.0f} seconds is over the limit of {self.limits.film_seconds:g}; cut it into "
                "clips, or send some of its frames."
            )

    def _check_address(self, url: str) -> None:
        if url.startswith("data:"):
            return
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(
                f"{url[:_SHOWN]!r} is neither a data URL nor a web address: send the file as data:image/png;base64,..."
            )
        if not {parts.netloc, parts.hostname} & self.hosts:
            raise ValueError(
                f"Addresses of {parts.hostname} are not fetched: send the file as data:image/png;base64,..., or start "
                f"the server with --allow-host {parts.netloc}."
            )


class _Fetching:
    """Fetches the files of one request, within the bytes and the time that all of them have together.

    Args:
        limits ([`Limits`])
        ends (`float`): When the request has had its time, by `time.monotonic()`.
    """

    def __init__(self, limits: Limits, ends: float):
        self._limits, self._ends, self._bytes_left = limits, ends, limits.body_bytes

    def fetched(self, url: str) -> bytes:
        """The file at an address.

        Raises:
            ValueError: it cannot be fetched, or not within the limits.
        """
        seconds = min(self._limits.fetch_seconds, self._ends - time.monotonic())
        try:
            return asyncio.run(self._fetched(url, seconds))
        except TimeoutError as error:
            raise ValueError(
                f"{url[:200]} cannot be fetched in time: a file has {self._limits.fetch_seconds:g} seconds, and the "
                f"request {self._limits.request_seconds:g} (--timeout). Send it as data:image/png;base64,..."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ValueError(f"{url[:200]} cannot be fetched: {error or type(error).__name__}") from error

    async def _fetched(self, url: str, seconds: float) -> bytes:
        content = bytearray()
        async with (
            asyncio.timeout(seconds),  # httpx' own limits are those of a single read: a host may send a byte at a time
            httpx.AsyncClient(timeout=None, headers={"Accept-Encoding": "identity"}) as client,
            # Another address than the one that was checked must not be reached by way of it.
            client.stream("GET", url, follow_redirects=False) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"{url[:200]} answers with status {response.status_code}; redirects are not followed.")
            packing = response.headers.get("content-encoding", "identity")
            if packing.strip().lower() not in _PACKINGS:
                raise ValueError(f"{url[:200]} comes packed as {packing[:_SHOWN]}; fetched files must not be.")
            async for piece in response.aiter_bytes():
                content += piece
                self._bytes_left -= len(piece)
                if self._bytes_left < 0:
                    raise ValueError(
                        f"The files of a request that are fetched may have {self._limits.body_bytes} bytes together "
                        f"(--max-body-mb), and {url[:200]} is over that; send several requests."
                    )
        return bytes(content)


def _text_item(instruction: list[dict], text: str) -> Any:
    return [*instruction, {"role": "user", "content": text}] if instruction else {"text": text}


@dataclass(frozen=True)
class _Part:
    """A text, or the address of a picture or a film; `place` is its field in the request."""

    place: str
    kind: str
    value: str


def _parts(messages: list[Message]) -> Iterator[_Part]:
    for number, message in enumerate(messages):
        yield from _parts_of(number, message)


def _parts_of(number: int, message: Message) -> Iterator[_Part]:
    place = f"messages[{number}].content"
    if isinstance(message.content, str):
        yield _Part(place, "text", message.content)
        return
    for row, part in enumerate(message.content):
        inside = f"{place}[{row}].{part.type}"
        if isinstance(part, TextPart):
            yield _Part(inside, "text", part.text)
        elif part.type == "image_url":
            yield _Part(inside, "image", part.image_url.url)
        else:
            yield _Part(inside, "video", part.video_url.url)


@contextmanager
def _naming(part: _Part) -> Iterator[None]:
    """Around what a part alone may be at fault for: the error says which one."""
    try:
        yield
    except ValueError as error:
        raise ItemFailedError(str(error), part.place) from error


def _data(url: str) -> bytes | list[bytes]:
    """The bytes of a data URL; a list, where it holds frames."""
    header, comma, data = url.partition(",")
    media_type, *options = header.removeprefix("data:").split(";")
    if not comma or "base64" not in options:
        raise ValueError("A data URL must be of the form data:image/png;base64,...")
    if media_type not in _FRAMES:
        return _decoded(data)
    frames = [_decoded(frame) for frame in data.split(",")]
    times = [option.removeprefix(_TIMES) for option in options if option.startswith(_TIMES)]
    return TimedFrames(frames, _seconds(times[0])) if times else frames


def _seconds(times: str) -> list[float]:
    try:
        seconds = [float(time) for time in times.split("+")]
    except ValueError as error:
        raise ValueError(f"Times of frames are seconds with + between them, got {times[:_SHOWN]!r}.") from error
    if not all(0 <= time <= _MOST_SECONDS for time in seconds):
        raise ValueError(f"Times of frames lie in 0..{_MOST_SECONDS} seconds, got {times[:_SHOWN]!r}.")
    return seconds


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:  # binascii.Error is one; another says that a letter is not ASCII
        raise ValueError(f"A data URL holds no valid base64: {error}.") from error
