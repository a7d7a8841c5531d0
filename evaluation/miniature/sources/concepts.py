"""The concepts behind the pictures, the families they form, and which file of an icon package shows which concept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TONES = {"1f3fb": "light", "1f3fc": "medium-light", "1f3fd": "medium", "1f3fe": "medium-dark", "1f3ff": "dark"}
TEST_SHARE = 0.2
COMPONENT_GROUP = "component"  # skin tones and hair styles on their own: no concepts, and no style draws them

# Fluent 3D files the medium-light picture under medium and the other way round, except for these (the key without its
# tone) and for couples, whose two tones make them plain to see. Measured: mean colour of the pixels that change.
FLUENT_3D_RIGHT_TONES = frozenset(
    {"1f46b", "1f46c", "1f46d", "1f48f", "1f491"} | {f"{person}-200d-1f4bb" for person in ("1f468", "1f469", "1f9d1")}
)
FLUENT_3D_MOUNTAIN_BIKER = "1f6b5"  # its five files are in an order of their own

_JOINER, _SIGNS, _HAIR, _RIGHT = "200d", {"2640", "2642"}, {"1f9b0", "1f9b1", "1f9b2", "1f9b3"}, "27a1"
_PERSON, _CHILD = "1f9d1", "1f9d2"
_NEUTRAL = {"1f468": _PERSON, "1f469": _PERSON, "1f466": _CHILD, "1f467": _CHILD, "1f474": "1f9d3", "1f475": "1f9d3"}
# Families whose members share no code point, or that differ in hair, gender or direction only.
_SAME_FAMILY = {
    "1f471": "1f9d1",  # blond hair
    "1f934": "1fac5",  # prince, princess, person with crown
    "1f478": "1fac5",
    "1f385": "1f9d1-1f384",  # Santa Claus, Mrs. Claus, Mx Claus
    "1f936": "1f9d1-1f384",
    "1f930": "1fac4",  # pregnant woman, man, person
    "1fac3": "1fac4",
    "1f931": "1f9d1-1f37c",  # breast-feeding, feeding a baby
    "1f57a": "1f483",  # man dancing, woman dancing
    "1f46b": "1f9d1-1f91d-1f9d1",  # two people holding hands
    "1f46c": "1f9d1-1f91d-1f9d1",
    "1f46d": "1f9d1-1f91d-1f9d1",
    "1f9d1-2764-1f48b-1f9d1": "1f48f",  # kiss
    "1f9d1-2764-1f9d1": "1f491",  # couple with heart
    "1f9d1-1f430-1f9d1": "1f46f",  # people with bunny ears
    "1f9d1-1faef-1f9d1": "1f93c",  # people wrestling
    "1faf1-1faf2": "1f91d",  # handshake of two tones
    "1f91c": "1f91b",  # fists, hands, index fingers, magnifying glasses: left and right
    "1faf2": "1faf1",
    "1faf8": "1faf7",
    "1f449": "1f448",
    "1f50e": "1f50d",
    "1f1fa-1f1f2": "1f1fa-1f1f8",  # the U.S. Outlying Islands fly the flag of the United States
}


@dataclass(frozen=True)
class Concept:
    """One thing that pictures show.

    Attributes:
        hexcode: Unicode code points as emojibase writes them, e.g. `1F9D1-1F3FD-200D-1F680`.
        label: English name.
        tags: English keywords.
        group: One of 9 groups, e.g. `animals-nature`.
        subgroup: One of about 98 subgroups, e.g. `animal-bird`.
        skin_tone: "" or one of TONES' values; two joined by "/" for a couple.
        gender: "man", "woman" or "".
        version: Emoji version that introduced it.
    """

    hexcode: str
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str
    skin_tone: str
    gender: str
    version: float

    @property
    def key(self) -> str:
        """The normal form under which icon packages are searched."""
        return normal_key(self.hexcode)

    @property
    def family(self) -> str:
        """The family, see `family_of`."""
        return family_of(self.hexcode)

    @property
    def split_family(self) -> str:
        """The split of the family: "train" or "test"."""
        return split_of(self.family)


def normal_key(hexcode: str) -> str:
    """Code points in one spelling: lower case, no leading zeros, no variation selector."""
    points = (point.lstrip("0") for point in hexcode.lower().split("-"))
    return "-".join(point for point in points if point != "fe0f")


def without_tones(key: str) -> str:
    """A normal key with its skin tones removed."""
    return "-".join(point for point in key.split("-") if point not in TONES)


def family_of(hexcode: str) -> str:
    """The family of a concept: skin tone, gender, hair and direction stripped, man and woman made a person.

    A test concept must have no near twin in training, hence splits are drawn over families.
    """
    points = without_tones(normal_key(hexcode)).split("-")
    # A sign or an arrow that stands first is the concept itself, not a modifier.
    dropped = {_JOINER, _RIGHT} | _SIGNS | _HAIR
    points = points[:1] + [point for point in points[1:] if point not in dropped]
    points = [_NEUTRAL.get(point, point) for point in points]
    if len(points) > 1 and set(points) <= {_PERSON, _CHILD}:
        return "1f46a"  # a family in the narrow sense
    family = "-".join(points)
    return _SAME_FAMILY.get(family, family)


def split_of(family: str) -> str:
    """The split of a family by a stable hash: about one in five is "test", for stills and clips alike."""
    fraction = int.from_bytes(hashlib.sha256(family.encode()).digest()[:8], "big") / 2**64
    return "test" if fraction < TEST_SHARE else "train"


def read_concepts(folder: Path) -> list[Concept]:
    """Read all concepts, toned ones included, in emojibase's order.

    Args:
        folder: The unpacked emojibase-data package.
    """
    groups = json.loads((folder / "meta" / "groups.json").read_text(encoding="utf-8"))
    records = json.loads((folder / "en" / "data.json").read_text(encoding="utf-8"))
    concepts = []
    for record in records:
        if "group" not in record or groups["groups"][str(record["group"])] == COMPONENT_GROUP:
            continue  # the letters that flags are spelled with have no group
        for variant in (record, *record.get("skins", ())):
            group = groups["groups"][str(variant["group"])]
            concepts.append(
                Concept(
                    hexcode=variant["hexcode"],
                    label=variant["label"],
                    tags=tuple(record.get("tags", ())),
                    group=group,
                    subgroup=groups["subgroups"][str(variant["subgroup"])],
                    skin_tone=_skin_tone(variant.get("tone")),
                    gender=_gender(record["label"], variant.get("gender"), group),
                    version=float(variant["version"]),
                )
            )
    return concepts


def _skin_tone(tone: int | list[int] | None) -> str:
    if tone is None:
        return ""
    names = list(TONES.values())
    return "/".join(names[number - 1] for number in ([tone] if isinstance(tone, int) else tone))


def _gender(label: str, code: int | None, group: str) -> str:
    """emojibase gives a code for some (0 woman, 1 man); for the other people the label's words tell."""
    if code is not None:
        return ("woman", "man")[code]
    if group != "people-body":
        return ""
    words = set(re.findall(r"\w+", label.lower()))
    woman = bool(words & {"woman", "women", "girl", "princess", "mrs"})
    man = bool(words & {"man", "men", "boy", "prince", "santa"})
    return "" if woman == man else "woman" if woman else "man"


