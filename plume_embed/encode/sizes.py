"""How many tokens an item will have, roughly and without decoding it; for batches of like cost only."""

from typing import Any

from PIL import Image

from plume_embed.model.images_plume import image_size, is_source
from plume_embed.model.inputs_plume import normalize_conversation, to_conversation
from plume_embed.model.processing_plume import PlumeProcessor

_SAMPLE = "A grey heron stands in shallow water near the reeds, and behind it 3 boats are drawn up on the bank."


class TokenEstimate:
    """Tokens of an item as a function: its visual ones, its text by the length, and the prompt around them.

    Args:
        processor ([`PlumeProcessor`]): Whose limits, prompt and tokenizer count.

    Attributes:
        prompt (`int`): Tokens of a row with an empty text.
    """

    def __init__(self, processor: PlumeProcessor):
        self._processor = processor
        self.prompt = processor.row_length("")
        self._per_character = len(processor.tokenizer.encode(_SAMPLE, add_special_tokens=False)) / len(_SAMPLE)

    def __call__(self, item: Any) -> float:
        """Of a picture file only the header is read, of a video file nothing.

        Args:
            item: Anything that the processor takes. What it would refuse has a size too; it is refused in its turn.
        """
        try:
            conversation = normalize_conversation(to_conversation(item))
        except ValueError:
            return self.prompt
        return self.prompt + sum(self._part(part) for message in conversation for part in message["content"])

    def _part(self, part: dict) -> float:
        if part["type"] == "text":
            return len(part["text"]) * self._per_character
        if part["type"] == "image":
            return self._visual(part["image"], None)
        video = part["video"]
        is_frames = isinstance(video, list | tuple)
        of_file = self._processor.num_frames or self._processor.max_frames  # by fps: how long it is, is not known
        count = len(video) if is_frames else of_file
        return self._visual(video[0] if is_frames and count else None, count)

    def _visual(self, picture: Any, num_frames: int | None) -> float:
        """Tokens of a picture after resizing, or of `num_frames` like it; the most there can be where its size is not
        known."""
        return self._processor.family.num_visual_tokens(self._processor, _size(picture), num_frames)


def _size(picture: Any) -> tuple[int, int] | None:
    if isinstance(picture, Image.Image):
        return picture.size
    return image_size(picture) if is_source(picture) else None
