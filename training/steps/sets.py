"""What the diagnostics are run on: a model with queries, candidates and right answers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plume_embed.encode.encoder import fingerprint, load_model
from plume_embed.evaluation.miniature.media import MediaStore
from plume_embed.evaluation.miniature.schema import Task as MiniatureTask
from plume_embed.evaluation.miniature.schema import digest_of, read_tasks
from plume_embed.evaluation.photos.benchmark import digest as digest_of_photographs
from plume_embed.evaluation.photos.benchmark import read_tasks as read_photograph_tasks
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.training.recipe import recipe_from
from plume_embed.training.tasks import make_task
from plume_embed.training.trainer import load_weights
from training.scene_hops.scenes import queries_over_one_scene

# Of the miniature, of known concepts: a task of each of five kinds, none with thousands of candidates. plume-tiny is
# far above the best guess (in the results of the miniature) on all but "how many", where it is level with it.
MINIATURE_TASKS = (
    "I-RET/text to picture",
    "I-QA/subgroup",
    "I-QA/how many",
    "V-QA/subgroup",
    "V-RET/text to clip hard",
)

PHOTOGRAPH_TASK = "captions -> photos"
IN_TWOS = ", two instructions a picture"  # behind the name of a set whose neighbours ask one picture


@dataclass(frozen=True)
class DiagnosticSet:
    """Queries, candidates, and which candidates are right.

    Args:
        name (`str`): Of the set.
        queries, candidates: Items for PlumeProcessor.
        gold (`list[list[int]]`): For each query its right candidates.
        document_latent_steps (`int`): K of the candidates.
        depths (`list[int]`, *optional*): For each query how many steps of the rationale its answer needs.
        others (`list[int]`, *optional*): For each query the one, with another answer, whose latents it is given.
            `None`: see `other_queries`.
        pools (`list[list[int]]`, *optional*): For each query the candidates that it is ranked against, its right ones
            among them. `None`: all of them.
        source (`str`): A hash of what the items were made of.
    """

    name: str
    queries: Sequence[Any]
    candidates: Sequence[Any]
    gold: list[list[int]]
    document_latent_steps: int
    depths: list[int] | None = None
    others: list[int] | None = None
    pools: list[list[int]] | None = None
    source: str = ""

    @property
    def digest(self) -> str:
        """What changes when a figure of the set may: results of two digests do not compare."""
        facts = (self.gold, self.document_latent_steps, self.depths, self.others, self.pools, self.source)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Loaded:
    """A model, the fingerprint of its files, and what it is diagnosed on."""

    name: str
    model: PlumeModel
    processor: PlumeProcessor
    sets: list[DiagnosticSet]
    weights: str = ""


def sets_of_run(folder: Path) -> list[str]:
    """Names of the sets that a run is diagnosed on: its task, and for `scene_hops` also two instructions a picture."""
    task = folder.parent.name
    return [task, f"{task}{IN_TWOS}"] if task == "scene_hops" else [task]


def of_run(folder: Path, count: int) -> Loaded:
    """A finished run of `hops`, `hops_mixed` or `scene_hops` with the first test queries, in the sets of
    [`sets_of_run`].

    Args:
        folder (`Path`): The run's output folder.
        count (`int`): Queries.

    Raises:
        ValueError: the run has not ended, or is one of a rival.
    """
    if not (folder / "results.json").is_file():
        raise ValueError(f"{folder} has no results.json: the run has not ended; go on with --resume.")
    recipe = recipe_from(json.loads((folder / "results.json").read_text())["recipe"])
    if "rollout" in recipe.model.plume:
        raise ValueError(f"{folder} is a run of a rival; its positions are no latent steps, one behind the other.")
    task = make_task(recipe)
    found = []
    for name in sets_of_run(folder):
        in_twos = name.endswith(IN_TWOS)
        queries = queries_over_one_scene(count) if in_twos else task.data.held_out_queries(count, recipe.split)
        found.append(
            DiagnosticSet(
                name=name,
                queries=[query.item() for query in queries],
                candidates=list(task.data.NAMES),
                gold=[[query.final] for query in queries],
                document_latent_steps=task.target_latent_steps,
                depths=[query.depth for query in queries],
                others=[place ^ 1 for place in range(count)] if in_twos else None,
            )
        )
    model = task.make_model()
    load_weights(model, folder / "model")
    return Loaded(folder.name, model.eval(), task.processor, found, fingerprint(folder / "model"))


def of_checkpoint(folder: Path, pictures: Path, miniature: Path | None, photographs: Path | None, count: int) -> Loaded:
    """A bundled model with named pictures, and with tasks of the benchmarks that have been built.

    Args:
        pictures (`Path`): What is searched by name: a folder with `concepts.json` beside `pictures/`, or of pictures
            whose file names are what they show.
        miniature (`Path`, *optional*): What `make miniature` wrote.
        photographs (`Path`, *optional*): What `make photos` wrote: captions to photographs.
        count (`int`): Most queries of a task; of more a sample is drawn.
    """
    model = load_model(folder).eval()
    of_documents = model.config.document_latent_steps
    steps = model.config.num_latent_steps if of_documents is None else of_documents
    sets = [named_pictures(pictures, steps)]
    if miniature is not None:
        store = MediaStore(miniature)
        tasks = [task for task in read_tasks(miniature) if task.name in MINIATURE_TASKS and task.concepts == "known"]
        sets += [_of_miniature(task, store, steps, count) for task in tasks]
    if photographs is not None:
        task = next(task for task in read_photograph_tasks(photographs) if task.name == PHOTOGRAPH_TASK)
        rows = sampled(len(task.queries), count)
        queries, gold = ([given[row] for row in rows] for given in (task.queries, task.gold))
        source = f"{digest_of_photographs(photographs)} {rows}"
        sets.append(DiagnosticSet(task.name, queries, task.candidates, gold, steps, source=source))
    return Loaded(folder.name, model, PlumeProcessor.from_pretrained(folder), sets, fingerprint(folder))


def sampled(total: int, count: int) -> list[int]:
    """`count` of `total` numbers, drawn by a fixed seed, ascending; all of them if there are no more."""
    return sorted(np.random.default_rng(0).choice(total, size=min(count, total), replace=False).tolist())


def named_pictures(folder: Path, steps: int) -> DiagnosticSet:
    """Each picture of a folder searched by its name among all of them."""
    if (folder / "concepts.json").is_file():
        concepts = json.loads((folder / "concepts.json").read_text())
        files = [folder / "pictures" / concept["file"] for concept in concepts]
        names = [concept["label"] for concept in concepts]
    else:
        files = sorted(file for file in folder.iterdir() if file.suffix in (".jpg", ".png"))
        names = [file.stem.replace("_", " ") for file in files]
    source = hashlib.sha256(json.dumps(names).encode())
    for file in files:
        source.update(file.read_bytes())
    gold = [[n] for n in range(len(files))]
    return DiagnosticSet("names -> pictures", names, files, gold, steps, source=source.hexdigest())


def _of_miniature(task: MiniatureTask, store: MediaStore, steps: int, count: int) -> DiagnosticSet:
    rows = sampled(len(task.queries), count)
    queries = [task.queries[row] for row in rows]
    pools = [list(query.pool or range(len(task.candidates))) for query in queries]
    return DiagnosticSet(
        name=task.name,
        queries=[store.model_input(query.side) for query in queries],
        candidates=[store.model_input(side) for side in task.candidates],
        gold=[list(query.positives) for query in queries],
        document_latent_steps=steps,
        pools=pools,
        source=f"{digest_of([task])} {rows}",
    )
