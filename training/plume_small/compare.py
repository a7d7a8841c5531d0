"""plume-small with latent steps, without, and with any number of them: several seeds on the benchmark of photographs.

    python -m training.plume_small.compare --seeds 0,1,2

Every seed runs the stages up to the last one once, and then each of the last stages on the same budget. A picture of
the benchmark goes in by its meanings, computed once, and everything is computed in float32. What the results file has
already is kept, so that the command goes on where it was, unless the benchmark, the data or the stages are others now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from plume_embed.atomic import replacing, write_json
from plume_embed.command import run_command
from plume_embed.evaluation.code import digest_of_code
from plume_embed.evaluation.photos.benchmark import RankingTask, read_tasks
from plume_embed.evaluation.photos.benchmark import digest as digest_of_photographs
from plume_embed.evaluation.photos.report import CUTOFFS
from training.ablations.tables import interval, paired_difference
from training.plume_small.data import digest_of_data, prepare
from training.plume_small.pictures import picture_meanings
from training.plume_small.tower import load_tower, maps
from training.plume_small.train import CHAINS, FINALS, WORK, Batches, train

RESULTS = Path(__file__).parent / "results" / "seeds.json"
BASELINE = "single"
# The code that makes the meanings of a picture.
_CODE = tuple(Path(__file__).with_name(name) for name in ("pictures.py", "tower.py"))


@dataclass(frozen=True)
class Side:
    """How queries and candidates are embedded: K of each."""

    queries: int
    candidates: int

    @property
    def label(self) -> str:
        """For tables."""
        same = self.queries == self.candidates
        return f"K = {self.queries}" if same else f"K = {self.queries}, documents {self.candidates}"


def sides(chain: str) -> list[Side]:
    """What a chain was trained for: each K on both sides, and where there are several the most against none."""
    numbers = FINALS[chain].num_latent_steps[-1][1]
    return [Side(k, k) for k in numbers] + ([Side(max(numbers), min(numbers))] if len(numbers) > 1 else [])


def photograph_meanings(data: Path, work: Path) -> dict[str, torch.Tensor]:
    """File -> meanings [49, S] of every picture of the benchmark, kept in `work` with the classes and the digest of the
    benchmark and of the code that they were made of."""
    file, table = work / "photographs.pt", prepare(work).table
    digest = f"{digest_of_photographs(data)} {digest_of_code(*_CODE)}"
    files = sorted({str(item["image"]) for task in read_tasks(data) for item in _pictures(task)})
    if file.exists():
        stored = torch.load(file, weights_only=True)
        is_known = (stored["files"], stored.get("digest")) == (files, digest)  # one of before had no digest
        if is_known and torch.equal(stored["table"], table):
            return dict(zip(files, stored["meanings"], strict=True))
    tower = load_tower()
    meanings = picture_meanings(list(maps(tower, (Image.open(name) for name in files))), tower.classifier, table)
    with replacing(file) as partial:
        torch.save({"files": files, "meanings": meanings, "table": table, "digest": digest}, partial)
    return dict(zip(files, meanings, strict=True))


def _pictures(task: RankingTask) -> list[dict[str, Any]]:
    return [item for item in (*task.queries, *task.candidates) if "image" in item]


def scores(
    tasks: Sequence[RankingTask], photographs: dict[str, torch.Tensor], batches: Batches, side: Side
) -> dict[str, dict[str, float]]:
    """Task -> R@1, R@5 and R@10, between 0 and 1."""
    texts = sorted({item["text"] for task in tasks for item in (*task.queries, *task.candidates) if "text" in item})
    vectors: dict[int, dict[str, NDArray[np.float32]]] = {}
    for number in {side.queries, side.candidates}:
        rows = torch.cat(
            (
                batches.texts(texts, number, torch.float32),
                batches.pictures(torch.stack(list(photographs.values())), number, torch.float32),
            )
        )
        vectors[number] = dict(zip((*texts, *photographs), rows.numpy(), strict=True))
    found = {}
    for task in tasks:
        queries, candidates = (
            np.stack([vectors[number][str(next(iter(item.values())))] for item in items])
            for number, items in ((side.queries, task.queries), (side.candidates, task.candidates))
        )
        ranks = task.ranks(queries, candidates)
        found[task.name] = {f"R@{k}": round(float((ranks <= k).mean()), 4) for k in CUTOFFS}
    return found


def summary(runs: dict[str, dict[str, dict[str, dict[str, float]]]]) -> dict[str, Any]:
    """Row -> task -> measure -> mean over seeds with Student's interval, and the paired difference to a single pass;
    `None` where no seed has both.

    Args:
        runs: Row, seed, task, measure.
    """
    plain = next((runs[row] for row in runs if row.startswith(BASELINE)), {})
    found: dict[str, Any] = {}
    for row, by_seed in runs.items():
        for task, measures in next(iter(by_seed.values())).items():
            for measure in measures:
                values, others = (
                    {int(seed): found_[task][measure] for seed, found_ in own.items()} for own in (by_seed, plain)
                )
                mean, low, high = interval(list(values.values()))
                numbers = {"mean": mean, "low": low, "high": high, "difference": paired_difference(values, others)}
                found.setdefault(row, {}).setdefault(task, {})[measure] = numbers
    return found


def markdown(report: dict[str, Any], task: str = "captions -> photos") -> str:
    """Means over the seeds in percent, Student's intervals where there are several, differences to a single pass."""
    lines = ["| last stage, K | seeds | R@1 | R@5 | R@10 | R@10 over a single pass |", "|---|---:|---:|---:|---:|---:|"]
    for row, tasks in report["summary"].items():
        found = tasks[task]
        shown = [_percent(found[f"R@{k}"]) for k in CUTOFFS]
        difference = found[f"R@{CUTOFFS[-1]}"]["difference"]
        over = "" if row.startswith(BASELINE) or difference is None else _percent(difference, sign="+")
        lines.append(f"| {row} | {len(report['runs'][row])} | {' | '.join([*shown, over])} |")
    return "\n".join(lines)


