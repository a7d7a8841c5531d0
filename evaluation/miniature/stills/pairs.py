"""Training pairs from single pictures: train families and train styles only, each side with its rationale.

Of pictures with equal pixels one is kept, so that no batch holds one picture with two meanings. An answer, which may
stay in the suffix, names no more than the group: it must not do the rollout's work.
"""

from __future__ import annotations

from collections.abc import Iterable

from evaluation.miniature.parts import Context, Still
from evaluation.miniature.sources.phrases import noun_phrase
from evaluation.miniature.sources.rationales import GROUPS, Rationales, pick, stable_order, subgroup_text
from evaluation.miniature.stills.edits import asked_in_words, drawn, find_edits, sample
from evaluation.miniature.stills.questions import question_pairs
from plume_embed.evaluation.miniature.schema import Pair, Side, Taught
from plume_embed.evaluation.miniature.stills import COUNTRY_FLAGS, TRAIN_STYLES

MOST_FLAGS = 60  # a style
EDITS = 900  # a style
EDIT_TONE_SHARE = 0.5
QUESTIONS = 600  # a type
CLASSIFIED_STYLES = 2


def pairs(context: Context, rationales: Rationales) -> list[Pair]:
    """All training pairs from single pictures."""
    plain = {style: plain_stills(context.stills[style].values()) for style in TRAIN_STYLES}
    return [
        *label_pairs(plain, rationales),
        *style_pairs(plain, rationales),
        *edit_pairs(context, rationales),
        *question_pairs(trained_stills(context), rationales, QUESTIONS),
    ]


def plain_stills(stills: Iterable[Still], most_flags: int = MOST_FLAGS) -> dict[str, Still]:
    """Untoned pictures of train families by hexcode, one of equal ones, few country flags."""
    kept: dict[str, Still] = {}
    digests: set[str] = set()
    trained = [s for s in stills if s.concept.split_family == "train" and not s.concept.skin_tone]
    flags = stable_order([s.concept.hexcode for s in trained if s.concept.subgroup == COUNTRY_FLAGS], "flags")
    left_out = set(flags[most_flags:])
    for still in trained:
        if still.concept.hexcode not in left_out and still.digest not in digests:
            digests.add(still.digest)
            kept[still.concept.hexcode] = still
    return kept


def trained_stills(context: Context) -> list[Still]:
    """All pictures that may be trained on: those the edits show, and the plain ones, so that no more are stored."""
    chosen: dict[str, Still] = {}
    for style in TRAIN_STYLES:
        stills = context.stills[style]
        chosen |= {still.id: still for still in plain_stills(stills.values()).values()}
        for edit in train_edits(context, style):
            chosen |= {stills[c.hexcode].id: stills[c.hexcode] for c in (edit.source, edit.target)}
    return [chosen[name] for name in sorted(chosen)]


def train_edits(context: Context, style: str, count: int = EDITS) -> list:
    """The edits of one style that are trained on."""
    edits = [
        edit
        for edit in drawn(find_edits(context.concepts), context.stills[style])
        if edit.source.split_family == edit.target.split_family == "train"
    ]
    return sample(edits, count, f"train edits {style}", EDIT_TONE_SHARE)


def label_pairs(plain: dict[str, dict[str, Still]], rationales: Rationales) -> list[Pair]:
    """Text -> picture for every picture; of each concept, picture -> subgroup in two styles, picture -> text in one."""
    found = []
    for style, stills in plain.items():
        for hexcode, still in stills.items():
            concept = still.concept
            group = GROUPS[concept.group]
            seen, rationale = rationales.of_picture(concept, style), rationales.of_text(concept)
            picture = Taught(Side(image=still.id), seen, f"a picture from {group}")
            asked = Side(text=search_text(still))
            found.append(Pair(Taught(asked, rationale, f"a search in {group}"), picture, "I-RET-text-to-picture"))
            label = subgroup_text(concept.subgroup)
            drawn_by = stable_order([other for other in plain if hexcode in plain[other]], hexcode)
            if label not in group and style in drawn_by[:CLASSIFIED_STYLES]:
                named = Taught(Side(text=label), rationales.of_subgroup(concept), f"one kind in {group}")
                found.append(Pair(Taught(Side(image=still.id), seen, "a thing of one kind"), named, "I-CLS"))
            if style == drawn_by[-1]:
                text = Taught(Side(text=concept.label), rationale, f"a name from {group}")
                found.append(Pair(Taught(Side(image=still.id), seen, "a thing"), text, "I-RET-picture-to-text"))
    return found


def search_text(still: Still) -> str:
    """What a person might type: the label in three of five searches, else the label or a phrase with keywords."""
    concept = still.concept
    choice = pick(f"search {still.id}", 5)
    tags = stable_order(concept.tags, still.id)[: 1 + pick(f"tags {still.id}", 2)]
    if choice == 3:
        return noun_phrase(concept.label)
    return ", ".join([concept.label, *tags]) if choice == 4 else concept.label


def style_pairs(plain: dict[str, dict[str, Still]], rationales: Rationales) -> list[Pair]:
    """A picture -> the same concept in another style: one pair a concept."""
    found = []
    for hexcode in sorted({hexcode for stills in plain.values() for hexcode in stills}):
        styles = stable_order([style for style in plain if hexcode in plain[style]], f"styles {hexcode}")[:2]
        if len(styles) == 2:
            source, target = (plain[style][hexcode] for style in styles)
            sides = [
                Taught(Side(image=s.id), rationales.of_picture(s.concept, s.style), text)
                for s, text in ((source, "a thing"), (target, f"a picture from {GROUPS[target.concept.group]}"))
            ]
            found.append(Pair(*sides, "I-RET-other-style"))
    return found


def edit_pairs(context: Context, rationales: Rationales) -> list[Pair]:
    """A picture and an edit -> the edited picture, in the same style."""
    found = []
    for style in TRAIN_STYLES:
        stills = context.stills[style]
        for edit in train_edits(context, style):
            source, target = stills[edit.source.hexcode], stills[edit.target.hexcode]
            asked = Side(asked_in_words(edit, style), source.id)
            reason = rationales.of_picture(edit.source, style, [edit.fact])
            found.append(
                Pair(
                    Taught(asked, reason, "a picture with one change"),
                    Taught(Side(image=target.id), rationales.of_picture(edit.target, style), "a picture"),
                    "I-RET-edit",
                )
            )
    return found
