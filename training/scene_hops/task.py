"""`scene_hops` as a task for the trainer; Hit@1 by number of hops and by the family of the last one."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from training.hops.task import HopsTask, share
from training.scene_hops import pictures, scenes


class SceneTable:
    """What the processor makes of every text and of every tile, once, so that a batch is put together by index.

    All texts have as many tokens, and a field of a scene is one visual token of four patches.

    Args:
        processor (`PlumeProcessor`): With one frame a temporal patch, for pictures of `pictures.SIDE`.

    Raises:
        ValueError: a word of the texts has more than one token.
    """

    def __init__(self, processor: PlumeProcessor):
        tiles, corners = pictures.tiles(), pictures.corners()
        self.tiles = _patches(processor, tiles.reshape(-1, *tiles.shape[3:])).unflatten(0, tiles.shape[:3])
        padded = np.zeros((*corners.shape[:2], *tiles.shape[3:]), dtype=np.uint8)
        padded[:, :, : pictures.CORNER, : pictures.CORNER] = corners
        self.corners = _patches(processor, padded.reshape(-1, *tiles.shape[3:])).unflatten(0, corners.shape[:2])[
            :, :, 0
        ]
        is_corner = np.zeros((1, *tiles.shape[3:]), dtype=np.uint8)
        is_corner[:, : pictures.CORNER, : pictures.CORNER] = 255
        self.is_corner = _patches(processor, is_corner)[0, 0] > 0  # [patch size]; the letter is in the first patch

        # A row for each opening, each letter, and each word in all six slots: where two differ is where they stand.
        empty = [pictures.BLANK] * pictures.SIDE_FIELDS**2
        picture = Image.fromarray(pictures.compose(empty, [0] * len(empty), [0] * len(empty)))
        slots = [" ".join([word] * scenes.NUM_SLOTS) for word in scenes.WORDS]
        texts = [f"{opening} A {slots[0]}" for opening in scenes.OPENINGS]
        texts += [f"from {letter} {slots[0]}" for letter in pictures.LETTERS] + [f"from A {words}" for words in slots]
        rows = processor([{"text": text, "image": picture} for text in texts])
        openings, letters, words = rows["input_ids"].split([len(scenes.OPENINGS), len(pictures.LETTERS), len(slots)])
        self.template = {name: rows[name][:1] for name in ("attention_mask", "position_ids", "image_grid_thw")}
        self.ids = openings[0]  # [L]
        opening_place, start_place, self.slot_places = (
            (one != another).nonzero()[:, 0] for one, another, *_ in (openings, letters, words)
        )
        if (len(opening_place), len(start_place), len(self.slot_places)) != (1, 1, scenes.NUM_SLOTS):
            raise ValueError("A word of a text must be one token; raise SceneTask.vocab_size.")
        self.opening_place, self.start_place = int(opening_place), int(start_place)
        self.openings = dict(zip(scenes.OPENINGS, openings[:, self.opening_place], strict=True))
        self.letters = letters[:, self.start_place]  # [16]
        self.words = words[:, self.slot_places[0]]  # [words]

    def prefix(self, queries: list[scenes.Query]) -> dict[str, torch.Tensor]:
        """As `processor([query.item() for query in queries])`."""
        count = len(queries)
        ids = self.ids.repeat(count, 1)
        ids[:, self.opening_place] = torch.stack([self.openings[query.opening] for query in queries])
        ids[:, self.start_place] = self.letters[torch.tensor([query.start for query in queries])]
        ids[:, self.slot_places] = self.words[torch.tensor([query.signs for query in queries])]
        shown = torch.tensor([query.scene.shown for query in queries])  # [B, 16]
        sizes = torch.tensor([query.scene.sizes for query in queries])
        renderings = torch.tensor([query.renderings for query in queries])
        letters = torch.tensor([[pictures.corner_of(f, p) for f, p in enumerate(q.scene.shown)] for q in queries])
        patches = self.tiles[shown, sizes, renderings]  # [B, 16, 4, patch size]
        patches[:, :, 0] = torch.where(self.is_corner, self.corners[letters, renderings], patches[:, :, 0])
        repeated = {
            name: tensor.expand(count, *tensor.shape[1:]).contiguous() for name, tensor in self.template.items()
        }
        return {"input_ids": ids, **repeated, "pixel_values": patches.flatten(0, 2)}


def _patches(processor: PlumeProcessor, tiles: np.ndarray) -> torch.Tensor:
    """[tiles, 4, patch size]: what the image processor makes of tiles [tiles, TILE, TILE, 3], as parts of scenes."""
    per_scene = pictures.SIDE_FIELDS**2
    missing = -len(tiles) % per_scene
    whole = np.concatenate((tiles, np.zeros((missing, *tiles.shape[1:]), dtype=np.uint8)))
    scenes_of = [pictures.join(whole[start : start + per_scene]) for start in range(0, len(whole), per_scene)]
    values = processor.image_processor(images=[Image.fromarray(scene) for scene in scenes_of], return_tensors="pt")
    return values["pixel_values"].unflatten(0, (len(whole), -1))[: len(tiles)]


class SceneTask(HopsTask):
    """Batches and evaluation of `scene_hops`."""

    data = scenes
    table = SceneTable
    side = pictures.SIDE
    vocab_size = 520

    def make_model(self) -> PlumeModel:
        """A fresh adapter over the backbone of `model.path`, or all random where the recipe names none.

        Raises:
            ValueError: there is no model in that folder, or one that numbers words in another way.
        """
        model, path = super().make_model(), self.recipe.model.path
        if path is not None:
            if not Path(path).is_dir():
                raise ValueError(
                    f"No model in {path}: start in the repository's root, or make it with `make scene-hops-base`."
                )
            words = PlumeProcessor.from_pretrained(path).tokenizer.get_vocab()
            if words != self.processor.tokenizer.get_vocab():
                raise ValueError(f"The words of {path} have other numbers than those of the task: train it again.")
            model.backbone.load_state_dict(PlumeModel.from_pretrained(path).backbone.state_dict())
        return model

    def breakdown(self, hits_of: list[tuple[scenes.Query, bool]]) -> dict:
        """Hit@1 by number of hops and by the family of the last hop; what guessing comes to, by number of hops."""
        numbers, families = range(scenes.MAX_HOPS + 1), ("none", *scenes.FAMILIES)
        own = {n: [query for query, _ in hits_of if query.num_hops == n] for n in numbers}
        return {
            "hit_at_1_by_hops": {n: share(hits_of, lambda q, n=n: q.num_hops == n) for n in numbers},
            "hit_at_1_by_last_hop": {name: share(hits_of, lambda q, name=name: q.family == name) for name in families},
            "chance_by_hops": {n: scenes.chance(queries) for n, queries in own.items() if queries},
        }
