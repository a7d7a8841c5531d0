"""What is known of the benchmark's stills: single drawings, in styles of which one is for tests alone."""

from collections.abc import Sequence
from dataclasses import dataclass

TRAIN_STYLES = ("noto", "fluent-flat", "fluent-3d")
TEST_STYLE = "twemoji"
COUNTRY_FLAGS = "country-flag"
SPLITS = {"known": "train", "unseen": "test"}


@dataclass(frozen=True)
class Row:
    """What is known of one picture; the columns of the data set but for the picture itself."""

    hexcode: str
    label: str
    tags: Sequence[str]
    group: str
    subgroup: str
    skin_tone: str
    gender: str
    family: str
    split_family: str
    style: str
    picture_hash: str


def label_text(subgroup: str) -> str:
    """A subgroup as words: `animal-bird` becomes "animal bird"."""
    return subgroup.replace("-", " ")
