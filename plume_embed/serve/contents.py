"""A request's texts, pictures and films -> items for the processor. Here nothing is trusted.

Files come as base64 in data URLs. An address is fetched only from the hosts of --allow-host.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx

from plume_embed.model.images_plume import is_source
from plume_embed.model.videos_plume import TimedFrames, film_seconds
from plume_embed.serve.batcher import Incoming
from plume_embed.serve.schema import EmbeddingRequest, Message, TextPart
from plume_embed.serve.settings import Limits

_FRAMES = ("video/jpeg", "video/png")  # frames one by one, with commas between them, as vLLM takes the first
_TIMES = "times="  # of the frames, in seconds: times=0+0.5+1
_MOST_SECONDS = 10**6
_SHOWN = 60  # characters of what is wrong


@dataclass(frozen=True)
class Contents:
    """How requests become items.

    Args:
        limits ([`Limits`])
        hosts: From which addresses may be fetched, each "name" or "name:port".
        prompts: Texts that go in front, by the input types that have one.
    """

    limits: Limits
    hosts: frozenset[str] = frozenset()
    prompts: dict[str, str] = field(default_factory=dict)

    def items_of(self, body: EmbeddingRequest) -> list[Incoming]:
        """The items of a request, files not yet decoded or fetched.

        Raises:
            ValueError: too many items, or a part that is no file and no address that may be fetched.
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
        for kind, value in _values(messages):
            num_bytes += len(value)
            if kind != "text":
                media += 1
                self._check_address(value)
        if media > self.limits.items:
            raise ValueError(f"{media} pictures and films are over the limit of {self.limits.items} a request.")
        messages = [message for message in messages if message.role != "assistant"]
        read = partial(self._read, instruction, messages)
        return Incoming(read if media else read(), num_bytes, bool(media))

    def _read(self, instruction: list[dict], messages: list[Message]) -> list[dict]:
        """The conversation with its files; it may fetch, so it is called in a thread ahead of the model."""
        read = [*instruction]
        for message in messages:
            parts = [{"type": kind, kind: self._value(kind, value)} for kind, value in _values([message])]
            read.append({"role": message.role, "content": parts})
        return read

    def _value(self, kind: str, value: str) -> Any:
        if kind == "text":
            return value
        data = _data(value) if value.startswith("data:") else self._fetched(value)
        if kind == "video" and is_source(data):
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

    def _fetched(self, url: str) -> bytes:
        limit = self.limits.body_bytes
        try:
            # Another address than the one that was checked must not be reached by way of it.
            with httpx.stream("GET", url, timeout=self.limits.fetch_seconds, follow_redirects=False) as response:
                if response.status_code != httpx.codes.OK:
                    raise ValueError(
                        f"{url[:200]} answers with status {response.status_code}; redirects are not followed."
                    )
                content = bytearray()
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > limit:
                        raise ValueError(f"{url[:200]} has more than {limit} bytes, the limit of a request.")
                return bytes(content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ValueError(f"{url[:200]} cannot be fetched: {error or type(error).__name__}") from error


def _text_item(instruction: list[dict], text: str) -> Any:
    return [*instruction, {"role": "user", "content": text}] if instruction else {"text": text}


def _values(messages: list[Message]) -> Iterator[tuple[str, str]]:
    """Kind and value of every part: a text, or the address of a picture or a film."""
    for message in messages:
        if isinstance(message.content, str):
            yield "text", message.content
            continue
        for part in message.content:
            if isinstance(part, TextPart):
                yield "text", part.text
            elif part.type == "image_url":
                yield "image", part.image_url.url
            else:
                yield "video", part.video_url.url


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
