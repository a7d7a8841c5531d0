# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""What counts as an input: every form in which a user hands over an item -> chat messages of one plain shape.

Nothing is decoded here. The result is a list of messages {"role": "system" or "user", "content": [parts]} with parts
{"type": kind, kind: value}, kind being text, image or video.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .images_plume import is_source, is_undecoded, source_path
from .media_plume import IMAGE_SUFFIXES, VIDEO_SUFFIXES

_SHOWN = 60  # characters of an item in an error
_CHAT_ROLES = ("system", "developer", "assistant", "tool")  # beside user: what makes messages a conversation
_DEPTH = 4  # of lists in lists that are shown; one may hold itself


class ItemError(ValueError):
    """An item that is no valid input; it is shown in the message, since a library may have sorted the items.

    Args:
        reason (`str`): What is wrong with it, and what to do.
        shown (`str`): How the item looks, in short; see [`describe`].
        index (`int`, *optional*): Its index in the list that the user handed over.
    """

    def __init__(self, reason: str, shown: str = "", index: int | None = None):
        super().__init__(reason, shown, index)
        self.reason, self.shown, self.index = reason, shown, index

    def __str__(self) -> str:
        position = "" if self.index is None else f"Item {self.index}: "
        shown = f" [{self.shown}]" if self.shown and self.shown not in self.reason else ""
        return f"{position}{self.reason}{shown}"


def describe(item: Any, depth: int = _DEPTH) -> str:
    """How an item looks, in a few words: the start of its text, the names of its files, the shapes of its pictures."""
    if isinstance(item, dict | list | tuple) and depth == 0:
        return "..."
    if isinstance(item, dict) and "role" in item:
        return describe(item.get("content"), depth)
    if isinstance(item, dict) and "type" in item:
        return describe({key: value for key, value in item.items() if key != "type"}, depth)
    if isinstance(item, dict):
        return _shortened(", ".join(f"{key} {describe(value, depth - 1)}" for key, value in item.items()))
    if isinstance(item, list | tuple):
        shown = ", ".join(describe(value, depth - 1) for value in item[:3])
        return _shortened(shown if len(item) <= 3 else f"{shown} and {len(item) - 3} more")
    if isinstance(item, str):
        return repr(_shortened(item))
    if isinstance(item, Image.Image):
        return f"{item.width} x {item.height} pixels"
    if isinstance(item, np.ndarray) or (isinstance(item, torch.Tensor) and not item.is_nested):
        return f"array of shape {tuple(item.shape)}"
    if isinstance(item, bytes | bytearray):
        return f"{len(item)} bytes"
    if isinstance(item, int) and item.bit_length() > 64:  # Python may refuse to write it out
        return "a large number"
    return str(item) if isinstance(item, Path | int | float | None) else f"a {type(item).__name__}"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_conversation(item: Any) -> bool:
    """Whether an item is a list of chat messages."""
    return isinstance(item, list) and bool(item) and all(isinstance(m, dict) and "role" in m for m in item)


def is_one_conversation(inputs: Any) -> bool:
    """Whether what is handed over as a list of items is one conversation. Messages of users alone are an item each."""
    return is_conversation(inputs) and any(message["role"] in _CHAT_ROLES for message in inputs)


def to_conversation(item: Any) -> list[dict]:
    """One item, in any of the forms that [`PlumeProcessor`] takes, as chat messages with all images, videos, texts."""
    if is_conversation(item):
        return item
    if isinstance(item, dict) and "role" in item:
        return [item]
    if not isinstance(item, dict) or is_undecoded(item):
        item = {_kind(item): item}
    unknown = set(item) - {"text", "image", "video"}
    if unknown or not item:
        raise ValueError(f"An item takes the keys text, image and video, got {sorted(map(str, item))}.")
    parts = [(kind, item[kind]) for kind in ("image", "video", "text") if item.get(kind) is not None]
    return [{"role": "user", "content": [{"type": kind, kind: value} for kind, value in parts]}]


def normalize_conversation(conversation: list[dict]) -> list[dict]:
    """Chat messages with each content a list of parts {"type": kind, kind: value}, values still undecoded.

    Raises:
        ValueError: other roles than system and user, more than one user message, unknown parts, no content.
    """
    messages = []
    for message in _unwrapped(conversation):
        if message.get("role") not in ("system", "user"):
            raise ValueError(
                f"Roles are system and user, got {message.get('role')!r}: one item is one user message, with system "
                "messages for its instruction."
            )
        _refuse_other_keys(message, {"role", "content"}, "A message")
        content = message.get("content")
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(content, list):
            raise ValueError(f"A message's content must be a string or a list of parts, got {type(content).__name__}.")
        _refuse_loose_frames(content)
        parts = [{"type": kind, kind: value} for part in content for kind, value in _values(part)]
        messages.append({"role": message["role"], "content": parts})
    if [message["role"] for message in messages].count("user") != 1:
        raise ValueError("One item is one user message; put several texts into its content.")
    if not any(message["content"] for message in messages):
        raise ValueError("The item is empty; an empty text is ''.")
    return messages


def _unwrapped(conversation: list[dict]) -> list[dict]:
    """sentence-transformers wraps a chat that stands among other inputs into the content of a message of its own."""
    messages = []
    for message in conversation:
        content = message.get("content")
        is_wrapped = isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict)
        if is_wrapped and content[0].get("type") == "message":
            inner = content[0].get("message")
            if not is_conversation(inner):
                raise ValueError(f"A part of type 'message' must hold a list of messages, got {type(inner).__name__}.")
            messages += inner
        else:
            messages.append(message)
    return messages


