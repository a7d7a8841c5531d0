"""What must hold of everything that a part built, checked before it is written: no leak, no dangling name."""

from __future__ import annotations

from collections.abc import Iterator

from evaluation.miniature.parts import Context
from plume_embed.evaluation.miniature.schema import Built, Side
from plume_embed.evaluation.miniature.stills import TRAIN_STYLES


def check(built: Built, context: Context) -> None:
    """Check one part's work.

    Raises:
        ValueError: a side names a medium that is not there; a training pair shows a still of the test style or of a
            held-out family; the frames of an image are not one; a medium has the name of a still; a kept answer spells
            the target's text.
    """
    stills = {still.id: still for style in context.stills.values() for still in style.values()}
    twice = sorted(stills.keys() & built.media.keys())
    if twice:
        raise ValueError(f"the medium {twice[0]!r} has the name of a still.")
    for where, side in _sides(built):
        for kind, name in (("image", side.image), ("video", side.video)):
            if name and name not in built.media and (kind == "video" or name not in stills):
                raise ValueError(f"{where}: there is no medium {name!r}.")
        if side.image in built.media and len(built.media[side.image]) != 1:
            raise ValueError(f"{where}: the image {side.image!r} has {len(built.media[side.image])} frames, not 1.")
    for pair in built.pairs:
        for taught in (pair.query, pair.target):
            still = stills.get(taught.side.image)
            if still and (still.style not in TRAIN_STYLES or still.concept.split_family != "train"):
                raise ValueError(f"subset {pair.subset}: {still.id} is held out and must not be trained on.")
        target = pair.target.side.text.casefold()
        if target and pair.query.answer and target in pair.query.answer.casefold():
            raise ValueError(f"subset {pair.subset}: the answer {pair.query.answer!r} spells the target {target!r}.")


def _sides(built: Built) -> Iterator[tuple[str, Side]]:
    for task in built.tasks:
        yield from ((f"task {task.name!r}", side) for side in task.candidates)
        yield from ((f"task {task.name!r}", query.side) for query in task.queries)
    for pair in built.pairs:
        yield from ((f"subset {pair.subset}", taught.side) for taught in (pair.query, pair.target))
