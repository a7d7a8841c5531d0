"""Write the folder of pictures that the demo searches: `python -m evaluation.miniature.demo_folder`.

Well-known things of trained families: most in the test style, which training never shows, the rest in a training style.
The file names are for people: search reads pixels, not names.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from evaluation.miniature.sources.concepts import Concept, match_pictures, read_concepts
from evaluation.miniature.sources.packages import CONCEPT_PACKAGE, DEFAULT_CACHE, STYLE_PACKAGES, Package, fetch
from evaluation.miniature.sources.render import png_bytes, render
from plume_embed.command import run_command
from plume_embed.evaluation.miniature.stills import TEST_STYLE

# How many pictures of each group, and from which of its subgroups: those whose members are told apart at a glance.
WANTED = {
    "animals-nature": (
        40,
        "animal-mammal animal-bird animal-reptile animal-amphibian animal-marine animal-bug plant-flower plant-other",
    ),
    "food-drink": (34, "food-fruit food-vegetable food-prepared food-asian food-sweet drink dishware"),
    "travel-places": (
        34,
        "place-building place-geographic transport-ground transport-water transport-air sky-weather",
    ),
    "activities": (20, "event sport game arts-crafts award-medal"),
    "objects": (
        32,
        "clothing musical-instrument phone computer light-video book-paper tool science medical household lock money",
    ),
}
TRAIN_STYLE = "noto"
# Pictures to search with, drawn in a third style, of things that the folder shows in the test style.
QUERY_STYLE = "fluent-flat"
QUERY_LABELS = ("butterfly", "cactus", "octopus", "sunflower", "airplane", "camera", "croissant", "turtle")
TEST_STYLE_SHARE = 5 / 8
NEWEST_VERSION = 5.0  # later emoji are less familiar
DULL = re.compile(
    r"moon|face|tram|locomotive|railway|metro|station|bus|book|mail|card|cloud|sunrise|sunset|seat|pager|ledger|arrival|"
    r"departure|light rail|page|scroll|small airplane|cableway|front-facing|rosette|white flower|arrow|high-speed"
)
CHANGES = "rendered from vectors to a PNG of {size} x {size} pixels on a white ground, nothing else changed"


def choose(concepts: list[Concept], drawn: set[str]) -> list[Concept]:
    """Choose the demo's concepts: untoned, of trained families, spread evenly over the wanted subgroups.

    Args:
        concepts: All concepts.
        drawn: The hexcodes that both styles draw.

    Returns:
        The chosen concepts in the order of `concepts`.
    """
    by_subgroup: dict[str, list[Concept]] = defaultdict(list)
    for concept in concepts:
        simple = "-" not in concept.key and concept.version <= NEWEST_VERSION and not DULL.search(concept.label)
        if simple and concept.split_family == "train" and not concept.skin_tone and concept.hexcode in drawn:
            by_subgroup[concept.subgroup].append(concept)
    chosen: set[str] = set()
    for count, subgroups in WANTED.values():
        turns = zip_longest(*(by_subgroup[name] for name in subgroups.split()))
        in_turn = [concept.hexcode for turn in turns for concept in turn if concept is not None]
        chosen |= set(in_turn[:count])
    return [concept for concept in concepts if concept.hexcode in chosen]


def assign_styles(concepts: list[Concept]) -> dict[str, str]:
    """A style for each concept, by hexcode: a stable shuffle, its first five eighths in the test style."""
    shuffled = sorted(concepts, key=lambda concept: sha256(concept.hexcode.encode()).digest())
    first = round(len(shuffled) * TEST_STYLE_SHARE)
    return {c.hexcode: TEST_STYLE if n < first else TRAIN_STYLE for n, c in enumerate(shuffled)}


def slug(label: str) -> str:
    """A label as a file name: `hot dog` becomes `hot_dog`."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def _notice_entry(package: Package, title: str, licence: str, count: int, size: int) -> str:
    return (
        f"## {title}\n\n{count} pictures in the style `{_style_of(package)}`.\n\n"
        f"- Author: {package.author}, <{package.url}>\n"
        f"- Obtained from: npm package `{package.name}`, version {package.version}\n"
        f"- Licence: {licence}\n- Changes: {CHANGES.format(size=size)}\n"
    )


def _style_of(package: Package) -> str:
    return next(style for style, other in STYLE_PACKAGES.items() if other == package)


