"""Encoder: a model folder or Hub id -> vectors, for the command line and everything behind it."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from safetensors import SafetensorError

from plume_embed.inputs_plume import normalize_conversation, to_conversation
from plume_embed.modeling_plume import PlumeModel
from plume_embed.processing_plume import PlumeProcessor

BUNDLED_MODEL = Path(__file__).parent.parent / "checkpoints" / "plume-tiny"
DTYPES = ("auto", "float32", "bfloat16", "float16")
# All that decides a vector, code aside; the weights come on top.
FINGERPRINT_FILES = ("config.json", "processor_config.json", "chat_template.jinja", "tokenizer.json")
_HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt"]
_CHARACTERS_PER_TOKEN = 3
_MUST_BE_EMPTY = ("missing_keys", "unexpected_keys", "mismatched_keys")


class Encoder:
    """A PLUME model ready to embed.

    Args:
        model (`str` or `Path`, *optional*): Folder or Hub id; see [`resolve_model`] for the default.
        device (`str`, *optional*): Defaults to cuda where there is one, else cpu.
        dtype (`str`, defaults to `"auto"`): One of `DTYPES`; `"auto"` is what the weights are stored in.

    Raises:
        ValueError: no such model, not a PLUME model, weights missing, or no such device, with the remedy.
    """

    def __init__(self, model: str | Path | None = None, device: str | None = None, dtype: str = "auto"):
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
        self.device = _checked_device(device)
        self.folder = resolve_model(model)
        self.name = str(model or self.folder)
        self.model = load_model(self.folder, dtype).to(self.device)
        self.processor = PlumeProcessor.from_pretrained(self.folder)

    @property
    def dimension(self) -> int:
        """D, the size of a vector."""
        return self.model.config.hidden_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration, the tokenizer, the prompt, the weights and the type they are computed in."""
        return hashlib.sha256(f"{fingerprint(self.folder)} {self.model.dtype}".encode()).hexdigest()

    @cached_property
    def _prompt_length(self) -> int:
        return self.processor([""])["input_ids"].shape[1]

    def latent_steps(self, num_latent_steps: int | None = None) -> int:
        """K as it will be used: the model's own unless given.

        Raises:
            ValueError: more steps than the model has.
        """
        config = self.model.config
        steps = config.num_latent_steps if num_latent_steps is None else num_latent_steps
        if not 0 <= steps <= config.num_step_embeddings:
            raise ValueError(f"This model takes 0 to {config.num_step_embeddings} latent steps, got {steps}.")
        return steps

    def fits(self, text: str) -> bool:
        """Whether the text fits into one row of the processor."""
        length = len(self.processor.tokenizer.encode(text, add_special_tokens=False))
        return length + self._prompt_length <= self.processor.max_length

    def encode(self, items: Sequence[Any], batch_size: int = 8, num_latent_steps: int | None = None) -> np.ndarray:
        """Vectors of the items, float32 of shape [N, D], unit norm, in their order.

        Args:
            items: Anything that [`PlumeProcessor`] takes.
            batch_size (`int`): Lower this if you run out of memory.
            num_latent_steps (`int`, *optional*): K, by default the model's own.

        Raises:
            ValueError: an item that cannot be embedded, naming its place.
        """
        vectors, errors = self.encode_readable(items, batch_size, num_latent_steps)
        for index in sorted(errors):
            raise ValueError(f"Item {index}: {errors[index]}")
        return vectors

    def encode_readable(
        self, items: Sequence[Any], batch_size: int = 8, num_latent_steps: int | None = None
    ) -> tuple[np.ndarray, dict[int, str]]:
        """As [`encode`], but an item that cannot be embedded leaves a row of NaN and its reason, by its place."""
        if batch_size < 1:
            raise ValueError(f"The batch size must be at least 1, got {batch_size}.")
        steps = self.latent_steps(num_latent_steps)
        vectors = np.full((len(items), self.dimension), np.nan, dtype=np.float32)
        errors: dict[int, str] = {}
        # Like sizes together waste the least padding; the largest first, so that a lack of memory shows at once.
        order = sorted(range(len(items)), key=lambda index: -self._size(items[index]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            try:
                vectors[places] = self._encode_batch([items[place] for place in places], steps)
                continue
            except ValueError as error:
                if len(places) == 1:
                    errors[places[0]] = _without_place(error)
                    continue
            for place in places:  # one of them is at fault: find it, and keep the others
                try:
                    vectors[place] = self._encode_batch([items[place]], steps)
                except ValueError as error:
                    errors[place] = _without_place(error)
        return vectors, errors

    @torch.inference_mode()
    def _encode_batch(self, items: list[Any], num_latent_steps: int) -> np.ndarray:
        batch = self.processor(items).to(self.device)
        try:
            vectors = self.model(**batch, num_latent_steps=num_latent_steps).embeddings.cpu().numpy()  # [B, D]
        except torch.OutOfMemoryError as error:
            raise ValueError("Out of memory; lower --batch-size or the processor's pixel limits.") from error
        if not np.isfinite(vectors).all():
            raise ValueError("The vector is not finite: the model overflows in this dtype; use --dtype float32.")
        return vectors

    def _size(self, item: Any) -> float:
        """Roughly the tokens of an item, for sorting only."""
        try:
            conversation = normalize_conversation(to_conversation(item))
        except ValueError:  # the processor will say what is wrong with it
            return 0
        image_limit = self.processor.image_processor.size["longest_edge"]
        video_limit = self.processor.video_processor.size["longest_edge"] * self.processor.num_frames
        size = 0.0
        for part in (part for message in conversation for part in message["content"]):
            if part["type"] == "text":
                size += len(part["text"]) / _CHARACTERS_PER_TOKEN
            elif part["type"] == "video":
                size += video_limit / 28**2
            elif isinstance(part["image"], Image.Image):
                size += min(part["image"].width * part["image"].height, image_limit) / 28**2
            else:
                size += image_limit / 28**2
        return size


def resolve_model(model: str | Path | None = None) -> Path:
    """The local folder of a model, fetched from the Hub if it is no folder.

    Args:
        model (`str` or `Path`, *optional*): Defaults to the environment variable PLUME_MODEL, then to the bundled
            checkpoints/plume-tiny of a checkout.

    Raises:
        ValueError: there is no such model, with what to do.
    """
    model = model or os.environ.get("PLUME_MODEL")
    if not model:
        if not (BUNDLED_MODEL / "config.json").is_file():
            raise ValueError(
                "No model: pass --model with a folder or Hub id, or set PLUME_MODEL (there is no bundled model in "
                f"{BUNDLED_MODEL})."
            )
        return BUNDLED_MODEL
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} is no model folder: it has no config.json. Pass another --model.")
        return folder
    if isinstance(model, Path) or folder.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ValueError(f"No such model folder: {folder}. Pass a folder or a Hub id to --model.")
    try:
        return Path(snapshot_download(model, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{model} is neither a folder nor a model that the Hub gives: {reason}") from error


def load_model(folder: Path, dtype: str = "auto") -> PlumeModel:
    """The model of a local folder.

    Raises:
        ValueError: it is no PLUME model, or its weights are damaged or incomplete.
    """
    try:
        model_type = json.loads((folder / "config.json").read_text()).get("model_type")
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is damaged: {error}") from error
    if model_type != "plume":
        raise ValueError(
            f"{folder} holds a model of type {model_type!r}, not plume; make one of it with `plume-embed convert` "
            "(released PLUME weights) or `plume-embed init` (a backbone)."
        )
    try:
        model, info = PlumeModel.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except SafetensorError as error:
        raise ValueError(f"The weights in {folder} are damaged: {error}. Fetch or make them again.") from error
    wrong = {name: sorted(map(str, keys)) for name, keys in info.items() if name in _MUST_BE_EMPTY and keys}
    if wrong:
        raise ValueError(f"The weights in {folder} do not fit the model: {wrong}.")
    return model


def fingerprint(folder: Path) -> str:
    """SHA-256 over the bytes of `FINGERPRINT_FILES` and the safetensors files of a model folder, as hex."""
    digest = hashlib.sha256()
    for file in [*(folder / name for name in FINGERPRINT_FILES), *sorted(folder.glob("*.safetensors"))]:
        if file.is_file():
            with file.open("rb") as opened:
                digest.update(f"{file.name}\n{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _checked_device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"No such device: {device!r} ({str(error).splitlines()[0]})") from error
    return torch.device(device)


def _without_place(error: ValueError) -> str:
    """The message of an error of the processor for a batch of one, without its "Item 0"."""
    return str(error).removeprefix("Item 0: ").removeprefix("Item 0 ")
