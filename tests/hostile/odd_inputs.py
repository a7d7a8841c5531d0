"""What programs hand over: odd texts, pictures, films, dicts and things that are no item at all.

Each is made anew when it is used. `VECTOR` stands where there is a right vector; else a part of the one error.
"""

import collections
import io
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damaged_files import good_files, picture
from PIL import Image

VECTOR = None


@dataclass(frozen=True)
class Odd:
    """An input.

    Args:
        name (`str`)
        make (`Callable`): Makes it, in a folder of its own.
        error (`str`, *optional*): A pattern that its error matches; `None` if it has a vector.
        same_as (`Callable`, *optional*): Makes an input with the same vector.
    """

    name: str
    make: Callable[[Path], Any]
    error: str | None = VECTOR
    same_as: Callable[[Path], Any] | None = None


def odd_inputs() -> list[Odd]:
    """All of them; their names are different."""
    found = [
        Odd(*fields) for part in (_texts, _pictures, _sources, _films, _dicts, _chats, _no_items) for fields in part()
    ]
    assert len({odd.name for odd in found}) == len(found)
    return found


def _given(value: Any) -> Callable[[Path], Any]:
    return lambda folder: value


def _texts() -> Iterator[tuple]:
    texts = {
        "nothing": "",
        "a space": " ",
        "line breaks": "\r\n\n\r",
        "a NUL": "\0",
        "NULs inside": "a\0b\0c",
        "a byte order mark": "\ufeffcat",
        "no characters": "\uffff\ufffe\U0010ffff",
        "tags of language": "\U000e0001\U000e0061",
        "a terminal's commands": "\x1b[31mred\x07\x08",
        "right to left": "שלום עולם مرحبا بالعالم",
        "turned around": "\u202etxt.exe\u202c",
        "invisible": "\u200b\u200d\u2060\u00ad",
        "marks over marks": "e" + "\u0301" * 300,
        "a family of emoji": "👩‍👩‍👧‍👦" * 20,
        "one long word": "a" * 1500,
        "old letters": "𒀀𐍈𝔘𠀋",
        "a template": "{{ 7 * 7 }}{% for x in y %}{{ raise_exception('x') }}",
        "markup": "<script>alert(1)</script> & </think> [red]bold[/red]",
        "a path": "/etc/passwd",
        "an address": "http://127.0.0.1:9/picture.png",
        "JSON": '{"role": "user", "content": [{"type": "image", "image": "x.png"}]}',
        "a number": "1" * 2000,
    }
    for token in ("<bot>", "<eot>", "<gen_emb>", "<disc_emb>", "<ct>", "<|image_pad|>", "<|video_pad|>", "<|im_end|>"):
        texts[f"the token {token}"] = f"{token} and {token}{token}"
    texts |= {"half a token": "<|image_", "a token in pieces": "<b<bot>ot>", "many tokens": "<|image_pad|><bot>" * 60}
    for name, text in texts.items():
        yield f"text: {name}", _given(text), VECTOR, _given({"text": text})
    # Characters that the processor itself uses as a mark are no part of a text.
    yield "text: the mark of a cut", _given("a \U000f0000cat"), VECTOR, _given("a cat")
    yield "text: a subclass", _given(type("Text", (str,), {})("a cat")), VECTOR, _given("a cat")
    yield "text: of NumPy", _given(np.str_("a cat")), VECTOR, _given("a cat")
    yield "text: half a character", _given("a \ud83d cat"), "lone surrogates"
    yield "text: bytes of a name", _given("\udcff\udcfe"), "lone surrogates"
    yield "text: too long", _given("word " * 60_000), "over the processor's max_length"
    yield "text: ten million characters", _given("a" * 10_000_000), "over the processor's max_length"


