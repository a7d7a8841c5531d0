"""Prints what each prepared query finds first: `python -m space.tools.check_queries [MODEL]`. 1: one falls short.

The list, space/queries.json, is what visitors can try with one click (those marked as examples) and what the tests ask.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from space.content.items import Hit, Item
from space.service import Service, Upload
from space.trace import finish

ROOT = Path(__file__).parent.parent.parent
ENOUGH_OF_TEN = 8


@dataclass(frozen=True)
class Query:
    """A prepared query.

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
        shown = item.text if item.kind == "page" else item.label
        return shown.lower().startswith(self.concept) if item.kind == "page" else shown.lower() == self.concept


def prepared() -> list[Query]:
    """All of them."""
    return [Query(**entry) for entry in json.loads((ROOT / "space" / "queries.json").read_text())]


def ask(service: Service, query: Query) -> list[Hit]:
    """What a query finds."""
    image, video = (Upload(ROOT / name, Path(name).name) if name else None for name in (query.image, query.video))
    steps = min(service.encoder.latent_steps(), service.max_steps)
    result = finish(service.query("check", query.text, image, video, steps))
    service.sessions.of("check").uploads.clear()  # these files are ours
    return result.hits


def main() -> None:
    import tempfile

    from plume_embed.encode.encoder import Encoder
    from space.settings import Settings

    model = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Settings(data=Path(folder) / "data"), Encoder(model), Path(folder) / "uploads")
        service.collection.build()
        right: dict[str, list[bool]] = {}
        for query in prepared():
            hits = ask(service, query)
            rank = next((place for place, hit in enumerate(hits, start=1) if query.is_right(hit.item)), None)
            right.setdefault(query.kind, []).append(rank == 1)
            first = ", ".join(f"{hit.item.name} {hit.score:.3f}" for hit in hits[:3])
            print(f"{'ok  ' if rank == 1 else 'MISS'} {query.label:36s} {'*' if query.example else ' '} {first}")
    for kind, found in right.items():
        print(f"{kind}: {sum(found)} of {len(found)} first")
    if any(10 * sum(found) < ENOUGH_OF_TEN * len(found) for found in right.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
