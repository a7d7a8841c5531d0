"""The figures of the documents, written from the committed results: `python -m docs.tables` writes, `--check` compares.
The plots are drawn with them (`plots.py`).

A table of a page stands between `<!-- table: NAME -->` and `<!-- end -->` and is made by the function of that name in
TABLES. What the prose says in numbers is in `figures.py`.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from docs.committed import H100, INTEL_2_80_GHZ, ROOT, model_named, read
from docs.figures import figures
from docs.plots import PLOTS, drawn, is_same, version_of
from plume_embed.atomic import write_text
from plume_embed.model.images_plume import HEIF_SUFFIXES, IMAGE_SUFFIXES, RAW_SUFFIXES
from plume_embed.model.videos_plume import VIDEO_SUFFIXES
from plume_embed.reading.read import TEXT_SUFFIXES

_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def hops_runs() -> str:
    from training.plume_tiny.collect import markdown

    return markdown(read("training/hops/results/hops.json"))


def hops_ablations() -> str:
    from training.ablations.tables import markdown

    return markdown(read("training/ablations/results/hops.json"))


def hops_mixed_ablations() -> str:
    from training.ablations.tables import markdown

    return markdown(read("training/ablations/results/hops_mixed.json"))


def paradigm_runs() -> str:
    from training.plume_tiny.paradigms import markdown

    return markdown(read("training/plume_tiny/results/paradigms.json"))


def paradigm_scores() -> str:
    return _with_notes(read("evaluation/results/paradigms.json"))


def miniature_scores() -> str:
    return _with_notes(read("evaluation/results/miniature.json"))


def fine_tuned_on_sketches() -> str:
    from training.pairs_example.seeds import table

    return table(read("training/pairs_example/results/sketches.json"))


def miniature_tasks() -> str:
    """Every task of the miniature: plume-tiny with K = 8 beside chance, best guess and thumbnails, in percent."""
    from plume_embed.evaluation.miniature.report import LEVELS

    report = read("evaluation/results/miniature.json")
    plume = model_named(report, "plume-tiny K=8")["scores"]
    pixels = model_named(report, "16x16 thumbnails")["scores"]
    lines = [
        f"| task | concepts | queries | pool | {' | '.join(LEVELS.values())} | plume-tiny | thumbnails |",
        f"|---|---|---:|---:|{'---:|' * len(LEVELS)}---:|---:|",
    ]
    for task, score, pixel in zip(report["tasks"], plume, pixels, strict=True):
        pool = " to ".join(f"{size:,}" for size in dict.fromkeys(task["pool"]))
        cells = [f"{task['task']} ({task['metric']})", task["concepts"], f"{task['queries']:,}", pool]
        cells += [f"{100 * task[level]:.1f}" for level in LEVELS]
        cells += [_percent(score, task["metric"]), _percent(pixel, task["metric"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_rollout() -> str:
    from plume_embed.bench.report import markdown

    return markdown(read("benchmarks/results/amd-epyc-cpu.json"))


def speed_rollout_intel() -> str:
    from plume_embed.bench.report import markdown

    return markdown(read(INTEL_2_80_GHZ))


def speed_rollout_two_threads() -> str:
    from plume_embed.bench.report import markdown

    return markdown(read("benchmarks/results/intel-xeon-cpu-2-threads.json"))


def speed_machines() -> str:
    """The CPUs side by side: what they do at best, and what eight latent steps cost over a single pass there."""
    amd = read("benchmarks/results/amd-epyc-cpu.json")
    machines = [(amd["device"], amd["rows"], f"{amd['copy_gigabytes_per_s']:.0f}, copied", "not measured")]
    paths = {"Intel Xeon": "benchmarks/results/intel-xeon-cpu.json", "Intel Xeon at 2.80 GHz": INTEL_2_80_GHZ}
    for name, path in paths.items():
        intel = read(path)
        speeds = (f"{intel[unit]:.0f}" for unit in ("read_gigabytes_per_s", "matrix_gigaflops_per_s"))
        machines.append((f"{name}, {intel['vector_instructions']}", intel["rows"], *speeds))
    head = ["CPU", "read, GB/s", "matrices, GFLOP/s", "single pass", "rollout alone", "K = 8 over a single pass"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for name, rows, *speeds in machines:
        at = {(row["name"], row["batch"]): row for row in reversed(rows)}  # the first row of a name counts
        times = [f"{at[row, 1]['ms_median']:.0f} ms" for row in ("single pass", "rollout alone, static")]
        ratio = f"{at['static', 1]['ratio_to_single_pass']:.2f}"
        lines.append(f"| {' | '.join([name, *speeds, *times, ratio])} |")
    return "\n".join(lines)


def speed_gpu() -> str:
    from benchmarks.gpu_suite import markdown

    return markdown(read(H100))


def speed_gpu_others() -> str:
    from benchmarks.gpu_suite import others_markdown

    return others_markdown(read(H100))


def speed_gpu_kernels() -> str:
    from benchmarks.gpu_suite import kernels_markdown

    return kernels_markdown(read(H100))


def rollout_parts() -> str:
    from benchmarks.speed.rollout_parts import markdown

    return markdown(read("benchmarks/results/rollout_parts.json"))


def rollout_operators() -> str:
    from benchmarks.speed.rollout_parts import operators_markdown

    return operators_markdown(read("benchmarks/results/rollout_parts.json"))


def riding_steps() -> str:
    from benchmarks.speed.riding_steps import markdown

    return markdown(read("benchmarks/results/riding_steps.json"))


def training_throughput() -> str:
    from benchmarks.speed.training_throughput import markdown

    return markdown(read("benchmarks/results/training_throughput.json"))


def weight_types() -> str:
    from benchmarks.speed.weight_types import markdown

    return markdown(read("benchmarks/results/weight_types.json"))


def serve_load() -> str:
    """A server under load beside `encode`."""
    result = read("benchmarks/results/serve_load.json")
    lines = [
        f"| {result['clients']} clients, {result['model']} | requests | failed | items a second, and of `encode` "
        "| items a CPU second, and of `encode` | items a batch | median | memory |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, load in result["loads"].items():
        shown = [
            f"{load[f'items_per_{kind}']:.0f} and {load[f'encode_items_per_{kind}']:.0f}: {load[ratio]:.2f}"
            for kind, ratio in (("second", "ratio"), ("cpu_second", "cpu_ratio"))
        ]
        memory = " to ".join(f"{size:,}" for size in load["memory_mb"])
        counts = [f"{load['requests']:,}", load["failed"]]
        cells = [name, *counts, *shown, load["rows_per_batch"], f"{load['median_ms']:,} ms", f"{memory} MB"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def padding() -> str:
    """How much of all positions is padding, by how batches are cut."""
    rows = [row for row in read("benchmarks/results/amd-epyc-cpu-encode.json")["rows"] if row.get("num_batches")]
    lines = ["| batches of 96 texts, pictures and videos | batches | padding |", "|---|---:|---:|"]
    for row in rows:
        lines.append(f"| {row['name']} | {row['num_batches']} | {100 * row['share_of_tokens_padded']:.0f} % |")
    return "\n".join(lines)


def training_memory() -> str:
    """Peak of one training step above what was resident before it."""
    cases = read("benchmarks/results/training_memory.json")["cases"]
    names = ("batch 16", "batch 128", "batch 1024 in chunks of 16")
    lines = [f"| | {' | '.join(names)} |", "|---|---:|---:|---:|"]
    for label, suffix in (("plain", ""), ("layers recomputed", ", layers recomputed")):
        peaks = [f"{cases[name + suffix]['peak_mib']:.0f} MiB" for name in names]
        lines.append(f"| {label} | {' | '.join(peaks)} |")
    return "\n".join(lines)


def libraries() -> str:
    """Which examples of docs/libraries.md were run, with which versions."""
    lines = ["| library | versions that were run | |", "|---|---|---|"]
    for example in read("docs/results/libraries.json"):
        versions = ", ".join(f"{name} {version}" for name, version in example["versions"].items())
        lines.append(f"| [{example['heading']}](#{example['heading'].lower()}) | {versions} | {example['status']} |")
    return "\n".join(lines)


def plume_tiny_runs() -> str:
    """The runs that made plume-tiny, from the record beside its weights."""
    runs = read("checkpoints/plume-tiny/training.json")["runs"]
    lines = ["| run | steps x pairs | CPU minutes on each of two cores | torch |", "|---|---|---:|---|"]
    for run in runs:
        recipe = run["recipe"]
        steps = f"{recipe['curriculum']['max_steps']:,} x {recipe['batch_size']}"
        lines.append(f"| {run['name']} | {steps} | {run['train_cpu_minutes']:.0f} | {run['torch']} |")
    return "\n".join(lines)


def photographs() -> str:
    from plume_embed.evaluation.photos.report import markdown

    return markdown(read("evaluation/results/photographs.json"))


def plume_small_stages() -> str:
    """The stages that made plume-small, from the record beside its weights."""
    lines = ["| stage | steps | K | minutes by the clock | held-out drawings read after K | found first | among ten |"]
    lines.append("|---|---:|---|---:|---:|---:|---:|")
    for stage in read("checkpoints/plume-small/training.json")["stages"]:
        steps = ", then ".join("/".join(map(str, numbers)) for _, numbers in stage["num_latent_steps"])
        seconds = max(entry["seconds"] for entry in stage["curve"] if "seconds" in entry)
        cells = ["-", "-", "-"]
        if found := [entry for entry in stage["curve"] if "validation" in entry]:
            last = max(found, key=lambda entry: (entry["step"], entry["k"]))  # of several K the most
            cells = [str(last["k"]), *(f"{last['validation'][name]:.1f} %" for name in ("R@1", "R@10"))]
        lines.append(f"| {stage['name']} | {stage['steps']:,} | {steps} | {seconds / 60:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plume_small_seeds() -> str:
    from training.plume_small.compare import markdown

    return markdown(read("training/plume_small/results/seeds.json"))


def latent_read_outs() -> str:
    from training.steps.tables import read_outs

    return read_outs(read("training/steps/results/diagnostics.json"))


def latent_causal() -> str:
    from training.steps.tables import causal

    return causal(read("training/steps/results/diagnostics.json"))


def latent_likeness() -> str:
    from training.steps.tables import likeness

    return likeness(read("training/steps/results/diagnostics.json"))


def latent_summary() -> str:
    from training.steps.summary import markdown, read_all

    return markdown(read_all())


def latent_variants() -> str:
    from training.steps.variants import markdown

    return markdown(read("training/steps/results/hops_variants.json"))


def latent_variants_mixed() -> str:
    from training.steps.variants import markdown

    return markdown(read("training/steps/results/mixed_variants.json"))


def latent_scene_hops() -> str:
    from training.steps.variants import markdown

    return markdown(read("training/ablations/results/scene_hops.json"))


def latent_scene_causal() -> str:
    from training.steps.tables import causal

    return causal(read("training/steps/results/scene_diagnostics.json"))


def latent_scene_by_hops() -> str:
    from training.scene_hops.tables import by_hops

    return by_hops(read("training/ablations/results/scene_hops.json"))


def anytime_pictures() -> str:
    from training.steps.curve import markdown_of_pictures

    return markdown_of_pictures(read("evaluation/results/anytime.json"))


def latent_curve() -> str:
    from training.steps.curve import markdown

    return markdown(read("training/steps/results/diagnostics.json"))


def latent_cost() -> str:
    from training.steps.cost import markdown

    return markdown(read("training/steps/results/hops_cost.json"))


def latent_scene_held() -> str:
    from training.ablations.tables import markdown

    return markdown(read("training/ablations/results/scene_hops_held.json"))


def latent_scene_cost() -> str:
    from training.steps.cost import markdown

    return markdown(read("training/steps/results/scene_hops_cost.json"))


def cold_start() -> str:
    from benchmarks.cold_start import markdown

    return markdown(read("benchmarks/results/cold_start.json"))


def indexing() -> str:
    from benchmarks.indexing import markdown

    return markdown(read("benchmarks/results/indexing.json"))


def thousand_photographs() -> str:
    from benchmarks.photographs_memory import markdown

    return markdown(read("benchmarks/results/photographs_memory.json"))


def house() -> str:
    from benchmarks.house import markdown

    return markdown(read("benchmarks/results/house.json"))


def matrix() -> str:
    from scripts.matrix import markdown

    return markdown(read("docs/results/matrix.json"))


def kills() -> str:
    from scripts.kills import markdown

    return markdown(read("docs/results/kills.json"))


def soak() -> str:
    from scripts.soak import markdown

    return markdown(read("docs/results/soak.json"))


def files_read() -> str:
    """Which files are read, by their suffixes; pictures whatever this machine's Pillow can decode."""
    extra = HEIF_SUFFIXES | RAW_SUFFIXES
    rows = {
        "text": TEXT_SUFFIXES,
        "picture": IMAGE_SUFFIXES - extra | {".avif", ".jp2"},
        'picture of a phone or camera, with `pip install ".[photos]"`': extra,
        "video": VIDEO_SUFFIXES,
        "PDF": {".pdf"},
    }
    lines = ["| kind | suffixes |", "|---|---|"]
    return "\n".join([*lines, *(f"| {kind} | {', '.join(sorted(suffixes))} |" for kind, suffixes in rows.items())])