def _pictures() -> Iterator[tuple]:
    sound = picture(3, (40, 30))
    for mode in ("1", "L", "LA", "P", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB", "I;16"):
        yield f"picture: mode {mode}", lambda folder, mode=mode: _in_mode(sound, mode)
    yield "picture: mode I", lambda folder: sound.convert("I"), "8 bits or dark grey of 16"
    yield "picture: mode F", lambda folder: sound.convert("F"), "no fixed range"
    yield "picture: beyond 16 bits", lambda folder: Image.fromarray(np.full((9, 9), 70_000, np.int32)), "no fixed range"
    yield "picture: one pixel", _given(Image.new("RGB", (1, 1), "red"))
    yield "picture: two by one", _given(Image.new("L", (2, 1), 90))
    yield "picture: 1 to 200", _given(Image.new("RGB", (200, 1), "blue"))
    yield "picture: 1 to 201", _given(Image.new("RGB", (201, 1))), "201 x 1 pixels has no area or an aspect ratio"
    yield "picture: 5000 to 1", _given(Image.new("RGB", (1, 5000))), "1 x 5000 pixels has no area or an aspect ratio"
    yield "picture: no width", _given(Image.new("RGB", (0, 10))), "0 x 10 pixels has no area"
    yield "picture: no pixel", _given(Image.new("RGB", (0, 0))), "0 x 0 pixels has no area"
    yield "picture: closed", _closed, "Cannot decode"
    yield "picture: opened and damaged", _opened_and_damaged, "Cannot decode|Cannot read"
    array = np.asarray(sound)
    same = _given({"image": sound})
    arrays = {
        "channels first": array.transpose(2, 0, 1),
        "turned strides": np.ascontiguousarray(array[:, ::-1])[:, ::-1],
        "every second pixel of twice": array.repeat(2, 0).repeat(2, 1)[::2, ::2],
        "Fortran order": np.asfortranarray(array),
    }
    for name, value in arrays.items():
        yield f"array: {name}", _given(value), VECTOR, same
    yield "array: not to be written", _locked_array(array), VECTOR, same
    yield "array: a tensor", _given(torch.from_numpy(array.copy())), VECTOR, same
    yield "array: a tensor, channels first", _given(torch.from_numpy(array.copy()).permute(2, 0, 1)), VECTOR, same
    yield "array: with alpha", _given(np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])), VECTOR, same
    yield "array: one pixel", _given(np.zeros((1, 1, 3), np.uint8)), VECTOR, _given(Image.new("RGB", (1, 1)))
    yield "array: of grey", _given({"image": np.full((20, 20), 7, np.uint8)})
    spoiled = {
        "not a number": (np.full((8, 8, 3), np.nan), "must be uint8"),
        "infinite": (np.full((8, 8, 3), np.inf, np.float32), "must be uint8"),
        "of floats": (array / 255, "must be uint8"),
        "of truth values": (array > 90, "must be uint8"),
        "of 64 bits": (array.astype(np.int64), "must be uint8"),
        "of signed bytes": (array.astype(np.int8), "must be uint8"),
        "of objects": (array.astype(object), "must be uint8"),
        "of strings": (np.full((8, 8, 3), "x"), "must be uint8"),
        "of records": (np.zeros((8, 8, 3), [("r", "u1")]), "must be uint8"),
        "of times": (np.zeros((8, 8, 3), "datetime64[s]"), "must be uint8"),
        "no height": (np.zeros((0, 8, 3), np.uint8), "no area"),
        "no width": (np.zeros((8, 0, 3), np.uint8), "no area"),
        "two channels": (np.zeros((8, 8, 2), np.uint8), "must be"),
        "one axis": (np.zeros(8, np.uint8), "Cannot tell"),
        "five axes": (np.zeros((1, 1, 8, 8, 3), np.uint8), "Cannot tell"),
        "no axis": (np.uint8(4), "Cannot tell"),
    }
    for name, (value, error) in spoiled.items():
        yield f"array: {name}", _given(value), error
    tensors = {
        "meta": (torch.empty(3, 8, 8, dtype=torch.uint8, device="meta"), "must hold its values"),
        "sparse": (torch.zeros(8, 8, dtype=torch.uint8).to_sparse(), "must hold its values"),
        "a sparse picture": (torch.zeros(3, 8, 8, dtype=torch.uint8).to_sparse(), "must hold its values"),
        "of halves": (torch.rand(3, 8, 8).bfloat16(), "must be uint8"),
        "complex": (torch.zeros(3, 8, 8, dtype=torch.complex64), "must be uint8"),
        "with a gradient": (torch.rand(3, 8, 8, requires_grad=True), "must be uint8"),
        "nothing": (torch.empty(0, 8, 3, dtype=torch.uint8), "no area"),
        "ragged": (
            torch.nested.nested_tensor([torch.zeros(3, 4), torch.zeros(2, 4)], dtype=torch.uint8),
            "must hold its values",
        ),
        "a parameter": (torch.nn.Parameter(torch.rand(3, 8, 8)), "must be uint8"),
    }
    for name, (value, error) in tensors.items():
        yield f"tensor: {name}", _given({"image": value}), error


