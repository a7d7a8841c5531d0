"""Prepared queries on the page: their pictures, their files, their addresses, and what an address asks for."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from PIL import Image

from plume_embed.model.videos_plume import sample_frames
from space.content.corpora import ROOT, Corpus, PreparedQuery
from space.content.thumbnails import thumbnail
from space.content.uploads import Upload
from space.service import Service


@dataclass(frozen=True)
class Request:
    """What an address asks for.

    Args:
        corpus ([`Corpus`])
        example ([`PreparedQuery`], *optional*): A prepared query.
        text (`str`): Else a text.
        num_latent_steps (`int`): K.
    """

    corpus: Corpus
    example: PreparedQuery | None
    text: str
    num_latent_steps: int


class Examples:
    """The prepared queries of all collections.

    Args:
        service ([`Service`])
    """

    def __init__(self, service: Service):
        self.service = service
        self._folder = service.sessions.examples_folder

    def thumbnails(self, corpus: Corpus) -> list[str | None]:
        """A data address for each example with a picture or a film."""
        return [_thumbnail(query) for query in corpus.spec.examples]

    def file(self, name: str) -> Path | None:
        """A copy of a medium in the upload folder, the only folder that is served; `None` for ""."""
        if not name:
            return None
        copy = self._folder / Path(name).suffix.lstrip(".") / Path(name).name
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
        return copy

    def link(self, corpus: Corpus, text: str, image: Upload | None, video: Upload | None, steps: int) -> str:
        """The query string that repeats a search; "" where a private file is part of it."""
        shared: dict[str, str | int] = {}
        if image is None and video is None:
            shared["q"] = text.strip()
        else:
            asked = (text.strip(), *(upload and upload.path for upload in (image, video)))
            found = (q for q in corpus.spec.prepared if (q.text, self.file(q.image), self.file(q.video)) == asked)
            example = next(found, None)
            if example is None:
                return ""
            shared["example"] = slug(example)
        if steps != corpus.default_steps:
            shared["k"] = steps
        if corpus is not self.service.corpora[0]:
            shared["c"] = corpus.id
        return urlencode(shared)

    def request(self, address: str) -> Request:
        """What the query string of an address asks for; the collection's first query where it asks for nothing.

        Raises:
            ValueError: it names what is not there.
        """
        given = {name: values[0] for name, values in parse_qs(address.lstrip("?")).items()}
        corpus = self.service.corpus(given.get("c"))
        steps = given.get("k", str(corpus.default_steps))
        if not steps.isdecimal():
            raise ValueError(f"The address asks for {steps} latent steps, which is no number.")
        corpus.check_steps(int(steps))  # before a field holds what it cannot
        if given.get("q"):
            return Request(corpus, None, given["q"], int(steps))
        example = corpus.spec.first_query
        if "example" in given:
            example = next((query for query in corpus.spec.prepared if slug(query) == given["example"]), None)
            if example is None:
                raise ValueError("The address names an example that is not there (any more).")
        return Request(corpus, example, example.text, int(steps))


def slug(query: PreparedQuery) -> str:
    """The name of a prepared query in an address."""
    return re.sub(r"\W+", "-", query.label.lower())


def _thumbnail(query: PreparedQuery) -> str | None:
    if query.image:
        with Image.open(ROOT / query.image) as picture:
            return thumbnail({"image": picture.convert("RGB")})
    if query.video:
        frames, _ = sample_frames(ROOT / query.video, 4)
        return thumbnail({"video": frames})
    return None