def ann() -> str:
    from benchmarks.ann import markdown

    return markdown(read("benchmarks/results/ann.json"))


def ann_graph() -> str:
    from benchmarks.ann import markdown

    return markdown(read("benchmarks/results/ann_graph.json"))


def scale_plan() -> str:
    from scripts.scale_plan import plan_table

    return plan_table(read("docs/results/scale_plan.json"))


def scale_stages() -> str:
    from scripts.scale_plan import stages_table

    return stages_table(read("docs/results/scale_plan.json"))


def scale_simulation() -> str:
    from scripts.scale_plan import simulation_table

    return simulation_table(read("docs/results/scale_plan.json"))


def extras() -> str:
    from scripts.extras import markdown

    return markdown(read("docs/results/extras.json"))


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (
        hops_runs,
        hops_ablations,
        hops_mixed_ablations,
        paradigm_runs,
        fine_tuned_on_sketches,
        paradigm_scores,
        miniature_scores,
        miniature_tasks,
        speed_rollout,
        speed_rollout_intel,
        speed_rollout_two_threads,
        speed_machines,
        speed_gpu,
        speed_gpu_others,
        speed_gpu_kernels,
        rollout_parts,
        rollout_operators,
        riding_steps,
        training_throughput,
        weight_types,
        padding,
        serve_load,
        training_memory,
        libraries,
        plume_tiny_runs,
        latent_read_outs,
        latent_causal,
        latent_likeness,
        latent_summary,
        latent_variants,
        latent_variants_mixed,
        latent_scene_hops,
        latent_scene_by_hops,
        latent_scene_held,
        latent_scene_causal,
        latent_curve,
        anytime_pictures,
        latent_cost,
        latent_scene_cost,
        house,
        cold_start,
        indexing,
        thousand_photographs,
        photographs,
        plume_small_stages,
        plume_small_seeds,
        kills,
        matrix,
        soak,
        files_read,
        ann,
        ann_graph,
        scale_plan,
        scale_stages,
        scale_simulation,
        extras,
    )
}


