"""The tower of `scene_hops` learns to see before the decoder learns to follow, as the paper's backbones come trained.

The visual token of a field is taught to be the sum of the embeddings of the words that describe the field: its
letter, colour, shape and size. So pictures and words share one space from the beginning, and a word is looked up in a
picture by its own embedding. All tokens of a word begin with one embedding, as those of a pretrained model are close to
each other; otherwise a mark in a rationale would agree with a third of the word that a field shows.
"""

import itertools
import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from training.scene_hops import pictures, scenes
from training.scene_hops.pictures import COLOURS, LETTERS, MARKS, SHAPES, SIZES

# What is said of a field, in the order of `labels`.
ATTRIBUTES = {"colour": tuple(COLOURS), "shape": SHAPES, "size": SIZES, "letter": LETTERS}
OFF_BOARD = -1  # the label of a field without a picture, which is taught to be the next word
OFF_BOARD_WORD = "<|vision_pad|>"
STEPS, SCENES, RATE = 250, 32, 5e-3
NAMING, SHARPNESS = 0.3, 8.0  # weight of telling words apart, and how sharply

Prefix = Callable[[list[scenes.Query]], dict[str, torch.Tensor]]


def labels(queries: Sequence[scenes.Query]) -> torch.Tensor:
    """[fields, attributes]: the word of each attribute by number, for the 16 fields of each query one after the other;
    `OFF_BOARD` where there is no picture."""
    rows = [
        (OFF_BOARD,) * len(ATTRIBUTES)
        if picture == pictures.BLANK
        else (picture % len(COLOURS), picture // len(COLOURS), query.scene.sizes[field], field)
        for query in queries
        for field, picture in enumerate(query.scene.shown)
    ]
    return torch.tensor(rows)


def tokens_of(word: str, processor: PlumeProcessor) -> list[int]:
    """All tokens that stand for a word: behind a space, as its mark in a rationale, and at the beginning of a text
    where that is one token.

    Raises:
        ValueError: the word behind a space, or its mark, has more than one token.
    """
    forms = [f" {word}", *([MARKS[word]] if word in MARKS else [])]
    ids = [processor.tokenizer.encode(form, add_special_tokens=False) for form in (*forms, word)]
    for form, own in zip(forms, ids, strict=False):
        if len(own) != 1:
            raise ValueError(f"{form!r} must be one token; raise SceneTask.vocab_size.")
    return [own[0] for own in ids if len(own) == 1]


@torch.no_grad()
def begin_alike(model: PlumeModel, processor: PlumeProcessor) -> None:
    """Gives all tokens of a word one embedding, in place; training may part them."""
    table = model.get_input_embeddings().weight
    for word in itertools.chain(*ATTRIBUTES.values()):
        first, *others = tokens_of(word, processor)
        for other in others:
            table[other] = table[first]


class Words:
    """The embeddings of the words that describe fields, as they are now; they are not trained.

    A word counts as the sum of all its tokens (`tokens_of`).

    Args:
        model ([`PlumeModel`]): Whose embeddings.
        processor ([`PlumeProcessor`]): Numbers the words.

    Attributes:
        of_attributes: [words, D] of each attribute.
        off_board: [D].
    """

    def __init__(self, model: PlumeModel, processor: PlumeProcessor):
        table = model.get_input_embeddings().weight.detach()
        self.of_attributes = [
            torch.stack([table[tokens_of(word, processor)].sum(dim=0) for word in words])
            for words in ATTRIBUTES.values()
        ]
        self.off_board = table[processor.tokenizer.convert_tokens_to_ids(OFF_BOARD_WORD)]

    def sums(self, wanted: torch.Tensor) -> torch.Tensor:
        """[fields, D] from the labels [fields, attributes]."""
        of_words = sum(words[wanted[:, place].clamp(min=0)] for place, words in enumerate(self.of_attributes))
        return torch.where(wanted[:, :1] == OFF_BOARD, self.off_board, of_words)

    def products(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """[fields, words] of each attribute: 1 where a token [fields, D] holds a word, near 0 elsewhere."""
        return [tokens @ words.T / words.pow(2).sum(dim=1) for words in self.of_attributes]


def seen(model: PlumeModel, prefix: dict[str, torch.Tensor]) -> torch.Tensor:
    """Visual tokens [fields, D] of what `SceneTask.prefix` gives, 16 fields a query."""
    return model.backbone.visual(prefix["pixel_values"], grid_thw=prefix["image_grid_thw"]).pooler_output


def teach(model: PlumeModel, processor: PlumeProcessor, prefix: Prefix, seed: int, steps: int = STEPS) -> None:
    """Trains the tower of a model on a CPU in place, with random boards of the training renderings.

    The loss is the squared distance to the sum of words over the squared length of that sum, and `NAMING` times the
    cross-entropy of each word against the others of its attribute.

    Args:
        prefix: `SceneTask.prefix`, which puts the boards together.
        seed (`int`): Of the boards.
    """
    rng, words, tower = random.Random(f"scene_hops tower {seed}"), Words(model, processor), model.backbone.visual
    optimizer = torch.optim.AdamW(tower.parameters(), lr=RATE, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 30, 2 * (steps - step) / steps)
        queries = [scenes.draw(rng) for _ in range(SCENES)]
        wanted, tokens = labels(queries), seen(model, prefix(queries))
        sums = words.sums(wanted)
        loss = (tokens - sums).pow(2).sum() / sums.pow(2).sum()
        for place, products in enumerate(words.products(tokens)):
            loss = loss + NAMING * F.cross_entropy(SHARPNESS * products, wanted[:, place], ignore_index=OFF_BOARD)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad()
