# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""Still pictures: a file, or its bytes -> an RGB picture in memory, upright and over white.

Nothing but a regular file is opened, nothing is downloaded, and no picture is decoded before its size is known. This
file needs no torch, so that a process that only reads files starts quickly.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from types import ModuleType
from typing import Any, BinaryIO
from urllib.parse import urlparse

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features
from PIL.TiffImagePlugin import TiffImageFile

# Most pixels of a picture, or of a film's frame, that is decoded. A camera of today has 12 to 60 million.
MAX_PIXELS = 100_000_000

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
# fmt: off
RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw",
    ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})
# fmt: on

# The backbones' own limit.
_MAX_ASPECT_RATIO = 200
# Pillow hands these to other programs (Ghostscript) or to the system.
_DRAWINGS = ("EPS", "WMF")
_TURNED = range(2, 9)  # EXIF orientations that are not upright
SUBFILE_TYPE, PREVIEW, MASK = 254, 1, 4  # the TIFF tag of what a picture is beside others, and two of its bits
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _DNG_VERSION = 258, 262, 339, 50706  # other tags
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the second and the third of them
_DEEP_WHITE = 65535  # of 16-bit grey
_NAME_CHARACTERS = 260  # of a path in an error
_INSTALL = "pip install 'plume-embed[photos]'"
_REMOTE = ("http", "https", "ftp", "s3", "gs", "hf", "data")
# Rows that are laid over white at a time; the same picture as in one piece, without three more copies of it in memory.
_ROWS = 1024
# An open file, or a picture of one that is not decoded yet, may be part of several items, which threads read at once.
_SHARED = threading.RLock()


def _has_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _rawpy() -> ModuleType | None:
    try:
        import rawpy
    except ImportError:
        return None
    return rawpy


HAS_HEIF, HAS_RAW = _has_heif(), _rawpy() is not None

IMAGE_SUFFIXES = (
    frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
    | (frozenset({".avif"}) if features.check("avif") else frozenset())
    | (frozenset({".jp2"}) if features.check("jpg_2000") else frozenset())
    | (HEIF_SUFFIXES if HAS_HEIF else frozenset())
    | (RAW_SUFFIXES if HAS_RAW else frozenset())
)


class NotOpenedError(ValueError):
    """A file is not opened; the message names it."""


def is_source(value: Any) -> bool:
    """Whether a value is a media file in one of the forms that [`opened`] takes."""
    return isinstance(value, str | Path | bytes | bytearray | memoryview | io.IOBase) or is_undecoded(value)


def is_undecoded(value: Any) -> bool:
    """Whether a value is what `datasets` gives for media that it does not decode: {"bytes": ..., "path": ...}."""
    return isinstance(value, dict) and bool(value) and set(value) <= {"bytes", "path"}


def source_path(source: Any) -> Path | None:
    """The path of a source, where it has one; of bytes in memory `None`."""
    if isinstance(source, dict):
        source = source.get("path")
    return Path(source) if isinstance(source, str | Path) else None


def source_name(source: Any) -> str:
    """A source as an error names it."""
    path = source_path(source)
    if path is not None:
        return str(path) if len(str(path)) <= _NAME_CHARACTERS else f"{str(path)[:_NAME_CHARACTERS]}..."
    return f"{len(source)} bytes" if isinstance(source, bytes | bytearray) else f"a {type(source).__name__}"


@contextmanager
def opened(source: Any, kind: str) -> Iterator[BinaryIO]:
    """A source as a binary file, from its start.

    Args:
        source (path, bytes, binary file, or dict with "bytes" or "path"): If a dict has both, the bytes count.
        kind (`str`): "image" or "video", for the errors.

    Raises:
        NotOpenedError: a remote address, no such file, or anything but a regular file.
    """
    if isinstance(source, dict):
        source = source["path"] if source.get("bytes") is None else source["bytes"]
        if source is None:
            raise NotOpenedError(f"Neither the bytes nor the path of the {kind} are there.")
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif isinstance(source, io.IOBase):
        if isinstance(source, io.TextIOBase) or source.closed or not source.readable():
            raise NotOpenedError(
                f"An open {kind} file must be binary and readable (mode 'rb'), got {source_name(source)}."
            )
        with _SHARED:
            source.seek(0)
            yield source
    else:
        path = _local_path(source)
        try:
            mode = path.stat().st_mode
        except FileNotFoundError as error:
            raise NotOpenedError(f"No such {kind} file: {source_name(path)}") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise NotOpenedError(f"Cannot open {source_name(path)}: {_reason(error)}") from error
        if not S_ISREG(mode):  # a pipe or a device would be waited for, for ever
            raise NotOpenedError(f"{path} is no {kind} file but a folder, a pipe or a device.")
        try:
            file = path.open("rb")
        except OSError as error:
            raise NotOpenedError(f"Cannot open {source_name(path)}: {_reason(error)}") from error
        with file:
            yield file