def _sources() -> Iterator[tuple]:
    data = good_files()["still.png"]
    same = _given({"image": data})
    yield "source: bytes", _given(data), VECTOR, same
    yield "source: a bytearray", _given(bytearray(data)), VECTOR, same
    yield "source: a memoryview", _given(memoryview(data)), VECTOR, same
    yield "source: a file in memory", lambda folder: io.BytesIO(data), VECTOR, same
    yield "source: a file at its end", _at_its_end, VECTOR, same
    yield "source: undecoded", _given({"bytes": data, "path": None}), VECTOR, same
    yield "source: a path with spaces", lambda folder: _file(folder, "a b\tc.png", data), VECTOR, same
    yield "source: a path of signs", lambda folder: _file(folder, "שלום-é-#%&;.png", data), VECTOR, same
    yield "source: a name in capitals", lambda folder: _file(folder, "X.PNG", data), VECTOR, same
    yield "source: a link", lambda folder: _link(folder, data), VECTOR, same
    yield "source: no bytes", _given(b""), "cannot identify"
    yield "source: some bytes", _given(b"abc"), "cannot identify"
    yield "source: bytes of text", _given({"image": "ABC".encode("utf-16")}), "cannot identify"
    yield "source: a closed file", _closed_file, "must be binary and readable"
    yield "source: a file of text", lambda folder: {"image": io.StringIO("abc")}, "must be binary and readable"
    yield "source: a file to be written", _write_only, "must be binary and readable"
    yield "source: undecoded and empty", _given({"bytes": None, "path": None}), "Neither the bytes nor the path"
    yield (
        "source: undecoded without a file",
        lambda folder: {"image": {"bytes": None, "path": str(folder / "no.png")}},
        "No such",
    )
    yield "source: no file", lambda folder: folder / "nothing.png", "No such image file"
    yield "source: no such film", lambda folder: folder / "nothing.mp4", "No such video file"
    yield "source: a folder", lambda folder: {"image": folder}, "but a folder"
    yield "source: a device", _given({"image": Path("/dev/zero")}), "but a folder, a pipe or a device"
    yield "source: an empty path", _given({"image": ""}), "but a folder"
    yield "source: a path with a NUL", _given({"image": "a\0b.png"}), "Cannot open"
    yield "source: a path too long", _given({"image": "x" * 5000 + ".png"}), "Cannot open"
    yield "source: a name of bytes", _given({"image": "\udcff.png"}), "No such image file"
    yield "source: an address", _given({"image": "https://127.0.0.1/x.png"}), "remote address"
    yield "source: data in an address", _given({"image": "data:image/png;base64,AAAA"}), "remote address"
    yield "source: an address of a file", _given({"image": "file:///etc/hosts"}), "No such image file"
    yield "source: a path without a suffix", lambda folder: _file(folder, "picture", data), "Cannot tell what"
    yield "source: an empty file", lambda folder: _file(folder, "empty.png", b""), "cannot identify"
    yield "source: a text as a picture", lambda folder: _file(folder, "x.png", b"text"), "cannot identify"
    yield (
        "source: a film as a picture",
        lambda folder: {"image": _file(folder, "x.png", good_files()["film.mp4"])},
        "cannot identify",
    )
    yield "source: a PDF as a film", lambda folder: _file(folder, "x.mp4", good_files()["pages.pdf"]), "as a video"


