"""The tab "About": what is served, how it was trained and what was measured, out of files; no figure is typed here."""

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from plume_embed.encode.encoder import DEFAULT_MODEL, DRAWINGS_MODEL, Encoder, fingerprint
from plume_embed.evaluation.miniature.stills import TRAIN_STYLES

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "evaluation" / "results"
# Names of settings -> their labels; those which a run does not have are left out.
_SETTINGS = {
    "learning_rate": "highest learning rate",
    "task": "task",
    "max_steps": "optimiser steps",
    "steps": "optimiser steps",
    "batch_size": "batch",
    "stages": "curriculum stages",
    "shares": "shares of the stages",
    "num_latent_steps": "latent steps K",
    "rollout_share": "share of steps with the rollout",
    "temperature": "temperature",
    "seed": "seed",
}
_COSTS = {
    "wall_minutes": "minutes by the clock",
    "cpu_minutes_per_process": "CPU minutes of each process",
    "world_size": "processes",
    "processes": "processes",
    "train_minutes": "minutes by the clock",
    "train_cpu_minutes": "CPU minutes of the main process",
    "torch": "PyTorch",
}


_LIMITS = {
    "plume-small": "plume-small is small enough to be trained and run on a processor. It joins an image encoder that "
    "was trained on ImageNet to a distilled text model, without a captioned photograph. It knows things by their "
    "English names, and is weak at scenes, relations, people and text in pictures.",
    "plume-tiny": "plume-tiny is small enough to be trained and run on a processor. It was trained on drawings of "
    "everyday things, in pictures, clips and scenes, and on texts about them, and knows no photographs. It once learnt "
    "to write rationales, but most of its training was of latent steps, and what is left of its words makes little "
    "sense. The method is meant for backbones that are a thousand times larger; set <code>PLUME_MODEL</code> to serve "
    "one.",
    "plume-tiny-anytime": "plume-tiny-anytime is plume-tiny after some more training, in which its embedding was also "
    "read after fewer latent steps and what is searched was embedded in a single pass. Like plume-tiny it was trained "
    "on drawings of everyday things and texts about them, knows no photographs, and writes no rationale that makes "
    "sense.",
}
_BUNDLED = (DEFAULT_MODEL, DRAWINGS_MODEL, DRAWINGS_MODEL.with_name("plume-tiny-anytime"))


def about(encoder: Encoder) -> str:
    """HTML about the model that is served."""
    own = fingerprint(encoder.folder)
    folders = [folder for folder in _BUNDLED if folder.is_dir()]
    bundled = next((folder.name for folder in folders if fingerprint(folder) == own), "")
    results = _RESULTS[bundled](RESULTS)
    parts = [
        _what_it_is(encoder, bundled),
        _training(encoder.folder),
        "<h2>Measured results</h2>",
        "".join(results)
        or "<p>No measured results are bundled for this model; those of other models would say nothing about it.</p>",
        f"<h2>Limits</h2><p>{_LIMITS[bundled]}</p>" if bundled else "",
        _privacy(),
        _citation(),
    ]
    return f'<div class="prose">{"".join(parts)}</div>'


def _what_it_is(encoder: Encoder, bundled: str) -> str:
    config, model = encoder.model.config, encoder.model
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    name = f"{bundled}, a model of this repository" if bundled else encoder.folder.name
    experts = ""
    if config.adapter_type == "moe":
        experts = (
            f" Between two steps an adapter refines the state: {config.num_experts} experts, of which a router that is "
            f"steered by a semantic anchor chooses {config.num_experts_per_tok}"
            f"{', and one that is always there' if config.use_shared_expert else ''}."
        )
    return (
        "<h2>What this is</h2><p>PLUME maps texts, pictures, films, documents and their combinations into one space, "
        "in which what belongs together lies close. Before the embedding is read, the model writes no rationale: it "
        f"takes K = {config.num_latent_steps} <em>latent steps</em>, hidden states that are fed back through the "
        f"model.{experts}</p>"
        + _list(
            {
                "model": name,
                "backbone": config.backbone_config.model_type,
                "parameters": f"{millions:,.1f} million",
                "size of a vector": f"{encoder.dimension}",
                "computed on": f"{encoder.device.type}, {str(model.dtype).removeprefix('torch.')}",
            }
        )
    )


def _training(folder: Path) -> str:
    runs: list[dict[str, Any]] = []
    for name in ("training.json", "results.json"):
        file = folder / name
        if file.is_file():
            record = json.loads(file.read_text())
            runs += record.get("runs") or record.get("stages") or [record]
    runs_shown = [(run.get("name", "run"), values) for run in runs if (values := _run(run))]
    head = "<h2>How it was trained</h2>"
    if not runs_shown:
        return f"{head}<p>No training record lies beside the weights.</p>"
    if len(runs_shown) == 1:
        return f"{head}<p>As the record beside the weights says:</p>{_list(runs_shown[0][1])}"
    settings = dict.fromkeys(name for _, values in runs_shown for name in values)
    rows = [[name, *(values.get(name, "–") for _, values in runs_shown)] for name in settings]
    return head + _table(
        f"As the record beside the weights says, in {len(runs_shown)} runs, each of which went on from the one before",
        ["", *(name for name, _ in runs_shown)],
        rows,
    )


def _run(run: dict[str, Any]) -> dict[str, str]:
    recipe = run.get("recipe") or run.get("settings") or run
    return _named(recipe | recipe.get("curriculum", {}), _SETTINGS) | _named(run, _COSTS)


