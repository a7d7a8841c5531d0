"""Encoder: a model folder or Hub id -> vectors, for the command line and everything behind it."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from transformers import BatchFeature

from plume_embed.encode.batching import (
    BATCH_SIZE,
    THREADS_AHEAD,
    TOKEN_BUDGET,
    PaddingReport,
    run_ahead,
    settings_of,
)
from plume_embed.encode.int8_weights import store_in_int8
from plume_embed.encode.prepare import Prepared, Preparer, listed, without_place
from plume_embed.encode.read_out import ReadOut, read_vectors
from plume_embed.encode.steps import checked_steps
from plume_embed.encode.weight_layout import store_by_column
from plume_embed.model import PlumeConfig, PlumeModel, PlumeProcessor
from plume_embed.model.arguments_plume import refuse_pickled_weights
from plume_embed.stored import read_json, why_no_model

_CHECKPOINTS = Path(__file__).parent.parent.parent / "checkpoints"
DEFAULT_MODEL = _CHECKPOINTS / "plume-small"
DRAWINGS_MODEL = _CHECKPOINTS / "plume-tiny"  # trained on drawings: for tests, and for the Space's drawings
DEFAULT_MODEL_KNOWS = (
    "plume-small finds objects in photographs by their English names; it is weak at scenes, relations, text in "
    "pictures and other languages. Choose a larger model with --model or PLUME_MODEL."
)
INT8 = "int8"
DTYPES = ("auto", "float32", "bfloat16", "float16", INT8)
# All that decides a vector, code aside; the weights come on top.
FINGERPRINT_FILES = ("config.json", "processor_config.json", "chat_template.jinja", "tokenizer.json")
# Of a processor, what changes no vector: limits, above which an item is refused or cut into passages, and its folder.
_NO_VECTOR = frozenset(
    {"processor.max_image_pixels", "processor.max_frames", "tokenizer.model_max_length", "tokenizer.name_or_path"}
)
_HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt"]
_REASON_CHARACTERS = 300


class Encoder(Preparer):
    """A PLUME model ready to embed. Where documents have a K of their own, `document_latent_steps()` says which.

    It can be copied, pickled, and used in the processes of `multiprocessing` and of `datasets.map(num_proc=...)`.

    Args:
        model (`str` or `Path`, *optional*): Folder or Hub id; see [`resolve_model`] for the default.
        device (`str`, *optional*): Defaults to cuda where there is one, else cpu.
        dtype (`str`, defaults to `"auto"`): One of `DTYPES`; `"auto"` is what the weights are stored in, `"int8"` see
            [`store_in_int8`].
        max_image_pixels (`int`, *optional*): Most pixels of a picture before it is resized, instead of the
            processor's own limit.
        weights_by_column (`bool`): Whether the decoder's weights are laid out for few rows; see [`store_by_column`].

    Attributes:
        processor ([`PlumeProcessor`]): A setting of it counts from the next call on, and so does another processor.
        padding ([`PaddingReport`]): How much of all batches so far was padding; a copy counts anew.

    Raises:
        ValueError: no such model, not a PLUME model, weights missing, or no such device, with the remedy.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        device: str | None = None,
        dtype: str = "auto",
        max_image_pixels: int | None = None,
        weights_by_column: bool = False,
    ):
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
        self.device = checked_device(device)
        self.folder = resolve_model(model)
        self.name = str(model or self.folder)
        self._states = _states(self.folder)  # before anything is read of it
        # transformers' `to` has no type that pyright follows
        loaded: Any = load_model(self.folder, "float32" if dtype == INT8 else dtype)
        self.model: PlumeModel = loaded.to(self.device)
        self.model.groups_prefixes = self.device.type == "cpu"
        self._weights = INT8 if dtype == INT8 else str(self.model.dtype)
        if dtype == INT8:
            store_in_int8(self.model)
        if weights_by_column:
            store_by_column(self.model)
        processor = PlumeProcessor.from_pretrained(self.folder)
        if max_image_pixels is not None:
            processor.max_image_pixels = max_image_pixels
        super().__init__(processor)
        self._settings = settings_of(processor)
        self.padding = PaddingReport()

    def __getstate__(self) -> dict[str, Any]:
        # The hash of `datasets` is made of it: what has been embedded and asked so far must not change it.
        state = super().__getstate__() | {"padding": PaddingReport()}
        return {name: value for name, value in state.items() if name != "_files"}

    @property
    def dimension(self) -> int:
        """D, the size of a vector."""
        return self.model.config.hidden_size

    @property
    def dtype(self) -> str:
        """What the weights are held in, one of [`DTYPES`] but "auto"."""
        return self._weights.removeprefix("torch.")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration, the tokenizer, the prompt, the weights and the type they are computed in.

        A setting of the processor that was changed after loading makes another one where it can change a vector.

        Raises:
            ValueError: the files of the model have changed between loading and the first time that this was asked for.
        """
        return _with_weights(self._decided_by, self._weights)

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint that this model has with each `dtype`, "auto" aside."""
        types = {name: name if name == INT8 else f"torch.{name}" for name in DTYPES if name != "auto"}
        decided_by = self._decided_by
        return {name: _with_weights(decided_by, weights) for name, weights in types.items()}

    @property
    def _decided_by(self) -> str:
        """The files, and what has been set otherwise since."""
        settings = settings_of(self.processor)
        names = sorted((settings.keys() | self._settings.keys()) - _NO_VECTOR)
        changed = {name: settings.get(name) for name in names if settings.get(name) != self._settings.get(name)}
        return f"{self._files} {json.dumps(changed)}" if changed else self._files

    @cached_property
    def _files(self) -> str:
        """Hashed when it is first asked for, which takes seconds with large weights."""
        found = fingerprint(self.folder)
        if _states(self.folder) != self._states:
            raise ValueError(
                f"The files of {self.folder} have changed since this model was loaded from them, so nothing says any "
                "more what its vectors come from; load it again."
            )
        return found

    def latent_steps(self, num_latent_steps: int | None = None) -> int:
        """K as it will be used: the model's own unless given.

        Raises:
            ValueError: no whole number, or more steps than the model has.
        """
        config = self.model.config
        return checked_steps(num_latent_steps, config.num_latent_steps, config.num_step_embeddings)

    def document_latent_steps(self, num_latent_steps: int | None = None) -> int:
        """K of documents: the model's own where it has one for them, else as of queries.

        Args:
            num_latent_steps (`int`, *optional*): K of queries, as in [`latent_steps`].
        """
        own = self.model.config.document_latent_steps
        return self.latent_steps(num_latent_steps) if own is None else own

    def encode(
        self,
        items: Iterable[Any],
        batch_size: int = BATCH_SIZE,
        num_latent_steps: int | None = None,
        token_budget: float = TOKEN_BUDGET,
    ) -> np.ndarray:
        """Vectors of the items, float32 of shape [N, D], unit norm, in their order.

        Args:
            items: Anything that [`PlumeProcessor`] takes: a list, a column of a table (of `datasets`, pandas, polars or
                Arrow), or what else can be iterated.
                A chat message is an item; a conversation with a system message is a list of its own in the list.
            batch_size (`int`): Most items in a pass of the model.
            num_latent_steps (`int`, *optional*): K, by default the model's own.
            token_budget (`float`): Most tokens in a pass, visual ones and padding included; lower it if you run out of
                memory. An item above it has a pass to itself.

        Raises:
            ValueError: an item that cannot be embedded, with its index; one item, one conversation or a table instead
                of a list; a K that the model does not take; or a batch size or budget that is no number above 0.
        """
        vectors, errors = self.encode_readable(items, batch_size, num_latent_steps, token_budget)
        for index in sorted(errors):
            raise ValueError(f"Item {index}: {errors[index]}")
        return vectors

    def encode_readable(
        self,
        items: Iterable[Any],
        batch_size: int = BATCH_SIZE,
        num_latent_steps: int | None = None,
        token_budget: float = TOKEN_BUDGET,
        read_out: ReadOut = "embedding",
    ) -> tuple[np.ndarray, dict[int, str]]:
        """As [`encode`], but an item that cannot be embedded leaves a row of NaN and its reason, by its place.

        Args:
            read_out (`str`): See [`read_vectors`].

        Raises:
            ValueError: one item, one conversation or a table instead of a list; a K that the model does not take; or a
                batch size or budget that is no number above 0.
        """
        rows, steps = listed(items), self.latent_steps(num_latent_steps)
        vectors = np.full((len(rows), self.dimension), np.nan, dtype=np.float32)
        errors: dict[int, str] = {}
        groups = self.plan(rows, batch_size, token_budget)
        batches = [[rows[place] for place in places] for places in groups]
        num_threads = min(THREADS_AHEAD, len(groups) - 1)
        results = self.encode_batches(batches, steps, num_threads, read_out)
        for places, (part, refused) in zip(groups, results, strict=True):
            for place, vector in zip(places, part, strict=True):
                vectors[place] = vector
            errors |= {places[index]: reason for index, reason in refused.items()}
        return vectors, errors

    def encode_batches(
        self,
        batches: Iterable[list[Any]],
        num_latent_steps: int | None = None,
        num_threads: int = THREADS_AHEAD,
        read_out: ReadOut = "embedding",
    ) -> Iterator[tuple[np.ndarray, dict[int, str]]]:
        """Batch after batch as they stand, the processor running ahead of the model in threads.

        Args:
            batches: Lists of items, taken a few before they are needed; an empty one gives no vectors.
            num_latent_steps (`int`, *optional*): K, by default the model's own.
            num_threads (`int`): Threads of the processor; 0 or less: none.
            read_out (`str`): See [`read_vectors`].

        Yields:
            For each batch the vectors [B, D], rows of NaN for what cannot be embedded, and the reasons by place.
        """
        steps = self.latent_steps(num_latent_steps)
        for items, processed in run_ahead(self._process_any, batches, max(0, num_threads), ahead=max(1, num_threads)):
            if not items:
                yield self._not_a_vector(0), {}
                continue
            try:
                batch = processed.result()
                assert batch is not None  # that is what an empty one gives
                yield self.embed(batch, steps, read_out), {}
                continue
            except ValueError as error:
                if len(items) == 1:
                    yield self._not_a_vector(1), {0: without_place(error)}
                    continue
            vectors, errors = self._not_a_vector(len(items)), {}
            for index, item in enumerate(items):  # one of them is at fault: find it, and keep the others
                try:
                    vectors[index] = self.embed(self.process([item]), steps, read_out)
                except ValueError as error:
                    errors[index] = without_place(error)
            yield vectors, errors

    def encode_prepared(
        self, batches: Sequence[Prepared], num_latent_steps: int | None = None
    ) -> tuple[np.ndarray, dict[int, str]]:
        """As [`encode_readable`], for items that [`Preparer.prepare`] has seen, here or on another machine.

        A batch that the model fails at, as one that does not fit into memory, gives the reason for each of its places.
        """
        steps = self.latent_steps(num_latent_steps)
        vectors = self._not_a_vector(sum(len(one.places) for one in batches))
        reasons: dict[int, str] = {}
        for one in batches:
            if one.batch is None:
                reasons[one.places[0]] = one.reason
                continue
            try:
                vectors[one.places] = self.embed(one.batch, steps)
            except ValueError as error:
                reasons |= dict.fromkeys(one.places, str(error))
        return vectors, reasons

    def _process_any(self, items: list[Any]) -> BatchFeature | None:
        return self.process(items) if items else None

    def embed(self, batch: BatchFeature, num_latent_steps: int, read_out: ReadOut = "embedding") -> np.ndarray:
        """Vectors [B, D] of a batch of the processor, float32; see [`vectors`] and [`read_vectors`]."""
        return self.vectors(batch, lambda moved: read_vectors(self.model, moved, num_latent_steps, read_out))

    @torch.inference_mode()
    def vectors(self, batch: BatchFeature, read: Callable[[BatchFeature], torch.Tensor]) -> np.ndarray:
        """What `read` makes of a batch on the model's device, [B, D] float32; the batch's padding is counted.

        Raises:
            ValueError: a token that the model lacks, out of memory, or a vector that is not finite, with the remedy.
        """
        if batch["input_ids"].max() >= len(self.model.get_input_embeddings().weight):
            raise ValueError(
                "The tokenizer has a token that the model has no embedding for; after tokenizer.add_tokens call "
                "encoder.model.resize_token_embeddings(len(encoder.processor.tokenizer)) and train the new rows."
            )
        self.padding.add(batch["attention_mask"])
        try:
            vectors = read(batch.to(self.device)).cpu().numpy()  # [B, D]
        except torch.OutOfMemoryError as error:
            raise ValueError(
                "Out of memory; lower the batch size, the token budget or the processor's pixel limits."
            ) from error
        if not np.isfinite(vectors).all():
            raise ValueError("The vector is not finite: the model overflows in this dtype; use --dtype float32.")
        return vectors

    def _not_a_vector(self, count: int) -> np.ndarray:
        return np.full((count, self.dimension), np.nan, dtype=np.float32)


