"""Scores of the miniature kept by model, so that a table of several models need not embed them all in one go."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from plume_embed.atomic import write_json
from plume_embed.encode.rationale import Written
from plume_embed.evaluation.code import digest_of_code
from plume_embed.evaluation.embedders import Embedder
from plume_embed.evaluation.miniature.media import files_of_media
from plume_embed.evaluation.miniature.run import Contestant
from plume_embed.evaluation.miniature.schema import Task, digest_of
from plume_embed.stored import naming, read_json

_REMEDY = "Remove it: the model is then embedded again."
_HERE = Path(__file__).parent
# The code that makes scores of vectors; that of the vectors is part of an embedder's fingerprint.
_CODE = (
    *(_HERE.parent / "similarity.py", _HERE.parent / "metrics"),
    *(_HERE / f"{name}.py" for name in ("media", "run", "schema", "score")),
)


class ScoreStore:
    """Finished scores below a folder: a file a model, paradigm and number of steps.

    A file counts only for the very weights, data, tasks and code that it was made of. Latencies are not kept: they
    compare within one process alone.

    Args:
        folder: Where the files are.
        data: What `make miniature` wrote.
        tasks: The tasks that are evaluated, in this order.
    """

    def __init__(self, folder: Path, data: Path, tasks: Sequence[Task]) -> None:
        self.folder = folder
        found = hashlib.sha256(f"{digest_of(tasks)} {digest_of_code(*_CODE)}".encode())
        for file in files_of_media(data):
            with file.open("rb") as opened:
                found.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
        self._of = found.hexdigest()

    def _file(self, embedder: Embedder) -> Path:
        key = f"{embedder.name}\n{embedder.fingerprint}\n{embedder.paradigm}\n{embedder.num_latent_steps}\n{self._of}"
        return self.folder / f"{embedder.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def read(self, embedder: Embedder) -> Contestant | None:
        """The scores of this model; None if it has not been evaluated, or with failures.

        Raises:
            ValueError: a file that is damaged.
        """
        file = self._file(embedder)
        if not file.is_file():
            return None
        kept = read_json(file, _REMEDY)
        with naming(file, _REMEDY):
            kept["scores"] = {int(task): np.array(scores, np.float64) for task, scores in kept["scores"].items()}
            if any(scores.ndim != 2 or scores.shape[1] != 2 for scores in kept["scores"].values()):
                raise ValueError("scores must be two numbers for each query")
            kept["written"] = None if kept["written"] is None else Written(**kept["written"])
            return Contestant(**kept)

    def write(self, embedder: Embedder, contestant: Contestant) -> None:
        """Keeps the scores, unless a task failed: it may be mended."""
        if contestant.failures:
            return
        kept = asdict(contestant) | {"ms_per_item": {}}
        kept["scores"] = {task: scores.tolist() for task, scores in contestant.scores.items()}
        write_json(self._file(embedder), kept, indent=None)