def _films() -> Iterator[tuple]:
    frame, other = picture(1, (40, 30)), picture(2, (30, 40))
    array = np.asarray(frame)
    yield "film: one frame", _given([frame]), VECTOR, _given({"video": [frame]})
    yield "film: a tuple", _given((frame, frame)), VECTOR, _given({"video": [frame, frame]})
    yield "film: an array", _given(np.stack([array] * 3)), VECTOR, _given({"video": [frame] * 3})
    yield (
        "film: channels first",
        _given(np.stack([array] * 3).transpose(0, 3, 1, 2)),
        VECTOR,
        _given({"video": [frame] * 3}),
    )
    yield "film: a tensor", _given(torch.from_numpy(np.stack([array] * 2))), VECTOR, _given({"video": [frame] * 2})
    yield "film: frames of one pixel", _given([Image.new("RGB", (1, 1))] * 2)
    yield "film: several", _given({"video": [[frame], [other]]})
    yield "film: paths of frames", lambda folder: {"video": [_file(folder, "f.png", good_files()["still.png"])] * 2}
    yield "film: none", _given({"video": []}), "is empty"
    yield "film: no frames", _given({"video": [[]]}), "at least one frame|is empty"
    yield "film: no frames in an array", _given(np.zeros((0, 8, 8, 3), np.uint8)), "at least one frame"
    yield "film: of several sizes", _given([frame, other]), "must be of one size"
    yield "film: too many frames", _given([Image.new("L", (4, 4))] * 257), "over the limit of 256"
    yield "film: nobody's frame", _given({"video": [frame, None]}), "got NoneType"
    yield "film: a frame that is a text", _given({"video": [frame, "a cat"]}), "No such image file"
    yield "film: a frame without area", _given([Image.new("RGB", (0, 4))]), "no area"
    yield "film: of floats", _given(np.zeros((2, 8, 8, 3))), "must be uint8"
    yield "film: a generator", lambda folder: {"video": (frame for _ in range(2))}, "must be a path"
    yield "film: a number", _given({"video": 5}), "must be a path"
    yield "film: meta", _given(torch.empty(2, 3, 8, 8, dtype=torch.uint8, device="meta")), "must hold its values"


def _dicts() -> Iterator[tuple]:
    frame = picture(1)
    text = _given("a cat")
    yield "dict: nobody under a key", _given({"text": "a cat", "image": None, "video": None}), VECTOR, text
    yield "dict: ordered", _given(collections.OrderedDict(text="a cat")), VECTOR, text
    yield "dict: with a default", _given(collections.defaultdict(list, text="a cat")), VECTOR, text
    yield "dict: several texts", _given({"text": ["a", "cat"]}), VECTOR, _given({"text": "a\ncat"})
    yield "dict: text first", _given({"text": "a", "image": frame}), VECTOR, _given({"image": frame, "text": "a"})
    yield "dict: several pictures", _given({"image": [frame, picture(2)]})
    yield "dict: all kinds", _given({"image": frame, "video": [frame], "text": "a"})
    yield "dict: empty", _given({}), "takes the keys text, image and video"
    yield "dict: nobody at all", _given({"text": None}), "is empty"
    yield "dict: an unknown key", _given({"txt": "a"}), "takes the keys text, image and video"
    yield "dict: keys of numbers", _given({1: 2}), "takes the keys text, image and video"
    yield "dict: keys of bytes", _given({b"text": "a"}), "takes the keys text, image and video"
    yield "dict: a text of numbers", _given({"text": 5}), "must be a string"
    yield "dict: a text of bytes", _given({"text": b"a"}), "must be a string"
    yield "dict: no texts", _given({"text": []}), "is empty"
    yield "dict: nobody among texts", _given({"text": ["a", None]}), "must be a string"
    yield "dict: no pictures", _given({"image": []}), "is empty"
    yield "dict: a picture in a picture", _given({"image": {"image": frame}}), "got dict"
    yield "dict: a list in a list", _given({"image": [[frame]]}), "got list"
    yield "dict: not a dict", _given(collections.UserDict(text="a")), "Cannot tell what"
    yield "dict: only to be read", _given(types.MappingProxyType({"text": "a"})), "Cannot tell what"