def _percent(numbers: dict[str, Any], sign: str = "") -> str:
    mean, low, high = (numbers[name] for name in ("mean", "low", "high"))
    interval_ = "" if low is None else f" [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
    return f"{100 * mean:{sign}.1f}{interval_}"


def digest_of_run(chain: str, photographs: str, data: str) -> str:
    """What changes when a run's figures may.

    Args:
        chain: Its stages.
        photographs, data: Digests of the benchmark, and of what is trained on.
    """
    facts = (photographs, data, [asdict(stage) for stage in CHAINS[chain]])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read_report(file: Path) -> dict[str, Any]:
    """The `runs` of a results file, and of each how it was `made`; of a file that is older, as far as it says."""
    held = json.loads(file.read_text()) if file.exists() else {"runs": {}, "made": {}}
    if "made" not in held:
        about = {"device": held["device"], "torch": held["torch"]}
        held["made"] = {row: dict.fromkeys(seeds, about) for row, seeds in held["runs"].items()}
    return {"runs": held["runs"], "made": held["made"]}


def check_others(
    made: dict[str, dict[str, Any]], asked: Sequence[tuple[str, str]], digests: dict[str, str], file: Path
) -> None:
    """Refuses to put what is asked for, as (seed, chain), beside runs that were made from something else.

    Raises:
        ValueError: the file holds such a run.
    """
    for row, by_seed in made.items():
        chain = row.partition(",")[0]
        for seed, entry in by_seed.items():
            if (seed, chain) not in asked and entry.get("digest", digests[chain]) != digests[chain]:
                raise ValueError(
                    f"{file} holds seed {seed} of {row!r} from another benchmark, other data or other stages; ask for "
                    "it as well, or give another --json."
                )


def write_report(file: Path, report: dict[str, Any]) -> None:
    """Writes the runs, and then the summary beside them: whatever becomes of that, no run is lost."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, report)
    write_json(file, report | {"summary": summary(report["runs"])})


def main(
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0,1,2",
    chains: Annotated[str, typer.Option(help="Last stages, with commas.")] = ",".join(FINALS),
    data: Annotated[Path, typer.Option(help="What `make photos` wrote.")] = Path(".data/photos"),
    work: Annotated[Path, typer.Option(help="Where data and states are kept.")] = WORK,
    device: Annotated[str, typer.Option(help="A device of torch.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Of the processor.")] = 1,
    to: Annotated[Path, typer.Option("--json", help="Results file.")] = RESULTS,
) -> None:
    """Train what is not trained yet, rank, and write the results."""
    torch.set_num_threads(threads)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    tasks, photographs = read_tasks(data), photograph_meanings(data, work)
    digests = digest_of_photographs(data), digest_of_data(work)
    report = read_report(to)
    runs, made = report["runs"], report["made"]
    by_chain = {chain: digest_of_run(chain, *digests) for chain in FINALS}
    asked = [(seed, chain) for seed in seeds.split(",") for chain in chains.split(",")]
    check_others(made, asked, by_chain, to)
    for seed, chain in asked:
        digest = by_chain[chain]
        entries = [made.get(f"{chain}, {side.label}", {}).get(seed) for side in sides(chain)]
        if all(entry is not None and entry.get("digest", digest) == digest for entry in entries):
            continue
        model, processor = train(int(seed), chain, work, device)
        batches = Batches(prepare(work), model, processor, int(seed))
        for side in sides(chain):
            row = f"{chain}, {side.label}"
            runs.setdefault(row, {})[seed] = scores(tasks, photographs, batches, side)
            made.setdefault(row, {})[seed] = {"digest": digest, "device": device, "torch": torch.__version__}
            shown = runs[row][seed][tasks[0].name]
            console.print(f"seed {seed}, {row}: {', '.join(f'{100 * v:.1f}' for v in shown.values())}")
        write_report(to, report)
    write_report(to, report)


if __name__ == "__main__":
    run_command(main)
