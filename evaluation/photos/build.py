"""The benchmark of photographs: captions and sentences of people, real pictures, evaluation only.

    python -m evaluation.photos.build --out .data/photos

Two sets. `stamps`: the photographic cut-outs of Tux Paint with their captions in 77 languages, on white. `sentences`:
photographs that scikit-image, scikit-learn and opencv-doc bring along, with sentences written for them before any model
had ranked them. Nothing here is redistributed; the packages are pinned, so two people score the same pictures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from timm.data import ImageNetInfo

from evaluation.miniature.sources.packages import fetch
from plume_embed.atomic import replacing, write_text
from plume_embed.command import run_command

from .sources import FOLDERS, STAMPS

SENTENCES = Path(__file__).parent / "sentences.json"
# Drawings, letters and signs are no photographs.
_LEFT_OUT = ("cartoon", "roadsigns", "flags")
_LONGEST = 512


def build(out: Path, cache: Path = Path(".data/packages")) -> Path:
    """Writes `photos.json` and the pictures.

    Returns:
        The path of `photos.json`: {"stamps": [{"file", "caption", "captions"}], "sentences": [{"file", "sentences"}],
        "imagenet_names": [names of the 1000 classes]}.

    Raises:
        FetchError: a package cannot be fetched; the message says what to do.
    """
    folders = fetch([STAMPS, *(package for package, _ in FOLDERS.values())], cache)
    content = {
        "stamps": _stamps(folders[STAMPS.name] / "usr" / "share" / "tuxpaint" / "stamps", out),
        "sentences": _sentences(
            {name: folders[package.name] / below for name, (package, below) in FOLDERS.items()}, out
        ),
    }
    classes = ImageNetInfo()
    described = [classes.index_to_description(index) for index in range(1000)]
    content["imagenet_names"] = sorted({name for names in described for name in names.split(", ")})
    file = out / "photos.json"
    write_text(file, json.dumps(content, ensure_ascii=False, indent=1) + "\n")  # its bytes are part of the digest
    return file


def _stamps(folder: Path, out: Path) -> list[dict]:
    stamps = []
    for path in sorted(folder.rglob("*.png")):
        name = path.relative_to(folder)
        caption_file = path.with_suffix(".txt")
        if name.parts[0] == "symbols" or any(part in _LEFT_OUT for part in name.parts) or not caption_file.is_file():
            continue
        with Image.open(path) as opened:
            if opened.mode == "RGB":  # no cut-out: a picture with its ground
                continue
            picture = opened.convert("RGBA")
        caption, *others = caption_file.read_text(encoding="utf-8", errors="replace").splitlines()
        captions = dict(line.split(".utf8=", 1) for line in others if ".utf8=" in line)
        white = Image.new("RGBA", picture.size, "white")
        _write(Image.alpha_composite(white, picture), out / "stamps" / name)
        captions = {language: text.strip() for language, text in captions.items() if text.strip()}
        stamps.append({"file": f"stamps/{name.as_posix()}", "caption": caption.strip(), "captions": captions})
    return stamps


def _sentences(folders: dict[str, Path], out: Path) -> list[dict]:
    photos = []
    for name, sentences in json.loads(SENTENCES.read_text(encoding="utf-8")).items():
        package, _, file = name.partition("/")
        target = Path("sentences") / f"{package}-{Path(file).stem}.png"
        with Image.open(folders[package] / file) as opened:
            _write(opened, out / target)
        photos.append({"file": target.as_posix(), "sentences": sentences})
    return photos


def _write(picture: Image.Image, path: Path) -> None:
    picture = picture.convert("RGB")
    picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        picture.save(partial)


def main(
    out: Annotated[Path, typer.Option(help="Where the benchmark goes.")] = Path(".data/photos"),
    cache: Annotated[Path, typer.Option(help="Where packages are kept.")] = Path(".data/packages"),
) -> None:
    """Fetch the packages and write the benchmark."""
    typer.echo(f"written: {build(out, cache)}")


if __name__ == "__main__":
    run_command(main)