def _chats() -> Iterator[tuple]:
    def said(content: Any, role: str = "user") -> dict:
        return {"role": role, "content": content}

    text = _given("a cat")
    yield "chat: one message", _given(said("a cat")), VECTOR, text
    yield "chat: parts", _given(said([{"type": "text", "text": "a cat"}])), VECTOR, text
    yield "chat: with more keys", _given({**said("a cat"), "name": "x"}), "got also name"
    yield (
        "chat: an empty part",
        _given(said([{"type": "text", "text": "a cat"}, {"type": "image", "image": None}])),
        VECTOR,
        text,
    )
    yield "chat: another role", _given(said("a", "assistant")), "Roles are system and user"
    yield "chat: no role", _given(said("a", None)), "Roles are system and user"
    yield "chat: a role that is a list", _given(said("a", ["user"])), "Roles are system and user"
    yield "chat: the system alone", _given(said("a", "system")), "one user message"
    yield "chat: nothing said", _given(said(None)), "must be a string or a list of parts"
    yield "chat: a number said", _given(said(5)), "must be a string or a list of parts"
    yield "chat: no parts", _given(said([])), "is empty"
    yield "chat: no content", _given({"role": "user"}), "must be a string or a list of parts"
    yield "chat: parts without a type", _given(said([{"text": "a"}])), "type must be text, image or video"
    yield "chat: parts of strings", _given(said(["a"])), "must be a dict with a type"
    yield "chat: a sound", _given(said([{"type": "audio", "audio": b"a"}])), "type must be text, image or video"
    yield "chat: a type without a value", _given(said([{"type": "image"}])), "must hold its value"
    yield (
        "chat: a type that is a list",
        _given(said([{"type": ["text"], "text": "a"}])),
        "type must be text, image or video",
    )
    yield "chat: wrapped and no list", _given(said([{"type": "message", "message": 5}])), "must hold a list of messages"
    yield "chat: wrapped and nothing", _given(said([{"type": "message"}])), "must hold a list of messages"
    yield "chat: wrapped texts", _given(said([{"type": "message", "message": ["a"]}])), "must hold a list of messages"
    yield "chat: wrapped in itself", _wrapped_in_itself, "type must be text, image or video"


def _no_items() -> Iterator[tuple]:
    things = {
        "nobody": None,
        "a number": 5,
        "a large number": 10**5000,
        "not a number": float("nan"),
        "a truth value": True,
        "a fraction": Decimal("1.5"),
        "a complex number": 1j,
        "an ellipsis": ...,
        "an object": object(),
        "a type": Image.Image,
        "a function": print,
        "a module": io,
        "a pattern": re.compile("a"),
        "a set": {"a"},
        "a range": range(3),
        "an array of texts": np.array(["a", "b"]),
        "a parameter": torch.nn.Parameter(torch.rand(3)),
    }
    for name, thing in things.items():
        yield f"no item: {name}", _given(thing), "Cannot tell what|takes a list of items|It is missing"
    yield "no item: a generator", lambda folder: (text for text in "ab"), "Cannot tell what"
    yield "no item: an empty tuple", _given(()), "Cannot tell what"
    yield "no item: a list in itself", _list_in_itself, "got list"
    yield "no item: a dict in itself", _dict_in_itself, "got dict"
    yield "no item: a deep list", _deep_list, "got list"
    yield "no item: what cannot be shown", _given(_Silent()), "Cannot tell what"
    yield "no item: a text that cannot be shown", _given({"image": _Silent()}), "must be a PIL image"


class _Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("PA", "RGBa", "LAB"):
        if mode == "LAB":
            return Image.merge("LAB", image.split())
        return image.convert("RGBA").convert(mode) if mode == "RGBa" else image.convert("P").convert("PA")
    return image.convert(mode)


def _locked_array(array: np.ndarray) -> Callable[[Path], Any]:
    copy = array.copy()
    copy.flags.writeable = False
    return _given(copy)


def _file(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def _link(folder: Path, data: bytes) -> Path:
    (folder / "link.png").unlink(missing_ok=True)
    (folder / "link.png").symlink_to(_file(folder, "target.png", data))
    return folder / "link.png"


def _closed(folder: Path) -> Image.Image:
    image = Image.open(_file(folder, "closed.png", good_files()["still.png"]))
    image.close()
    return image


def _opened_and_damaged(folder: Path) -> Image.Image:
    data = good_files()["still.png"]
    return Image.open(_file(folder, "half.png", data[: len(data) // 2]))


def _at_its_end(folder: Path) -> io.BytesIO:
    file = io.BytesIO(good_files()["still.png"])
    file.read()
    return file


def _closed_file(folder: Path) -> io.BytesIO:
    file = io.BytesIO(good_files()["still.png"])
    file.close()
    return file


def _write_only(folder: Path) -> Any:
    return {"image": (folder / "out.png").open("wb")}


def _wrapped_in_itself(folder: Path) -> dict:
    message: dict[str, Any] = {"role": "user", "content": []}
    message["content"].append({"type": "message", "message": [message]})
    return message


def _list_in_itself(folder: Path) -> list:
    value: list = []
    value.append(value)
    return value


def _dict_in_itself(folder: Path) -> dict:
    value: dict = {}
    value["image"] = value
    return value


def _deep_list(folder: Path) -> list:
    value: list = []
    for _ in range(5000):
        value = [value]
    return value
