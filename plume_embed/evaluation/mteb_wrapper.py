"""PLUME in mteb: `mteb.evaluate(PlumeMteb("checkpoints/plume-tiny"), tasks)`.

mteb treats a bare SentenceTransformer as a text model; this wrapper hands over texts, pictures, videos and their
combinations as PlumeProcessor takes them. A task's instruction stands before the query's text, as in MMEB-v2.

Videos are decoded by PyAV, as everywhere here, and sampled by PlumeProcessor: the wrapper asks `datasets` for the files
instead of for decoders, so torchcodec is not needed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Video
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from plume_embed.evaluation.embedders import Embedder, PlumeEmbedder

MODALITIES = ("text", "image", "video")
_CITATION = "He et al., PLUME: Latent Reasoning Based Universal Multimodal Embedding, arXiv 2604.02073"


class PlumeMteb(AbsEncoder):
    """A PLUME model as mteb's encoder.

    Args:
        model: Folder or Hub id; the bundled plume-small if left out. Or an embedder that is loaded already.
        name: Under which mteb files the results, ORG/NAME.
        revision: Of the weights; by default the fingerprint of model and code, so that results of others are never
            reused. mteb reuses results by it, so without instructions it has an ending that says so.
        num_latent_steps: K; the model's own if left out, 0 for a single pass.
        use_instructions: Whether a task's instruction goes before the query's text.
        device, dtype: See `plume_embed.encode.encoder.Encoder`.
        paradigm: "latent", "single" or "cot"; "single" where K is 0.
        max_new_tokens: See `PlumeEmbedder`.

    Attributes:
        num_items: What was embedded so far.
        seconds: How long that took by the clock, decoding included.

    Raises:
        ValueError: no such model or device.
    """

    def __init__(
        self,
        model: str | Path | Embedder | None = None,
        name: str = "plume-embed/PLUME",
        revision: str | None = None,
        num_latent_steps: int | None = None,
        use_instructions: bool = True,
        device: str | None = None,
        dtype: str = "auto",
        paradigm: str = "latent",
        max_new_tokens: int | None = None,
    ) -> None:
        if model is None or isinstance(model, str | Path):
            paradigm = "single" if num_latent_steps == 0 and paradigm == "latent" else paradigm
            self.model: Embedder = PlumeEmbedder(model, paradigm, num_latent_steps, device, dtype, max_new_tokens)
        else:
            self.model = model
        self.num_items, self.seconds = 0, 0.0
        self.use_instructions = use_instructions
        revision = revision or self.model.fingerprint[:16]
        revision += "" if use_instructions else "-without-instructions"
        self.mteb_model_meta = model_meta(name, revision, use_instructions)

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Vectors [N, D] of everything that mteb's data loader yields, float32, unit norm.

        Raises:
            InputError: an input that cannot be embedded.
            ValueError: an input with nothing that PLUME takes.
        """
        instruction = instruction_of(task_metadata.prompt, prompt_type) if self.use_instructions else ""
        parts, begun = [], time.perf_counter()
        for batch in with_video_files(inputs):
            with tempfile.TemporaryDirectory() as folder:
                items = [item_of(row, instruction) for row in rows(batch, Path(folder))]
                model = self.model.documents if prompt_type == PromptType.document else self.model
                parts.append(model.embed(items, batch_size))
            self.num_items += len(items)
        self.seconds += time.perf_counter() - begun
        return np.concatenate(parts)


def with_video_files(inputs: DataLoader) -> DataLoader:
    """mteb's loader, yielding each video as its file, {"path", "bytes"}, and no audio; others are left as they are."""
    dataset: Any = inputs.dataset  # of datasets, not of torch
    if not isinstance(dataset.features.get("video"), Video):
        return inputs
    dataset = dataset.remove_columns([name for name in dataset.column_names if name == "audio"])
    dataset = dataset.cast_column("video", Video(decode=False))
    return DataLoader(
        dataset, batch_size=inputs.batch_size, collate_fn=inputs.collate_fn, num_workers=inputs.num_workers
    )


def model_meta(name: str, revision: str, use_instructions: bool) -> ModelMeta:
    """What mteb records of a PLUME model."""
    loader: Any = PlumeMteb  # mteb's protocols name attributes that it never asks for
    return ModelMeta(
        loader=loader,
        name=name,
        revision=revision,
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=None,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch", "Sentence Transformers"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=use_instructions,
        training_datasets=None,
        modalities=list(MODALITIES),
        citation=_CITATION,
    )


def instruction_of(prompt: str | Mapping[str, str] | None, prompt_type: PromptType | None) -> str:
    """The instruction that a task gives to its queries or its documents; "" if none.

    Args:
        prompt: Of the task: one string, which is for queries, or one for each type of prompt.
        prompt_type: Query, document, or None for tasks without that difference.
    """
    if prompt is None:
        return ""
    if isinstance(prompt, str):
        return "" if prompt_type == PromptType.document else prompt
    return prompt.get(prompt_type.value, "") if prompt_type is not None else ""


def rows(batch: Mapping[str, list[Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """mteb's batch of columns as rows of what PLUME takes.

    Args:
        batch: Columns by name; a video is a file as `with_video_files` gives it, or its frames.
        folder: Videos that are bytes are written here, and must stay until they are embedded.

    Raises:
        ValueError: there is no such column.
    """
    columns = [kind for kind in MODALITIES if kind in batch]
    if not columns:
        raise ValueError(f"PLUME takes {', '.join(MODALITIES)}; the task has only {', '.join(batch)}.")
    for number, values in enumerate(zip(*(batch[column] for column in columns), strict=True)):
        row = dict(zip(columns, values, strict=True))
        if isinstance(row.get("video"), Mapping):
            row["video"] = _video_file(row["video"], folder / str(number))
        yield row


def _video_file(video: Mapping[str, Any], place: Path) -> Path:
    """The path of a video, its bytes written to `place` where it is no file of its own."""
    if video["bytes"] is None:
        return Path(video["path"])
    place.write_bytes(video["bytes"])
    return place


def item_of(row: Mapping[str, Any], instruction: str) -> dict[str, Any]:
    """One row as an input of an embedder; what is None or empty text beside a medium is left out.

    Raises:
        ValueError: nothing is left.
    """
    item = {kind: value for kind, value in row.items() if value is not None}
    text = " ".join(_words(instruction, item.pop("text", None)))
    if text or not item:
        item["text"] = text
    if "text" in item and not item["text"] and len(item) == 1 and row.get("text") is None:
        raise ValueError("An input of the task has neither text nor image nor video.")
    return item


def _words(*texts: str | None) -> Iterable[str]:
    return (text for text in texts if text)