def resolve_model(model: str | Path | None = None) -> Path:
    """The local folder of a model, fetched from the Hub if it is no folder.

    Args:
        model (`str` or `Path`, *optional*): Defaults to the environment variable PLUME_MODEL, then to the bundled
            checkpoints/plume-small of a checkout.

    Raises:
        ValueError: there is no such model, with what to do.
    """
    model = model or os.environ.get("PLUME_MODEL")
    if not model:
        if not (DEFAULT_MODEL / "config.json").is_file():
            raise ValueError(
                "No model: pass --model with a folder or Hub id, or set PLUME_MODEL (there is no bundled model in "
                f"{DEFAULT_MODEL})."
            )
        return DEFAULT_MODEL
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _with_config(folder)
    refuse_pickled_weights(folder)
    if isinstance(model, Path) or folder.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ValueError(f"No such model folder: {folder}. Pass a folder or a Hub id to --model.")
    try:
        fetched = Path(snapshot_download(model, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{model} is neither a folder nor a model on the Hub; check the name and the network, or pass a local "
            f"folder ({reason})."
        ) from error
    return _with_config(fetched)


def _with_config(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{why_no_model(folder)} Pass another --model.")
    return folder


def load_model(folder: Path, dtype: str = "auto") -> PlumeModel:
    """The model of a local folder.

    Raises:
        ValueError: it is no PLUME model, or its weights are damaged or incomplete.
    """
    file = folder / "config.json"
    saved = read_json(file, "Fetch or make the model again.")
    model_type = saved.get("model_type") if isinstance(saved, dict) else None
    if model_type != "plume":
        raise ValueError(
            f"{folder} holds a model of type {model_type!r}, not plume; make one of it with `plume-embed convert` "
            "(released PLUME weights) or `plume-embed init` (a backbone)."
        )
    try:
        PlumeConfig.from_dict(saved)
    except Exception as error:  # nonsense in a config ends in any kind of error
        raise ValueError(f"{file} describes no model: {_in_one_line(error)}") from error
    try:
        loaded: Any = PlumeModel.from_pretrained(folder, dtype=dtype)
        return loaded
    except (ValueError, OSError, MemoryError, ImportError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # or where the modules are made of it
        raise ValueError(f"{file} describes no model that can be made: {_in_one_line(error)}") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_REASON_CHARACTERS]


def fingerprint(folder: Path) -> str:
    """SHA-256 over the bytes of `FINGERPRINT_FILES` and the safetensors files of a model folder, as hex."""
    digest = hashlib.sha256()
    for file in _deciding_files(folder):
        with file.open("rb") as opened:
            digest.update(f"{file.name}\n{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _deciding_files(folder: Path) -> list[Path]:
    files = [*(folder / name for name in FINGERPRINT_FILES), *sorted(folder.glob("*.safetensors"))]
    return [file for file in files if file.is_file()]


def _states(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the last change of the files that a fingerprint is made of."""
    return [(file.name, (status := file.stat()).st_size, status.st_mtime_ns) for file in _deciding_files(folder)]


def _with_weights(files: str, weights: str) -> str:
    return hashlib.sha256(f"{files} {weights}".encode()).hexdigest()


def checked_device(device: str | None) -> torch.device:
    """A device by its name; by default the first GPU, or the CPU where there is none.

    Raises:
        ValueError: it is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"No such device: {device!r} ({str(error).splitlines()[0]})") from error
    return torch.device(device)