def fluent_3d_key(key: str) -> str:
    """The key under which Fluent 3D files the picture that shows `key`: undoes its swapped skin tones."""
    points = key.split("-")
    tones = [point for point in points if point in TONES]
    stem = without_tones(key)
    if len(tones) != 1 or stem in FLUENT_3D_RIGHT_TONES:
        return key
    if stem == FLUENT_3D_MOUNTAIN_BIKER:
        filed = {"1f3fb": "1f3ff", "1f3fc": "1f3fe", "1f3fd": "1f3fc", "1f3fe": "1f3fd", "1f3ff": "1f3fb"}
    else:
        filed = {"1f3fc": "1f3fd", "1f3fd": "1f3fc"}
    return "-".join(filed.get(point, point) for point in points)


def match_pictures(concepts: Iterable[Concept], style: str, folder: Path) -> dict[str, str | Path]:
    """Find the picture of each concept in one icon package.

    Args:
        concepts: The concepts to look for.
        style: The style's name; "fluent-3d" has files, the others hold SVG bodies in one JSON file.
        folder: The unpacked package.

    Returns:
        SVG source text or the path of a picture file, by hexcode. Concepts the style does not draw are missing.
    """
    if style == "fluent-3d":
        files = {normal_key(path.stem): path for path in sorted((folder / "assets").glob("*.webp"))}
        wanted = {concept.hexcode: fluent_3d_key(concept.key) for concept in concepts}
        return {hexcode: files[key] for hexcode, key in wanted.items() if key in files}
    characters = json.loads((folder / "chars.json").read_text(encoding="utf-8"))
    icons = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    names = {normal_key(character): name for character, name in characters.items()}
    return {c.hexcode: _svg(icons, names[c.key]) for c in concepts if names.get(c.key) in icons["icons"]}


def _svg(icons: dict, name: str) -> str:
    icon = icons["icons"][name]
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )
