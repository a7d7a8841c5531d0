"""What is evaluated: a PLUME model, or any model that sentence-transformers loads, behind one small face."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.code import digest_of_code
from plume_embed.evaluation.similarity import unfit

if TYPE_CHECKING:
    from plume_embed.encode.encoder import Encoder
    from plume_embed.encode.rationale import Written
    from plume_embed.encode.read_out import ReadOut

# latent, single and cot are how a model may be trained; anchor and state show what its latent steps add.
PARADIGMS = ("latent", "single", "cot", "anchor", "state")
_READ_OUTS: dict[str, ReadOut] = {"anchor": "anchor", "state": "state"}
_PEER_DTYPES = ("auto", "float32", "bfloat16", "float16")
_PACKAGE = Path(__file__).parent.parent
# The code that decides a vector. The fingerprint of an index has none of it: an index stays valid after an update.
_CODE = (_PACKAGE / "model", _PACKAGE / "encode", Path(__file__))
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
        fingerprint: Changes whenever the vectors may: with the model's files, how it embeds, and the code of this
            package that embeds.
        num_latent_steps: K; None for a model that has none.
        paradigm: One of `PARADIGMS`.
        dtype: What its weights are held in, such as `float32`.
        written: Counts of the rationales so far; None for a model that writes none.
    """

    name: str
    fingerprint: str
    num_latent_steps: int | None
    paradigm: str
    dtype: str

    @property
    def written(self) -> Written | None:
        """See above."""
        ...

    @property
    def documents(self) -> Embedder:
        """The same model as it embeds candidates: itself, unless it has another K for them."""
        ...

    def supports(self, kinds: tuple[str, ...]) -> bool:
        """Whether the model takes this combination, e.g. ("text",) or ("image", "text")."""
        ...

    def embed(self, inputs: Sequence[dict[str, Any]], batch_size: int) -> NDArray[np.float32]:
        """Vectors [N, D] of dicts with the keys text, image and video, unit norm.

        Raises:
            InputError: the first input that cannot be embedded.
        """
        ...

    def embed_readable(
        self, inputs: Sequence[dict[str, Any]], batch_size: int
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """As `embed`, but an input that cannot be embedded leaves a row of NaN and its reason, by its place."""
        ...


class _Checked:
    """An embedder's face over `_vectors`: no vector leaves it that could not be ranked."""

    name: str

    def embed(self, inputs: Sequence[dict[str, Any]], batch_size: int) -> NDArray[np.float32]:
        """See `Embedder`."""
        vectors, errors = self.embed_readable(inputs, batch_size)
        for index in sorted(errors):
            raise InputError(index, errors[index])
        return vectors

    def embed_readable(
        self, inputs: Sequence[dict[str, Any]], batch_size: int
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """See `Embedder`."""
        vectors, errors = self._vectors(inputs, batch_size)
        for place, reason in unfit(vectors).items():
            vectors[place] = np.nan
            errors.setdefault(place, f"its embedding by {self.name} {reason}")
        return vectors, errors

    def _vectors(self, inputs: Sequence[dict[str, Any]], batch_size: int) -> tuple[NDArray[np.float32], dict[int, str]]:
        """As `embed_readable`, of any numbers."""
        raise NotImplementedError


class PlumeEmbedder(_Checked):
    """A PLUME model through PlumeProcessor and PlumeModel.

    Args:
        model: Folder or Hub id; the bundled plume-small if left out. Or an encoder that is loaded already, to compare
            paradigms on the same weights; `device` and `dtype` are then its own.
        paradigm: "latent" (K steps), "single" (no step: the last prefix token), "cot" (a rationale is written),
            "anchor" (read at the anchor, before any step) or "state" (read at z(K) itself, without the suffix).
        num_latent_steps: K; the model's own if left out.
        device, dtype: See `plume_embed.encode.encoder.Encoder`.
        max_new_tokens: Where a rationale of "cot" is cut; None: see `plume_embed.encode.rationale`.

    Raises:
        ValueError: no such model or device, a K that the model does not take, or a paradigm that does not exist.
    """

    def __init__(
        self,
        model: str | Path | Encoder | None = None,
        paradigm: str = "latent",
        num_latent_steps: int | None = None,
        device: str | None = None,
        dtype: str = "auto",
        max_new_tokens: int | None = None,
    ) -> None:
        num_latent_steps = latent_steps_of(paradigm, num_latent_steps)
        from plume_embed.encode.encoder import Encoder
        from plume_embed.encode.rationale import MAX_NEW_TOKENS, RationaleEncoder

        self.encoder = model if isinstance(model, Encoder) else Encoder(model, device=device, dtype=dtype)
        self.num_latent_steps: int | None = self.encoder.latent_steps(num_latent_steps)
        self.paradigm = "single" if paradigm == "latent" and not self.num_latent_steps else paradigm
        self.dtype = self.encoder.dtype
        self._read_out: ReadOut = _READ_OUTS.get(paradigm, "embedding")
        self.name = _folder_name(self.encoder.folder) if Path(self.encoder.name).is_dir() else self.encoder.name
        self._writer = None
        of_documents = self.encoder.document_latent_steps(self.num_latent_steps)
        self._document_steps = of_documents if self.paradigm in ("latent", "single") else self.num_latent_steps
        parts = [self.encoder.fingerprint, str(self.encoder.model.dtype), str(self.num_latent_steps)]
        parts.append(digest_of_code(*_CODE))
        if paradigm == "cot":
            self._writer = RationaleEncoder(self.encoder, max_new_tokens or MAX_NEW_TOKENS)
            parts.append(f"cot {self._writer.max_new_tokens}")
        if self._read_out != "embedding":
            parts.append(self._read_out)
        self.fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def written(self) -> Written | None:
        """See `Embedder`."""
        return None if self._writer is None else self._writer.written

    @property
    def documents(self) -> PlumeEmbedder:
        """See `Embedder`."""
        if self._document_steps == self.num_latent_steps:
            return self
        return PlumeEmbedder(self.encoder, "latent" if self._document_steps else "single", self._document_steps)

    def supports(self, kinds: tuple[str, ...]) -> bool:
        """Every combination."""
        return True

    def _vectors(self, inputs: Sequence[dict[str, Any]], batch_size: int) -> tuple[NDArray[np.float32], dict[int, str]]:
        if self._writer is not None:
            return self._writer.encode_readable(inputs, batch_size)
        return self.encoder.encode_readable(inputs, batch_size, self.num_latent_steps, read_out=self._read_out)


class SentenceTransformerEmbedder(_Checked):
    """A peer: whatever `SentenceTransformer(name)` loads, by its `encode_query` and, of candidates, `encode_document`.

    Args:
        model: Folder or Hub id.
        device: Of the model.
        trust_remote_code: Whether code from the model's folder may run.
        dtype: "auto" (as stored), "float32", "bfloat16" or "float16".
        own_prompts: Whether its own prompts for queries and documents stand in front of the texts; False for a
            benchmark that writes an instruction into them.

    Raises:
        ValueError: there is no such model or dtype, or its weights are pickles.
    """

    num_latent_steps: int | None = None
    paradigm = "single"
    written: Written | None = None

    def __init__(
        self,
        model: str,
        device: str | None = None,
        trust_remote_code: bool = False,
        dtype: str = "auto",
        own_prompts: bool = True,
    ) -> None:
        if dtype not in _PEER_DTYPES:
            raise ValueError(f"The dtype of a peer is one of {', '.join(_PEER_DTYPES)}, got {dtype!r}.")
        from huggingface_hub import snapshot_download
        from sentence_transformers import SentenceTransformer

        from plume_embed.model.arguments_plume import refuse_pickled_weights

        folder = Path(model).expanduser()
        if not folder.is_dir():
            try:
                folder = Path(snapshot_download(model))
            except (OSError, ValueError) as error:
                raise ValueError(f"No model {model}: {str(error).splitlines()[0]}") from error
        refuse_pickled_weights(folder)
        self._model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=trust_remote_code,
            model_kwargs=None if dtype == "auto" else {"dtype": dtype},
        )
        self.name = _folder_name(folder) if Path(model).expanduser().is_dir() else model
        weights = next(self._model.parameters(), None)
        self.dtype = "float32" if weights is None else str(weights.dtype).removeprefix("torch.")
        self._encode, self._prompt = self._model.encode_query, None if own_prompts else ""
        has_prompts, has_sides = any(self._model.prompts.values()), "task" in self._model.get_model_kwargs()
        # Otherwise everything is embedded once, whether it is asked, found or both.
        self._tells_sides_apart = has_sides or (has_prompts and own_prompts)
        parts = [hash_folder(folder), dtype, digest_of_code(*_CODE)]
        if has_prompts or has_sides:
            parts.append(f"by sides, prompts: {own_prompts}")
        self.fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def documents(self) -> SentenceTransformerEmbedder:
        """See `Embedder`."""
        if self._encode == self._model.encode_document or not self._tells_sides_apart:
            return self
        of_documents = copy(self)
        of_documents._encode = self._model.encode_document
        return of_documents

    def _vectors(self, inputs: Sequence[dict[str, Any]], batch_size: int) -> tuple[NDArray[np.float32], dict[int, str]]:
        # Kind by kind: not every model takes several in one list.
        loaded: dict[tuple[str, ...], dict[int, Any]] = {}
        errors: dict[int, str] = {}
        for index, item in enumerate(inputs):
            try:
                loaded.setdefault(tuple(sorted(item)), {})[index] = self._loaded(index, item)
            except InputError as error:
                errors[index] = error.reason
        vectors = np.empty((len(inputs), 0), dtype=np.float32)
        for of_kind in filter(None, loaded.values()):
            found = self._encode(
                list(of_kind.values()),
                prompt=self._prompt,
                batch_size=batch_size,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            if not vectors.shape[1]:
                vectors = np.full((len(inputs), found.shape[1]), np.nan, dtype=np.float32)
            vectors[list(of_kind)] = found
        return vectors, errors

    def supports(self, kinds: tuple[str, ...]) -> bool:
        """Whether the model takes this combination, e.g. ("text",) or ("image", "text")."""
        modality: Any = kinds[0] if len(kinds) == 1 else kinds  # a literal there
        return self._model.supports(modality)

    def _loaded(self, index: int, item: dict[str, Any]) -> Any:
        from plume_embed.model.media_plume import load_image

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
        # A picture or a text alone goes in as it is: models older than multimodal inputs take nothing else. A text
        # keeps its key where the model takes pictures, or the path of a picture would be opened; a bare list of frames
        # would not be known as a video.
        is_bare = kinds == ("image",) or (kinds == ("text",) and not self._model.supports("image"))
        return loaded[kinds[0]] if is_bare else loaded


def latent_steps_of(paradigm: str, num_latent_steps: int | None = None) -> int | None:
    """K for a paradigm: what was asked for, or 0 for a single pass, a written rationale and the anchor.

    Raises:
        ValueError: an unknown paradigm, or one that contradicts K.
    """
    if paradigm not in PARADIGMS:
        raise ValueError(f"The paradigms are {', '.join(PARADIGMS)}, got {paradigm!r}.")
    if paradigm == "cot":
        if num_latent_steps:
            raise ValueError(f"cot writes a rationale instead of latent steps, got {num_latent_steps}; leave them out.")
        return 0
    if paradigm in ("single", "anchor"):
        if num_latent_steps:
            what = "A single pass has" if paradigm == "single" else "The anchor is read before any step: it has"
            raise ValueError(f"{what} no latent steps, got {num_latent_steps}; leave them out or use latent.")
        return 0
    if num_latent_steps == 0:
        raise ValueError(f"The paradigm {paradigm} needs at least one latent step; use single for none.")
    return num_latent_steps


def read_out_label(paradigm: str | None, num_latent_steps: int | None) -> str | None:
    """How a column is called that K alone does not tell: `CoT`, `anchor`, `z(3)`; None for the others."""
    return {"cot": "CoT", "anchor": "anchor", "state": f"z({num_latent_steps})"}.get(paradigm or "")


def column_name(embedder: Embedder) -> str:
    """`plume-tiny K=8`, `plume-tiny single pass`, `CoT`, `anchor`, `z(3)`; a model without steps by its name alone."""
    if embedder.num_latent_steps is None:
        return embedder.name
    steps = embedder.num_latent_steps
    plain = "single pass" if embedder.paradigm == "single" else f"K={steps}"
    return f"{embedder.name} {read_out_label(embedder.paradigm, steps) or plain}"


def check_names(embedders: Sequence[Embedder]) -> None:
    """Refuses models that a table could not tell apart.

    Raises:
        ValueError: two have one [`column_name`]: one model named twice, or two models in folders of one name.
    """
    known: dict[str, str] = {}  # fingerprints by name
    for embedder in embedders:
        name = column_name(embedder)
        if name in known and known[name] == embedder.fingerprint:
            raise ValueError(f"{name} is named twice; name it once.")
        if name in known:
            raise ValueError(f"Two models would be called {name}; give their folders names of their own.")
        known[name] = embedder.fingerprint


def _folder_name(folder: Path) -> str:
    """A name that tells models apart: that of the run where the folder is a run's `model`."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def hash_folder(folder: Path) -> str:
    """SHA-256 over names and bytes of everything in a model folder that can change a vector, as hex."""
    digest = hashlib.sha256()
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix in _CODE_AND_WEIGHTS]
    for file in sorted(files):
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}\n{content}\n".encode())
    return digest.hexdigest()