def notice(counts: dict[str, int], size: int) -> str:
    """The NOTICE of the folder, given the number of pictures of each style and their side in pixels."""
    mit = "[MIT](https://opensource.org/license/mit)"
    twemoji = "[Creative Commons Attribution 4.0 (CC-BY-4.0)](https://creativecommons.org/licenses/by/4.0/)"
    noto = "[Apache License 2.0](https://www.apache.org/licenses/LICENSE-2.0)"
    emojibase = CONCEPT_PACKAGE
    return "\n".join(
        [
            "# Notice\n\nThe pictures in `pictures/` and `queries/` are not ours. "
            "`python -m evaluation.miniature.demo_folder` wrote them and this file.\n",
            _notice_entry(STYLE_PACKAGES[TEST_STYLE], "Twemoji", twemoji, counts[TEST_STYLE], size),
            _notice_entry(STYLE_PACKAGES[TRAIN_STYLE], "Noto Emoji", noto, counts[TRAIN_STYLE], size),
            _notice_entry(STYLE_PACKAGES[QUERY_STYLE], "Fluent Emoji, in `queries/`", mit, counts[QUERY_STYLE], size),
            f"## Labels\n\nThe labels in `concepts.json` and the file names come from `{emojibase.name}`, version "
            f"{emojibase.version} ({emojibase.author}, <{emojibase.url}>), {emojibase.licence} licence.\n",
        ]
    )


def write(out: Path, size: int = 168, cache: Path = DEFAULT_CACHE) -> dict[str, int]:
    """Write `pictures/`, `queries/`, `concepts.json` and `NOTICE.md` below `out`, replacing earlier pictures.

    Returns:
        The number of pictures of each style.

    Raises:
        ValueError: there are other pictures than those of an earlier call.
    """
    styles_needed = (TEST_STYLE, TRAIN_STYLE, QUERY_STYLE)
    packages = [CONCEPT_PACKAGE, *(STYLE_PACKAGES[style] for style in styles_needed)]
    folders = fetch(packages, cache)
    concepts = read_concepts(folders[CONCEPT_PACKAGE.name])
    drawings = {s: match_pictures(concepts, s, folders[STYLE_PACKAGES[s].name]) for s in styles_needed}
    chosen = choose(concepts, set(drawings[TEST_STYLE]) & set(drawings[TRAIN_STYLE]))
    styles = assign_styles(chosen)
    pictures = out / "pictures"
    queries = out / "queries"
    remove_earlier(out)
    for folder in (pictures, queries):
        folder.mkdir(parents=True, exist_ok=True)
    records = []
    for concept in chosen:
        style, name = styles[concept.hexcode], f"{slug(concept.label)}.png"
        (pictures / name).write_bytes(png_bytes(render(drawings[style][concept.hexcode], size)))
        if concept.label in QUERY_LABELS:
            (queries / name).write_bytes(png_bytes(render(drawings[QUERY_STYLE][concept.hexcode], size)))
        records.append({"file": name, "hexcode": concept.hexcode, "label": concept.label, "style": style})
    lines = ",\n".join(f"  {json.dumps(record, ensure_ascii=False)}" for record in records)
    (out / "concepts.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    counts = {style: list(styles.values()).count(style) for style in (TEST_STYLE, TRAIN_STYLE)}
    counts[QUERY_STYLE] = len(list(queries.glob("*.png")))
    (out / "NOTICE.md").write_text(notice(counts, size), encoding="utf-8")
    return counts


def remove_earlier(out: Path) -> None:
    """Removes the pictures that `concepts.json` of an earlier call names.

    Raises:
        ValueError: there are others, which may be somebody's own.
    """
    record = out / "concepts.json"
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else []
    names = {concept["file"] for concept in known}
    earlier = [file for name in ("pictures", "queries") for file in (out / name).glob("*.png")]
    for file in earlier:
        if file.name not in names:
            raise ValueError(f"{file} is not of an earlier call; move it away, or give another --out.")
    for file in earlier:
        file.unlink()


def main(
    out: Annotated[Path, typer.Option(help="Folder that gets `pictures/`, `concepts.json` and `NOTICE.md`.")] = Path(
        "examples"
    ),
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 168,
    cache: Annotated[Path, typer.Option(help="Where fetched packages are kept.")] = DEFAULT_CACHE,
) -> None:
    """Write the demo's folder of pictures, e.g. `python -m evaluation.miniature.demo_folder --out examples`."""
    counts = write(out, size, cache)
    typer.echo(f"{out}: " + ", ".join(f"{count} {style}" for style, count in counts.items()))


if __name__ == "__main__":
    run_command(main)