def read_image(source: Any, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture of a source as RGB; the first one that is no preview or mask of another, where there are several.

    Raises:
        ValueError: it cannot be read, naming it, whatever its decoder raises; or it is above `max_pixels`.
    """
    with opened(source, "image") as file:
        try:
            path = source_path(source)
            if path is not None and path.suffix.lower() in RAW_SUFFIXES and not _is_plain(file):
                return to_rgb(_develop(file, max_pixels), max_pixels)
            with open_picture(file) as picture:
                if picture.format == "TIFF" and not _goes_on_to_picture(picture):
                    return to_rgb(_develop(file, max_pixels), max_pixels)
                return to_rgb(picture, max_pixels)
        except Exception as error:  # decoders raise anything on damaged files
            raise ValueError(f"Cannot read {source_name(source)} as an image: {why(error, source)}") from error


def open_picture(file: BinaryIO) -> Image.Image:
    """Opens a picture and reads its header.

    Raises:
        ValueError: a vector drawing, which a program outside would have to draw. Pillow raises anything else.
    """
    picture = Image.open(file)
    if picture.format in _DRAWINGS:
        raise ValueError(f"it is a vector drawing ({picture.format}); save it as PNG")
    return picture


def image_size(source: Any) -> tuple[int, int] | None:
    """Width and height by the header alone; `None` where it does not say."""
    try:
        with opened(source, "image") as file, Image.open(file) as picture:
            return picture.size
    except Exception:  # it is refused by its reader, in its turn
        return None


def to_rgb(image: Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture in memory, or one whose header was read, as RGB: upright (EXIF) and with transparency over white.

    Raises:
        ValueError: too many pixels, no area, too long a shape, or no known range of values. Damaged pictures raise
            whatever their decoder raises.
    """
    check_size(*image.size, max_pixels)
    _scale_transparency(image)
    image.load()  # a PNG may have its EXIF data behind its pixels
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    is_deep = image.mode == "F" or image.mode.startswith("I")
    white = _white_of(image) if is_deep else None
    if image.getexif().get(ExifTags.Base.Orientation) in _TURNED:  # Pillow would copy an upright picture
        image = ImageOps.exif_transpose(image)
    if white is not None:
        image = _from_deep_grey(image, white)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _over_white(image)
    return image.convert("RGB")


def decode_shared(image: Image.Image, max_pixels: int) -> None:
    """Decodes a picture that a caller has opened, by one thread at a time: Pillow's decoders are not safe to share.

    Raises:
        ValueError: see [`check_size`]. Damaged pictures raise whatever their decoder raises.
    """
    check_size(*image.size, max_pixels)
    with _SHARED:
        _scale_transparency(image)
        image.load()
        image.getexif()


def _scale_transparency(image: Image.Image) -> None:
    """Brings a PNG's transparent value, which Pillow leaves as it is, to the 8 bits that Pillow makes of its pixels.

    What is decoded already has no tile: it is too late then, or has been done.
    """
    clear = image.info.get("transparency")
    if image.format != "PNG" or not image.tile or clear is None:
        return
    mode = image.tile[0][3]  # how the pixels lie in the file
    if mode in ("L;2", "L;4"):
        image.info["transparency"] = clear * 255 // (2 ** int(mode[2:]) - 1)
    elif mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuses a picture by its size, before it is decoded."""
    short, long = sorted((width, height))
    if short <= 0 or long > _MAX_ASPECT_RATIO * short:
        raise ValueError(
            f"An image of {width} x {height} pixels has no area or an aspect ratio over {_MAX_ASPECT_RATIO}; crop it "
            "or add a margin."
        )
    if width * height > max_pixels:
        raise ValueError(
            f"{width} x {height} pixels are over the limit of {max_pixels / 1e6:g} megapixels; make it smaller, or "
            "raise the processor's max_image_pixels."
        )


def why(error: BaseException, source: Any = None) -> str:
    """What a decoder's error says, in words for the user, with the remedy where it is known."""
    path = source_path(source)
    if isinstance(error, UnidentifiedImageError):
        if not HAS_HEIF and path is not None and path.suffix.lower() in HEIF_SUFFIXES:
            return f"{path.suffix} needs pillow-heif: {_INSTALL}"
        return "cannot identify image file"
    if isinstance(error, Image.DecompressionBombError):
        return "it has over twice the pixels of PIL.Image.MAX_IMAGE_PIXELS, Pillow's own limit; make it smaller"
    if isinstance(error, MemoryError):
        return "it takes too much memory to read"
    return _reason(error)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _local_path(path: str | Path) -> Path:
    if isinstance(path, str) and urlparse(path).scheme in _REMOTE:
        raise NotOpenedError(f"{path[:100]!r} is a remote address: download it and hand over the file or the picture.")
    return Path(path)


def _is_plain(file: BinaryIO) -> bool:
    """Whether a file with the name of a camera's raw picture is a plain one, as its copy under another name may be."""
    start = file.read(8)
    file.seek(0)
    return start.startswith(b"\xff\xd8\xff") or start == b"\x89PNG\r\n\x1a\n"


def _goes_on_to_picture(picture: Image.Image) -> bool:
    """Goes on to the first picture of a TIFF that is neither preview nor mask of another; if all are masks, it stays.

    `False` where all that Pillow finds are previews, as those that a camera puts in front of its raw picture.
    """
    if _DNG_VERSION in picture.tag_v2:
        return False
    has_preview = False
    for place in range(picture.n_frames):
        picture.seek(place)
        kind = picture.tag_v2.get(SUBFILE_TYPE, 0)
        if not kind & (PREVIEW | MASK):
            return True
        has_preview |= bool(kind & PREVIEW)
    picture.seek(0)
    return not has_preview


def _develop(file: BinaryIO, max_pixels: int) -> Image.Image:
    """A camera's raw picture, with the white balance that the camera chose."""
    rawpy = _rawpy()
    if rawpy is None:
        raise ValueError(f"a camera's raw picture needs rawpy: {_INSTALL}")
    file.seek(0)
    with rawpy.imread(file) as raw:
        check_size(raw.sizes.width, raw.sizes.height, max_pixels)
        return Image.fromarray(raw.postprocess(use_camera_wb=True, output_bps=8))


def _white_of(image: Image.Image) -> int:
    """The value of white in grey of more than 8 bits.

    Raises:
        ValueError: a TIFF whose zero is white, or whose 16 bits have a sign: Pillow hands its values over as they are.
    """
    if not isinstance(image, TiffImageFile):
        return _DEEP_WHITE
    tags = image.tag_v2
    is_signed = tags.get(_BITS) == (16,) and tags.get(_SAMPLE_FORMAT) == (_SIGNED,)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO or is_signed:
        raise ValueError("a TIFF of 16 bits whose zero is white, or whose values have a sign; save it as PNG")
    return 2**12 - 1 if tags.get(_BITS) == (12,) else _DEEP_WHITE


def _from_deep_grey(image: Image.Image, white: int) -> Image.Image:
    """Grey of 12 or 16 bits as 8-bit grey, its transparent value as transparency; Pillow's own conversion would clip it
    to white, and look for that value among those of 8 bits.

    Mode I has 32 bits a value: what was 8-bit grey keeps its values in it, and so does what was 16-bit grey. Pillow
    opens 16-bit PNG and TIFF files in the modes I;16, and 16-bit PGM files in mode I, scaled to all 16 bits.
    """
    values = np.asarray(image)
    most = values.max()
    if image.mode == "F" or values.min() < 0 or most > _DEEP_WHITE:
        raise ValueError(f"A picture of mode {image.mode} has no fixed range; convert it to 8 or 16 bits first.")
    if image.mode == "I" and 0 < most <= 255 and image.format != "PPM":
        raise ValueError(
            f"A picture of mode I with values up to {most} may be grey of 8 bits or dark grey of 16; convert it first, "
            "by picture.convert('L') or picture.convert('I;16')."
        )
    grey = Image.fromarray((values.astype(np.uint32) * 255 // white).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _over_white(image: Image.Image) -> Image.Image:
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, _ROWS):
        rows = image.crop((0, top, image.width, min(top + _ROWS, image.height))).convert("RGBA")
        ground = Image.new("RGBA", rows.size, "white")
        flat.paste(Image.alpha_composite(ground, rows).convert("RGB"), (0, top))
    return flat


__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "image_size", "is_source", "read_image", "to_rgb"]