def _of_drawings(folder: Path) -> list[str]:
    """What was measured of plume-tiny."""
    parts = []
    for file in sorted(folder.glob("plume-tiny*.json")):
        data = json.loads(file.read_text())
        if data.get("benchmark") == "miniature":
            parts.append(_miniature(data))
        elif "with_country_flags" in data:
            parts.append(_stills(data["with_country_flags"]))
        elif "names_hit_at_1" in data:
            parts.append(_examples(data))
    return parts


def _of_photographs(folder: Path) -> list[str]:
    """What was measured of plume-small."""
    file = folder / "photographs.json"
    if not file.is_file():
        return []
    models = json.loads(file.read_text())["models"]
    plume = [one for one in models if one["model"] == "plume-small"]
    scores = max(plume, key=lambda one: one["num_latent_steps"])["scores"]
    rows = [
        [task.replace("->", "→"), *(_interval(found[f"R@{k}"]) for k in (1, 5, 10))] for task, found in scores.items()
    ]
    return [
        _table(
            "Photographs that were never trained on: percent found among the first K, with 95 % intervals (bootstrap "
            "over queries)",
            ["task", "R@1", "R@5", "R@10"],
            rows,
        )
    ]


def _of_any_steps(folder: Path) -> list[str]:
    """What was measured of plume-tiny-anytime, beside plume-tiny."""
    file = folder / "anytime.json"
    if not file.is_file():
        return []
    rows = [
        [f"{name.replace('->', '→')}, {model}", *(f"{hit:.1f}" for hit in hits)]
        for name, models in json.loads(file.read_text()).items()
        for model, hits in models.items()
    ]
    return [
        _table(
            "Hit@1 in percent by the number K of latent steps of a query, on drawings, clips and scenes",
            ["", *(f"K = {k}" for k in range(len(rows[0]) - 1))],
            rows,
        )
    ]


_RESULTS: dict[str, Callable[[Path], list[str]]] = {
    "plume-small": _of_photographs,
    "plume-tiny": _of_drawings,
    "plume-tiny-anytime": _of_any_steps,
    "": lambda _: [],
}


def _miniature(data: dict[str, Any]) -> str:
    models = data["models"]
    groups = [name for name in models[0]["means"] if any(model["means"][name] for model in models)]
    rows = [[name, *(_interval(model["means"][name]) for model in models)] for name in groups]
    return _table(
        "The miniature benchmark: percent, with 95 % intervals (bootstrap over queries)",
        ["", *(model["model"] for model in models)],
        rows,
    )


def _stills(results: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"{one['task'].replace('->', '→')}, {one['split']} concepts",
            f"{one['pool']:,}",
            f"{100 * one['hit_at_1']:.1f}",
            f"{100 * one['hit_at_5']:.1f}",
            f"{100 * one['thumbnail_hit_at_1']:.1f}",
        ]
        for one in results
    ]
    return _table(
        "Emoji pictures in a style that was never trained on; “unseen” concepts were held out. The last column is the "
        "nearest 16 x 16 thumbnail, a baseline without any model",
        ["task", "pool", "Hit@1 %", "Hit@5 %", "thumbnails Hit@1 %"],
        rows,
    )


def _examples(data: dict[str, Any]) -> str:
    first = sum(rank == 1 for rank in data["query_ranks"].values())
    return (
        f"<p>Of the {data['pictures']} bundled pictures {100 * data['names_hit_at_1']:.0f} % are found first by their "
        f"name, {100 * data['names_hit_at_5']:.0f} % among the first five ({_by_style(data)}); "
        f"of {len(data['query_ranks'])} query pictures in another style {first} find theirs first.</p>"
    )


def _by_style(data: dict[str, Any]) -> str:
    return "; ".join(
        f"of {own['pictures']} in {style}, a style {'of training' if style in TRAIN_STYLES else 'never trained on'}: "
        f"{100 * own['names_hit_at_1']:.0f} % and {100 * own['names_hit_at_5']:.0f} %"
        for style, own in data["by_style"].items()
    )


def _privacy() -> str:
    return (
        "<h2>Your files</h2><p>What you add under “Your own files” is read once, in a process of its own, and deleted "
        "from the disk at once; its vectors and small pictures stay in memory until you leave the page, or have done "
        "nothing here for long: how long is said there. Nobody else can search them. A picture or film for the query "
        "that was never searched, or was put in twice, is deleted within 20 minutes. Nothing is sent anywhere.</p>"
    )


def _citation() -> str:
    return (
        "<h2>Citation</h2><p>The method: He et al., <em>PLUME: Latent Reasoning Based Universal Multimodal "
        "Embedding</em>, arXiv 2604.02073, 2026. This implementation: plume-embed, Apache-2.0; see CITATION.cff. The "
        "bundled drawings are Twemoji (CC-BY-4.0), Noto Emoji (Apache-2.0) and Fluent Emoji (MIT); the sources of the "
        "photographs are in examples/photographs/NOTICE.</p>"
    )


def _named(values: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    found = {}
    for key, name in names.items():
        value = values.get(key)
        if value is not None:
            found[name] = _written(value)
    return found


def _written(value: Any) -> str:
    """A setting as people write it; of (step, value) pairs the values."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(str(entry[-1] if isinstance(entry, list) else entry) for entry in value)
    return f"{value:,.1f}" if isinstance(value, float) and value >= 10 else f"{value}"


def _interval(value: list[float] | None) -> str:
    if value is None:
        return "–"
    mean, low, high = (f"{100 * number:.1f}" for number in value)
    return f"{mean} [{low}, {high}]"


def _list(entries: dict[str, str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(name)}: {escape(value)}</li>" for name, value in entries.items()) + "</ul>"


def _table(caption: str, head: list[str], rows: list[list[str]]) -> str:
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<p>{escape(caption)}.</p><div class="scrolls" tabindex="0" role="region" aria-label="results"><table>'
        f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