def _values(part: dict) -> list[tuple[str, Any]]:
    """The kind and value of a part; several, where its value is a list of images, of videos or of texts."""
    if not isinstance(part, dict):
        raise ValueError(f"A part of a message must be a dict with a type, got {type(part).__name__}.")
    kind = part.get("type")
    if kind not in ("text", "image", "video"):
        raise ValueError(f"A part's type must be text, image or video, got {kind!r}.")
    _refuse_other_keys(part, {"type", kind, "path", "url"}, f"A part of type {kind!r}")
    keys = [key for key in (kind, "path", "url") if key in part]  # the library's names for the value of a media part
    if not keys:
        raise ValueError(f"A part of type {kind!r} must hold its value under the key {kind!r}.")
    given = [part[key] for key in keys if part[key] is not None]  # None is how tables write "not there"
    if not given:
        return []
    value = given[0]
    is_list = isinstance(value, list | tuple)
    if is_list and not value:
        raise ValueError(f"The list under {kind!r} is empty; leave the key out where there is nothing.")
    values = _videos(value) if kind == "video" else list(value) if is_list else [value]
    for text in values if kind == "text" else ():
        if not isinstance(text, str):
            raise ValueError(f"A text must be a string, got {type(text).__name__}.")
        if not _is_encodable(text):
            raise ValueError("A text holds lone surrogates; decode its bytes with errors='replace'.")
    return [(kind, value) for value in values]


def _refuse_other_keys(given: dict, known: set[str], what: str) -> None:
    """What stands under another key would be left out of the embedding; `None` is how tables write "not there"."""
    others = sorted(str(key) for key, value in given.items() if key not in known and value is not None)
    if others:
        raise ValueError(
            f"{what} takes the keys {', '.join(sorted(known))}, got also {', '.join(others)}; pictures, films and "
            "texts are parts of the content, and options of pictures and films are images_kwargs and videos_kwargs."
        )


def _refuse_loose_frames(content: list) -> None:
    """A library may have taken a film's list of frames apart, and each would be a film of its own."""
    videos = [part.get("video") for part in content if isinstance(part, dict) and part.get("type") == "video"]
    paths = [path for video in videos if (path := source_path(video)) is not None]
    if sum(path.suffix.lower() in IMAGE_SUFFIXES for path in paths) > 1:
        raise ValueError(
            "Several pictures stand as videos of their own; hand over the frames of a film as one list under 'video', "
            "to sentence-transformers as PIL images."
        )


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(item: Any) -> str:
    """Whether a bare item is a text, an image or a video."""
    if isinstance(item, str):
        return "text"
    if isinstance(item, Image.Image):
        return "image"
    if isinstance(item, np.ndarray | torch.Tensor) and item.ndim in (3, 4):
        return "image" if item.ndim == 3 else "video"
    if isinstance(item, list | tuple) and item:
        _refuse_texts(item)
        return "video"
    suffix = path.suffix.lower() if (path := source_path(item)) else None
    if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return "image" if suffix in IMAGE_SUFFIXES else "video"
    if is_source(item) and path is None:  # bytes without a name; those of a film are named so: {"video": ...}
        return "image"
    if _is_missing(item):
        raise ValueError("It is missing; drop its row, or put '' where an empty text is meant.")
    raise ValueError(f"Cannot tell what a {type(item).__name__} is; {_remedy(item)}.")


def _is_missing(item: Any) -> bool:
    """Whether it is what tables write for "not there": `None`, NaN, or pandas' NA and NaT."""
    is_nan = isinstance(item, float) and math.isnan(item)
    return item is None or is_nan or type(item).__name__ in ("NAType", "NaTType")


def _remedy(item: Any) -> str:
    if type(item).__module__.startswith("pyarrow."):
        return "hand over Python's values: column.to_pylist()"
    if isinstance(item, Mapping):
        return "hand over a dict"
    is_array = isinstance(item, torch.Tensor) or (isinstance(item, np.ndarray) and item.ndim != 1)
    if isinstance(item, Iterable) and not is_array:  # which may be meant as a picture
        return "hand over a list of items: list(items), or of a table list(table['column'])"
    return "say it: {'text' or 'image' or 'video': ...}"


def _refuse_texts(item: list | tuple) -> None:
    """A list, or tuple, of pictures is a film; one of texts would be looked for among the files."""
    paths = [source_path(value) for value in item if isinstance(value, str)]
    if len(paths) == len(item) and not any(path and path.suffix.lower() in IMAGE_SUFFIXES for path in paths):
        raise ValueError(
            f"A {type(item).__name__} of texts is no item; hand over a list with an item for each, or one item with "
            "all of them: {'text': [...]}. Frames of a film whose names have no picture's suffix go under 'video'."
        )


def _videos(value: Any) -> list:
    """The videos under a dict's video key: one (path, array, list of frames) or a list of such."""
    if not isinstance(value, list | tuple):
        return [value]

    def is_video(element: Any) -> bool:
        path = source_path(element)
        if path is not None:
            return path.suffix.lower() in VIDEO_SUFFIXES
        return isinstance(element, list | tuple) or (
            isinstance(element, np.ndarray | torch.Tensor) and element.ndim == 4
        )

    return list(value) if all(map(is_video, value)) else [value]


__all__ = [
    "ItemError",
    "describe",
    "is_conversation",
    "is_one_conversation",
    "normalize_conversation",
    "to_conversation",
]
