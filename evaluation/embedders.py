"""What is evaluated: a PLUME model, or any model that sentence-transformers loads, behind one small face."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

PARADIGMS = ("latent", "single", "cot")
_CODE_AND_WEIGHTS = {".json", ".jinja", ".txt", ".model", ".py", ".safetensors", ".bin", ".onnx"}


class InputError(ValueError):
    """An input that cannot be embedded.

    Attributes:
        index: Its place in the list.
        reason: Why.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"input {index}: {reason}")
        self.index, self.reason = index, reason


class Embedder(Protocol):
    """Turns inputs into unit vectors.

    Attributes:
        name: For tables.
        fingerprint: Changes whenever the vectors may.
        num_latent_steps: K; None for a model that has none.
        paradigm: "latent" or "single".
    """

    name: str
    fingerprint: str
    num_latent_steps: int | None
    paradigm: str

    def embed(self, inputs: Sequence[dict[str, Any]], batch_size: int) -> NDArray[np.float32]:
        """Vectors [N, D] of dicts with the keys text, image and video, unit norm.

        Raises:
            InputError: the first input that cannot be embedded.
        """


class PlumeEmbedder:
    """A PLUME model through PlumeProcessor and PlumeModel.

    Args:
        model: Folder or Hub id; the bundled plume-tiny if left out.
        paradigm: "latent" (K steps), "single" (no step: the last prefix token), "cot" is refused.
        num_latent_steps: K; the model's own if left out.
        device, dtype: See `plume_embed.encoder.Encoder`.

    Raises:
        ValueError: no such model or device, a K that the model does not take, or a paradigm that does not exist.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        paradigm: str = "latent",
        num_latent_steps: int | None = None,
        device: str | None = None,
        dtype: str = "auto",
    ) -> None:
        num_latent_steps = latent_steps_of(paradigm, num_latent_steps)
        from plume_embed.encoder import Encoder

        self._encoder = Encoder(model, device=device, dtype=dtype)
        self.num_latent_steps: int | None = self._encoder.latent_steps(num_latent_steps)
        self.paradigm = "latent" if self.num_latent_steps else "single"
        self.name = self._encoder.folder.name if Path(self._encoder.name).is_dir() else self._encoder.name
        parts = (self._encoder.fingerprint, str(self._encoder.model.dtype), str(self.num_latent_steps))
        self.fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def embed(self, inputs: Sequence[dict[str, Any]], batch_size: int) -> NDArray[np.float32]:
        """See `Embedder`."""
        vectors, errors = self._encoder.encode_readable(inputs, batch_size, self.num_latent_steps)
        for index in sorted(errors):
            raise InputError(index, errors[index])
        return vectors


class SentenceTransformerEmbedder:
    """A peer: whatever `SentenceTransformer(name)` loads.

    Args:
        model: Folder or Hub id.
        device: Of the model.
        trust_remote_code: Whether code from the model's folder may run.

    Raises:
        ValueError: there is no such model.
    """

    num_latent_steps: int | None = None
    paradigm = "single"

    def __init__(self, model: str, device: str | None = None, trust_remote_code: bool = False) -> None:
        from huggingface_hub import snapshot_download
        from sentence_transformers import SentenceTransformer

        folder = Path(model).expanduser()
        if not folder.is_dir():
            try:
                folder = Path(snapshot_download(model))
            except (OSError, ValueError) as error:
                raise ValueError(f"No model {model}: {str(error).splitlines()[0]}") from error
        self._model = SentenceTransformer(str(folder), device=device, trust_remote_code=trust_remote_code)
        self.name = folder.name if Path(model).expanduser().is_dir() else model
        self.fingerprint = hash_folder(folder)

    def embed(self, inputs: Sequence[dict[str, Any]], batch_size: int) -> NDArray[np.float32]:
        """See `Embedder`."""
        loaded = [self._loaded(index, item) for index, item in enumerate(inputs)]
        vectors = self._model.encode(
            loaded, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=np.float32)

    def supports(self, kinds: tuple[str, ...]) -> bool:
        """Whether the model takes this combination, e.g. ("text",) or ("image", "text")."""
        return self._model.supports(kinds[0] if len(kinds) == 1 else kinds)

    def _loaded(self, index: int, item: dict[str, Any]) -> Any:
        from plume_embed.media_plume import load_image

        kinds = tuple(kind for kind in ("image", "video", "text") if kind in item)
        if not self.supports(kinds):
            raise InputError(index, f"{self.name} does not take {' + '.join(kinds)}")
        try:
            loaded = {
                kind: load_image(value)
                if kind == "image"
                else [load_image(f) for f in value]
                if kind == "video"
                else value
                for kind, value in item.items()
            }
        except ValueError as error:
            raise InputError(index, str(error)) from error
        # Alone, a part goes in as it is: models older than multimodal inputs take nothing else. A text keeps its key
        # where the model takes pictures, or the path of a picture would be opened.
        if len(loaded) == 1 and (kinds != ("text",) or not self._model.supports("image")):
            return loaded[kinds[0]]
        return loaded


def latent_steps_of(paradigm: str, num_latent_steps: int | None = None) -> int | None:
    """K for a paradigm: what was asked for, or 0 for a single pass.

    Raises:
        ValueError: an unknown paradigm, one that contradicts K, or cot.
    """
    if paradigm not in PARADIGMS:
        raise ValueError(f"The paradigms are {', '.join(PARADIGMS)}, got {paradigm!r}.")
    if paradigm == "cot":
        raise ValueError(
            "The paradigm cot decodes an explicit rationale before the embedding, and PlumeModel cannot decode text "
            "yet: it has no generation over its backbone's vocabulary, and plume-tiny was not trained on rationales. "
            "Use latent or single."
        )
    if paradigm == "single":
        if num_latent_steps:
            raise ValueError(
                f"A single pass has no latent steps, got {num_latent_steps}; leave them out or use latent."
            )
        return 0
    if num_latent_steps == 0:
        raise ValueError("The paradigm latent needs at least one latent step; use single for none.")
    return num_latent_steps


def hash_folder(folder: Path) -> str:
    """SHA-256 over names and bytes of everything in a model folder that can change a vector, as hex."""
    digest = hashlib.sha256()
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix in _CODE_AND_WEIGHTS]
    for file in sorted(files):
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}\n{content}\n".encode())
    return digest.hexdigest()
