"""The tower of `scene_hops` learns to see before the decoder learns to follow, as the paper's backbones come trained.

From the loss of the task alone a fresh tower under a fresh decoder stays blind for a thousand steps and more. Here a
throw-away head names what each field of a random board shows, from its visual token alone; some seconds are enough.
"""

import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from plume_embed.model.modeling_plume import PlumeModel
from training.scene_hops import pictures, scenes
from training.scene_hops.pictures import COLOURS, LETTERS, SHAPES, SIZES

# What is named of a field. The last class of each is a field off the board, which has none of them.
ATTRIBUTES = {"colour": len(COLOURS) + 1, "shape": len(SHAPES) + 1, "size": len(SIZES) + 1, "letter": len(LETTERS) + 1}
STEPS, SCENES, RATE = 200, 32, 2e-3


def labels(queries: Sequence[scenes.Query]) -> torch.Tensor:
    """[fields, attributes]: the class of each attribute, for the 16 fields of each query one after the other."""
    off_board = tuple(count - 1 for count in ATTRIBUTES.values())
    rows = [
        off_board
        if picture == pictures.BLANK
        else (picture % len(COLOURS), picture // len(COLOURS), query.scene.sizes[field], field)
        for query in queries
        for field, picture in enumerate(query.scene.shown)
    ]
    return torch.tensor(rows)


class FieldReader(nn.Module):
    """A tower and a head over its visual tokens.

    Args:
        model ([`PlumeModel`]): Its tower is trained in place.
    """

    def __init__(self, model: PlumeModel):
        super().__init__()
        self.tower = model.backbone.visual
        self.head = nn.Linear(model.config.backbone_config.text_config.hidden_size, sum(ATTRIBUTES.values()))

    def forward(self, prefix: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Logits [fields, classes] of each attribute, from what `SceneTask.prefix` gives."""
        tokens = self.tower(prefix["pixel_values"], grid_thw=prefix["image_grid_thw"]).pooler_output  # [fields, D]
        return self.head(tokens).split(list(ATTRIBUTES.values()), dim=1)


def teach(
    model: PlumeModel, prefix: Callable[[list[scenes.Query]], dict[str, torch.Tensor]], seed: int, steps: int = STEPS
) -> FieldReader:
    """Trains the model's tower, on the device that it is on, with random boards of the training renderings.

    Args:
        prefix: `SceneTask.prefix`, which puts the boards together.
        seed (`int`): Of the boards and of the head.

    Returns:
        The tower with its head, in evaluation mode.
    """
    torch.manual_seed(seed)
    rng, reader = random.Random(f"scene_hops tower {seed}"), FieldReader(model)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=RATE, weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 30, 2 * (steps - step) / steps)
        queries = [scenes.draw(rng) for _ in range(SCENES)]
        wanted = labels(queries)
        loss = torch.stack(
            [F.cross_entropy(logits, wanted[:, place]) for place, logits in enumerate(reader(prefix(queries)))]
        ).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.tower.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad()
    return reader.eval()