def rendered(page: str) -> str:
    """A page with its tables as the results say now.

    Raises:
        ValueError: it names a table that there is not.
    """

    def filled(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise ValueError(f"There is no table {match[2]!r}; there are {', '.join(TABLES)}.")
        return f"{match[1]}{TABLES[match[2]]()}\n{match[3]}"

    return _TABLE.sub(filled, page)


def pages() -> list[Path]:
    """README and every page of the documents."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(
    check: Annotated[bool, typer.Option("--check", help="Only compare; exit code 1 where a page differs.")] = False,
) -> None:
    """Write the tables of README and docs/ and the plots from the committed results."""
    differing = []
    for path in pages():
        before = path.read_text()
        after = rendered(before)
        prose = " ".join(after.split())  # a phrase may be wrapped
        missing = [phrase for phrase in figures().get(str(path.relative_to(ROOT)), []) if phrase not in prose]
        for phrase in missing:
            typer.echo(f"{path.relative_to(ROOT)} lacks: {phrase}")
        if after != before or missing:
            differing.append(path)
        if after != before and check:
            typer.echo(f"a table differs: {path.relative_to(ROOT)}")
        if after != before and not check:
            path.write_text(after)
            typer.echo(f"written: {path.relative_to(ROOT)}")
    for name in PLOTS:
        file, plot = ROOT / name, drawn(name)
        committed = file.read_text() if file.is_file() else ""
        of_another = bool(committed) and version_of(committed) != version_of(plot)
        if (of_another and check) or is_same(committed, plot):
            continue
        differing.append(file)
        if not check:
            write_text(file, plot)
        typer.echo(f"a plot differs: {name}" if check else f"written: {name}")
    if differing and check:
        raise typer.Exit(1)


def _with_notes(report: dict) -> str:
    """A report of the miniature with what a reader must know before quoting a number."""
    from plume_embed.evaluation.miniature.report import markdown, notes

    lines = [f"- {line}" for line in notes(report)]
    return "\n".join([markdown(report), *([""] if lines else []), *lines])


def _percent(scores: dict | None, metric: str) -> str:
    return "-" if scores is None or scores[metric] is None else f"{100 * scores[metric][0]:.1f}"


if __name__ == "__main__":
    typer.run(main)
