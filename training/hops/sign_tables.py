"""What the processor makes of the parts of `hops` and `hops_mixed` queries, so that a batch is put together by index.

Decoding 1,024 frames and 128 prompts anew for every step took as long as half of the training. All prompts of a task go
through the processor in one batch, so they are padded to the same length.
"""

import torch
from PIL import Image

from plume_embed.model.processing_plume import PlumeProcessor
from training.hops import hops, mixed


class FilmTable:
    """What the processor makes of every text and of every rendering, once, so that a batch is put together by index.

    There are 20 texts and 2,500 frames; decoding 1,024 frames and 128 prompts anew for every step took as long as half
    of the training. All texts go through the processor in one batch, so they are padded to the same length.

    Args:
        processor (`PlumeProcessor`): With one frame a temporal patch.
    """

    def __init__(self, processor: PlumeProcessor):
        pixels = hops.renderings()  # [glyphs, renderings, side, side, 3]
        films = pixels.reshape(-1, 4, *pixels.shape[2:])
        patches = processor([{"video": film} for film in films])["pixel_values_videos"]
        self.patches = patches.unflatten(0, (*pixels.shape[:2], -1))  # [glyphs, renderings, 4, patch size]
        texts = [hops.Hop(m, s, (), (), ()).text for m in range(len(hops.MACHINES)) for s in range(len(hops.STATES))]
        self.tokens = processor([{"text": text, "video": pixels[0, : hops.NUM_FRAMES]} for text in texts])

    def prefix(self, queries: list[hops.Hop]) -> dict[str, torch.Tensor]:
        """As `processor([query.item() for query in queries])`."""
        rows = torch.tensor([query.machine * len(hops.STATES) + query.start for query in queries])
        names = ("input_ids", "attention_mask", "position_ids", "video_grid_thw")
        glyphs = torch.tensor([query.frames for query in queries])  # [B, 8]
        shown = torch.tensor([query.renderings for query in queries])  # [B, 8]
        return {name: self.tokens[name][rows] for name in names} | {
            "pixel_values_videos": self.patches[glyphs, shown].flatten(0, 2)  # [B, 8, 4, size] -> [patches, size]
        }


class SignTable:
    """The same for `hops_mixed`, whose rows have films, pictures or nothing but text.

    Where signs are words, of one token each, their tokens are put into a row by index as well.

    Args:
        processor (`PlumeProcessor`): With one frame a temporal patch.
    """

    def __init__(self, processor: PlumeProcessor):
        films, boards = hops.renderings(), mixed.board_renderings()
        film_patches = processor([{"video": film} for film in films.reshape(-1, 4, *films.shape[2:])])
        self.frames = film_patches["pixel_values_videos"].unflatten(0, (*films.shape[:2], -1))
        board_patches = processor(
            [{"image": Image.fromarray(board)} for board in boards.reshape(-1, *boards.shape[2:])]
        )
        self.boards = board_patches["pixel_values"].unflatten(0, (*boards.shape[:2], -1))

        film, board = films[0, : hops.NUM_FRAMES], Image.fromarray(boards[0, 0])
        items = {text: {"text": text, "video": film} for text in mixed.film_prompts()}
        # One row for each word in all eight places: where two of them differ is where the words stand.
        for sign, word in enumerate(mixed.BUTTONS):
            items |= {("text", name, sign): {"text": f"{name} {_all(word)}"} for name in mixed.machines()}
        for sign, word in enumerate(mixed.MOVES):
            items["walk", "walk", sign] = {"text": f"walk {_all(word)}", "image": board}
        tokens = processor(list(items.values()))
        self.tokens = {name: tokens[name] for name in ("input_ids", "attention_mask", "position_ids")}
        self.video_grid, self.image_grid = tokens["video_grid_thw"][0], tokens["image_grid_thw"][0]
        self.row_of = {key: index for index, key in enumerate(items)}
        self.places, self.words = {}, {}
        for family, name in (("text", mixed.machines()[0]), ("walk", "walk")):
            rows = [self.row_of[family, name, sign] for sign in range(len(mixed.BUTTONS))]
            ids = self.tokens["input_ids"][rows]  # [signs, L]
            self.places[family] = (ids[0] != ids[1]).nonzero()[:, 0]  # [8]
            if len(self.places[family]) != hops.NUM_FRAMES:
                raise ValueError("A sign must be a word of one token; raise VOCAB_SIZE.")
            self.words[family] = ids[:, self.places[family][0]]  # [signs]

    def prefix(self, queries: list[mixed.Query]) -> dict[str, torch.Tensor]:
        """As `processor([query.item() for query in queries])`, padded to the longest prompt of the task."""
        rows = torch.tensor([self.row_of[self._key(query)] for query in queries])
        batch = {name: tensor[rows] for name, tensor in self.tokens.items()}
        for family, places in self.places.items():
            own = [index for index, query in enumerate(queries) if query.family == family]
            if own:
                signs = torch.tensor([queries[index].signs for index in own])  # [rows, 8]
                batch["input_ids"][torch.tensor(own).unsqueeze(1), places] = self.words[family][signs]
        films = [query for query in queries if query.family in mixed.IN_A_FILM]
        if films:
            batch["pixel_values_videos"] = _pixels(self.frames, films)
            batch["video_grid_thw"] = self.video_grid.repeat(len(films), 1)
        walks = [query for query in queries if query.family == "walk"]
        if walks:
            batch["pixel_values"] = _pixels(self.boards, walks)
            batch["image_grid_thw"] = self.image_grid.repeat(len(walks), 1)
        return batch

    def _key(self, query: mixed.Query) -> str | tuple[str, str, int]:
        if query.family in mixed.IN_A_FILM:
            return query.text
        name = "walk" if query.family == "walk" else " ".join(query.text.split()[:2])
        return query.family, name, 0


def _all(word: str) -> str:
    return " ".join([word] * hops.NUM_FRAMES)


def _pixels(table: torch.Tensor, queries: list[mixed.Query]) -> torch.Tensor:
    """[patches, patch size] of what these queries show; `table` is [drawn, renderings, patches of one, patch size]."""
    drawn = torch.tensor([query.shown for query in queries])  # [B, 8] or [B, 1]
    renderings = torch.tensor([query.renderings for query in queries])
    return table[drawn, renderings].flatten(0, 2)
