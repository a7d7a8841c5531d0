"""What can be searched: collections, each with its model and its prepared queries, from `space/corpora.json`.

The first of the list is the default, and the only one on offer where the list has no other.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from plume_embed.encode.encoder import Encoder, fingerprint
from space.content.collection import Collection
from space.content.items import Item
from space.settings import Settings

ROOT = Path(__file__).parent.parent.parent
CORPORA = ROOT / "space" / "corpora.json"


@dataclass(frozen=True)
class PreparedQuery:
    """A query that can be tried with one click, or that a test asks.

    Args:
        label (`str`): What its button says.
        concept (`str`): What the first result must show.
        text, image, video (`str`): Its parts, "" for none; media relative to the checkout.
        example (`bool`): Whether it has a button.
    """

    label: str
    concept: str
    text: str
    image: str
    video: str
    example: bool

    @property
    def kind(self) -> str:
        """text, image, video or combination."""
        parts = [name for name in ("text", "image", "video") if getattr(self, name)]
        return parts[0] if len(parts) == 1 else "combination"

    def is_right(self, item: Item) -> bool:
        """Whether an item shows the concept: a picture or a film by its name, a page by its heading."""
        if item.kind == "page":
            return item.text.lower().startswith(self.concept)
        return item.label.lower() == self.concept


@dataclass(frozen=True)
class CorpusSpec:
    """An entry of `corpora.json`.

    Args:
        id, label (`str`): For addresses, and for people.
        model (`str`): Folder of its model, relative to the checkout; PLUME_MODEL takes its place.
        knows (`str`): A sentence that says what the model was trained on; shown while its own model serves it.
        placeholder (`str`): A query that a visitor might type.
        folders (`dict`): Folders of the checkout -> folders of the collection.
        queries (`str`): JSON with the prepared queries.
        first (`str`): Label of the prepared query that a visitor sees first.
    """

    id: str
    label: str
    model: str
    knows: str
    placeholder: str
    folders: dict[str, str]
    queries: str
    first: str

    @cached_property
    def prepared(self) -> list[PreparedQuery]:
        """All prepared queries."""
        return [PreparedQuery(**entry) for entry in json.loads((ROOT / self.queries).read_text())]

    @property
    def examples(self) -> list[PreparedQuery]:
        """Those with a button, in a fixed order."""
        return [query for query in self.prepared if query.example]

    @property
    def first_query(self) -> PreparedQuery:
        """The one that has already run when a visitor comes."""
        return next(query for query in self.prepared if query.label == self.first)


class Corpus:
    """A collection with the model that embedded it.

    Args:
        spec ([`CorpusSpec`])
        encoder ([`Encoder`])
        data (`Path`): Where the index is kept.

    Attributes:
        collection ([`Collection`]): Call its `start` or `build`.
        can_write (`bool`, *optional*): Whether the model writes rationales, once that was found out.
    """

    def __init__(self, spec: CorpusSpec, encoder: Encoder, data: Path):
        self.spec, self.encoder = spec, encoder
        self.collection = Collection(encoder, data, spec.id, {ROOT / a: b for a, b in spec.folders.items()})
        self.can_write: bool | None = None
        self.lock = threading.Lock()

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def max_steps(self) -> int:
        """The slider's end: K of the model, or 8 where it can run more."""
        return min(8, self.encoder.model.config.num_step_embeddings)

    @property
    def default_steps(self) -> int:
        """K where nobody chooses."""
        return min(self.encoder.latent_steps(), self.max_steps)

    def check_steps(self, num_latent_steps: int) -> None:
        """Raises ValueError unless the model can run this many."""
        if not 0 <= num_latent_steps <= self.max_steps:
            raise ValueError(f"Latent steps go from 0 to {self.max_steps}, got {num_latent_steps}.")

    @property
    def model_line(self) -> str:
        """What the model knows, for the place where people type."""
        if self.has_own_model:
            return self.spec.knows
        return f"{self.encoder.folder.name} is served here; what it knows depends on its training."

    @property
    def steps_line(self) -> str:
        """What the slider of latent steps chooses."""
        steps, trained = self.encoder.document_latent_steps(), self.encoder.model.config.anytime_steps
        collection = f"with {steps} latent steps" if steps else "in a single pass"
        numbers = sorted({*(trained or []), self.default_steps})
        served = f" The model was trained for K = {', '.join(map(str, numbers))}." if trained else ""
        return f"0 reads the embedding at once: a single pass. The collection was embedded {collection}.{served}"

    @cached_property
    def has_own_model(self) -> bool:
        """Whether the model is the one that the collection comes with."""
        own = ROOT / self.spec.model
        return own.is_dir() and fingerprint(own) == fingerprint(self.encoder.folder)


def read_specs(path: Path = CORPORA) -> list[CorpusSpec]:
    """The collections on offer, the default first."""
    return [CorpusSpec(**entry) for entry in json.loads(path.read_text())]


def load_corpora(settings: Settings, model: str | None, specs: Sequence[CorpusSpec] | None = None) -> list[Corpus]:
    """Every collection with its model; collections with the same model share it.

    Args:
        settings ([`Settings`])
        model (`str`, *optional*): Folder or Hub id of a model that serves all of them.
        specs: By default those of `corpora.json`.

    Raises:
        ValueError: a model is missing or damaged, with the remedy.
    """
    encoders: dict[str, Encoder] = {}
    corpora = []
    for spec in specs or read_specs():
        name = model or str(ROOT / spec.model)
        if name not in encoders:
            encoders[name] = Encoder(name)
        corpora.append(Corpus(spec, encoders[name], settings.data))
    return corpora
