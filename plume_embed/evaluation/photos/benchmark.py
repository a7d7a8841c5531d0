"""The benchmark of photographs as `python -m evaluation.photos.build` writes it: tasks of ranking.

captions -> photos     376 captions, 403 photographs; apart: those that name a class of ImageNet, and the others
photos -> captions     the other way round
sentences -> photos    sentences that people wrote for 46 other photographs
photos -> sentences
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plume_embed.evaluation.similarity import ranked, similarities
from plume_embed.stored import naming, read_json

FILE = "photos.json"
_REMEDY = "Build the benchmark again with `make photos`."
IN_IMAGENET, NOT_IN_IMAGENET = "captions in ImageNet -> photos", "captions not in ImageNet -> photos"


@dataclass(frozen=True)
class RankingTask:
    """Queries, candidates, and which candidates are right.

    Attributes:
        name: Of the task.
        queries, candidates: Inputs as an embedder takes them.
        gold (`list[list[int]]`): For each query its right candidates.
    """

    name: str
    queries: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    gold: list[list[int]]

    def ranks(self, query_vectors: NDArray[np.float32], candidate_vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """The rank of each query's best right candidate, from 1; of a tie the last place counts. [Q]

        Raises:
            ValueError: a query without a right candidate, or a vector that is NaN or infinite.
        """
        numbers = np.arange(len(self.candidates))
        correct = (np.isin(numbers, gold) for gold in self.gold)
        found = ranked(similarities(query_vectors, candidate_vectors), correct)
        return np.array([1 + right.argmax() for right in found], dtype=np.int64)

    def chance_ranks(self) -> NDArray[np.float64]:
        """The expected share of hits at each cut-off for a random order: [Q, C], column k - 1 for the cut-off k."""
        count = len(self.candidates)
        found = np.empty((len(self.gold), count))
        for query, gold in enumerate(self.gold):
            missed = np.ones(count + 1)
            for k in range(1, count + 1):
                missed[k] = missed[k - 1] * max(0, count - len(gold) - k + 1) / (count - k + 1)
            found[query] = 1 - missed[1:]
        return found


def read_tasks(data: Path) -> list[RankingTask]:
    """The tasks of the benchmark.

    Raises:
        ValueError: it has not been built, or its list is damaged.
    """
    content = _content(data)
    stamps, photos = content["stamps"], content["sentences"]
    captions = sorted({stamp["caption"] for stamp in stamps})
    pictures = [{"image": data / stamp["file"]} for stamp in stamps]
    texts = [{"text": caption} for caption in captions]
    of_caption = [[n for n, stamp in enumerate(stamps) if stamp["caption"] == caption] for caption in captions]
    names = {name.lower() for name in content["imagenet_names"]}
    known = [names_a_class(caption, names) for caption in captions]
    tasks = [RankingTask("captions -> photos", texts, pictures, of_caption)]
    for name, wanted in ((IN_IMAGENET, True), (NOT_IN_IMAGENET, False)):
        rows = [n for n, is_known in enumerate(known) if is_known == wanted]
        tasks.append(RankingTask(name, [texts[n] for n in rows], pictures, [of_caption[n] for n in rows]))
    place = {caption: n for n, caption in enumerate(captions)}
    tasks.append(RankingTask("photos -> captions", pictures, texts, [[place[stamp["caption"]]] for stamp in stamps]))
    sentences = [(sentence, n) for n, photo in enumerate(photos) for sentence in photo["sentences"]]
    texts, pictures = [{"text": text} for text, _ in sentences], [{"image": data / photo["file"]} for photo in photos]
    tasks.append(RankingTask("sentences -> photos", texts, pictures, [[n] for _, n in sentences]))
    of_photo = [[n for n, (_, photo) in enumerate(sentences) if photo == number] for number in range(len(photos))]
    tasks.append(RankingTask("photos -> sentences", pictures, texts, of_photo))
    return tasks


def names_a_class(caption: str, names: set[str]) -> bool:
    """Whether a caption, without article and full stop, is a name of an ImageNet class or its plural."""
    text = re.sub(r"^(a pair of|an?|the|some) ", "", caption.lower().strip(" .!"))
    return text in names or (text.endswith("s") and text[:-1] in names)


def digest(data: Path) -> str:
    """A hash of the texts and of the pictures' bytes: two people with the same one score the same benchmark."""
    content, found = _content(data), hashlib.sha256((data / FILE).read_bytes())
    for entry in content["stamps"] + content["sentences"]:
        found.update((data / entry["file"]).read_bytes())
    return found.hexdigest()[:16]


def _content(data: Path) -> dict[str, Any]:
    if not (data / FILE).is_file():
        raise ValueError(f"{data} holds no {FILE}: build the benchmark with `make photos`.")
    content = read_json(data / FILE, _REMEDY)
    with naming(data / FILE, _REMEDY):
        _check(content)
    return content


def _check(content: dict[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError if the list lacks something or holds another type."""
    for name in ("stamps", "sentences", "imagenet_names"):
        if not isinstance(content[name], list) or not content[name]:
            raise ValueError(f"{name} must be a list with something in it")
    _check_texts("imagenet_names", content["imagenet_names"])
    for stamp in content["stamps"]:
        _check_texts("file and caption of a stamp", [stamp["file"], stamp["caption"]])
    for photo in content["sentences"]:
        if not isinstance(photo["sentences"], list) or not photo["sentences"]:
            raise ValueError(
                f"sentences of a photograph must be a list of at least one text, got {photo['sentences']!r}"
            )
        _check_texts("file and sentences of a photograph", [photo["file"], *photo["sentences"]])


def _check_texts(what: str, values: list[Any]) -> None:
    wrong = [value for value in values if not isinstance(value, str) or not value]
    if wrong:
        raise ValueError(f"{what} must be texts, got {wrong[0]!r}")
