"""Phrases of the documents that hold a number, each made from a committed result; a test holds the pages to them."""

from collections.abc import Iterable, Mapping
from typing import Any

from docs.committed import H100, INTEL_2_80_GHZ, model_named, read
from plume_embed.evaluation.miniature.report import LEVELS, MEAN, mean_level
from plume_embed.evaluation.miniature.schema import META_TASKS
from plume_embed.evaluation.miniature.stills import TEST_STYLE
from training.ablations.tables import paired_difference
from training.scene_hops.scenes import chance, held_out_queries


def figures() -> dict[str, list[str]]:
    """Phrases that hold a number, by page; each is made from a committed result."""
    hops = read("training/hops/results/hops.json")
    mixed = read("training/ablations/results/hops_mixed.json")["rows"]
    grid = read("training/ablations/results/hops.json")["rows"]
    report, paradigms = read("evaluation/results/miniature.json"), read("evaluation/results/paradigms.json")
    tiny, stills = model_named(report, "plume-tiny K=8"), model_named(report, "plume-tiny-stills K=8")
    full, explicit = model_named(paradigms, "full-0 K=8"), model_named(paradigms, "explicit_cot-0 CoT")
    found = read("evaluation/results/plume-tiny-examples.json")
    cosine = read("training/plume_tiny/results/report/report.json")["latent_cosine"]["mean"]
    speed = read("benchmarks/results/amd-epyc-cpu.json")["rows"]
    at = {(row["name"], row["batch"]): row for row in reversed(speed)}  # the first row of a name counts
    mean = 100 * tiny["means"]["mean"][0]
    level = {name: f"{100 * (mean_level(report, MEAN, name) or 0):.1f}" for name in LEVELS}
    overhead = {batch: f"{at['static', batch]['ratio_to_single_pass']:.2f}" for batch in (1, 8, 32)}
    intel = read(INTEL_2_80_GHZ)["rows"]
    there = {row["batch"]: f"{row['ratio_to_single_pass']:.2f}" for row in intel if row["name"] == "static"}
    cot = {batch: f"{at['explicit CoT at the speed of our steps', batch]['times_ours']:.1f}" for batch in (1, 8)}
    scenes = scene_hops()
    how_many = {
        task["concepts"]: f"{100 * task['best_guess']:.1f}"
        for task in report["tasks"]
        if task["task"] == "I-QA/how many"
    }
    kills = read("docs/results/corpus_kills.json")
    at_kills = kills["shards_there"]
    stages = {stage["stage"]: stage["filled"] for stage in read("docs/results/scale_plan.json")["stages"]}
    corpus = read("benchmarks/results/corpus.json")
    speeds = {workers: max(found) for workers, found in corpus["rows_a_second"].items()}
    return {
        "README.md": [
            photographs_found(),
            *hops_means(),
            f"{overhead[1]} times a single pass at batch 1, {overhead[8]} at batch 8",
            f"{there[1]} and {there[8]} on an Intel Xeon at 2.80 GHz",
            h100_figures()[0],
            f"{read('checkpoints/plume-tiny/training.json')['runs'][-1]['parameters'] / 1e6:.1f} million parameters",
            f"{mean:.1f} %",
            of_pictures_and_videos(tiny),
            f"by chance {level['chance']} %, by the best guess without looking {level['best_guess']} %",
            f"another query's latents {swapped_answers():.1f} % of the queries get that query's answer",
            *scenes["README.md"],
            million_vectors(),
        ],
        "docs/results/hops.md": [
            f"{hops['full_curriculum']['parameters'] / 1e6:.2f} million parameters",
            f"{grid['full']['mean'] * 100:.1f} %",
            f"{grid['no_curriculum']['mean'] * 100:.1f} %",
        ],
        "docs/results/hops_mixed.md": [
            f"{mixed['full']['mean'] * 100:.1f} %",
            f"{mixed['no_curriculum']['mean'] * 100:.1f} %",
            f"come to {100 * mixed['stages_6']['mean']:.1f} %",
            hits_of(read("training/steps/results/mixed_variants.json")["rows"]["stages_6_decoded"]),
            *mixed_families(),
        ],
        "docs/results/plume_tiny.md": [
            f"{mean:.1f} %",
            f"{100 * stills['means']['mean'][0]:.1f} %",
            searches_by_name(report, tiny),
            of_pictures_and_videos(tiny),
            f"the best guess {level['best_guess']} %",
            *not_above_the_best_guess(report, tiny),
            _interval(tiny["difference"]["mean"]),
            _interval(full["difference"]["mean"]),
            *found_by_style(found),
            f"z(0) has a mean cosine of {cosine[0]:.2f}",
            f"z(1) {cosine[1]:.2f}, z(8) {cosine[8]:.2f}",
            f"`<gen_emb>` {cosine[9]:.2f}",
            f"{explicit['rationales']['num_tokens'] / explicit['rationales']['num_rows']:.0f} tokens",
            f"{explicit['rationales']['num_cut']:,} of {explicit['rationales']['num_rows']:,} rationales",
            paradigm_costs(),
        ],
        "docs/scale.md": [
            f"{corpus['ratio']:.1f} times, {speeds['2']:.0f} rows a second over {speeds['1']:.0f}",
            f"{kills['of_workers']} kills of workers and {kills['of_drivers']} of drivers in {kills['rounds']} rounds",
            f"with {min(at_kills)} to {max(at_kills)} of {kills['shards']} shards there",
            f"fill {stages['decoding, 12 megapixels']:.0%} of the cores",
            f"{kills['rows']:,} rows, {kills['lost']} lost, {kills['doubled']} doubled",
            h100_figures()[-1],
        ],
        "docs/search.md": [thousand_photographs()],
        "docs/results/latents_taken_apart.md": [
            found_by_style(found)[0],
            f"right for {how_many['known']} % of the queries",
        ],
        "docs/results/latents.md": [
            *hits_by_seed(),
            *mixed_families()[:3],
            *scenes["docs/results/latents.md"],
        ],
        "docs/results/scene_hops.md": scenes["docs/results/scene_hops.md"],
        "docs/results/speed.md": [
            f"{overhead[1]} times a single pass at batch 1, {overhead[8]} at batch 8 and {overhead[32]} at batch 32",
            f"{cot[1]} times at batch 1 and {cot[8]} times at batch 8",
            *against_limit(),
            *parts_of_rollout(),
            *h100_figures()[:-1],
            *indexing_rounds(),
            *cold_shares(),
        ],
    }


def hops_means() -> tuple[str, str]:
    """Hit@1 on hops with the curriculum, without it and in a single pass, and the worst seed of later runs."""
    rows = read("training/ablations/results/hops.json")["rows"]
    found = (f"{100 * rows[name]['mean']:.1f} %" for name in ("full", "no_curriculum", "single_pass"))
    later = read("training/steps/results/hops_variants.json")["rows"]["full"]["runs"].values()
    return (
        "{} correct, against {} without the curriculum and {} in a single pass (means of 5 seeds)".format(*found),
        f"of five later runs one came to {100 * min(run['hit_at_1'] for run in later):.1f} %",
    )


def against_limit() -> tuple[str, ...]:
    """How far a call and the rollout alone are above their limits at batch 1, and what riding along could gain."""
    called, alone = [], []
    for path in ("benchmarks/results/intel-xeon-cpu.json", INTEL_2_80_GHZ):
        rows = {row["name"]: row["times_limit"] for row in read(path)["rows"] if row["batch"] == 1}
        called.append(f"{rows['static']:.2f}")
        alone += [times for name, times in rows.items() if name.startswith("rollout alone")]
    riding = read("benchmarks/results/riding_steps.json")["rows"][0]["times"]
    return (
        f"{' and '.join(called)} times its limit",
        f"stands at {min(alone):.2f} to {max(alone):.2f} times",
        f"at most {riding:.2f} times",
    )


def parts_of_rollout() -> tuple[str, ...]:
    """What the rollout's time above the reading of its weights is, on a CPU."""
    report = read("benchmarks/results/rollout_parts.json")
    shares = {row["part"]: row["share"] for row in report["rows"] if row["layout"] == "by row"}
    calls = {row["implementation"]: row["calls"] for row in report["operators"] if row["name"] == "all operators"}
    lookups = next(row for row in report["operators"] if row["name"] == "TorchDynamo Cache Lookup")
    return (
        f"takes {100 * shares['the rest']:.0f} % of the rollout",
        f"{calls['static']:,} operators",
        f"to {calls['compiled']:,}",
        f"takes {lookups['ms']:.0f} ms",
    )


def hits_by_seed() -> list[str]:
    """Hit@1 of each seed of the variants that the text speaks of, and what two of them gain on hops."""
    rows = read("training/steps/results/hops_variants.json")["rows"]
    named = ("full", "stages_6_dealt", "full_distilled", "distilled", "anytime", "targets_with_steps")
    phrases = [hits_of(rows[name]) for name in named]
    gains = (rows[name]["difference_to_full"]["mean"] for name in ("stages_6_dealt", "full_distilled"))
    phrases += ["{:+.1f} and {:+.1f} points".format(*(100 * gain for gain in gains))]
    return [*phrases, f"({100 * rows['k_6_dealt']['mean']:.1f} %)", f"({100 * rows['k_4_decoded']['mean']:.1f} %)"]


def searches_by_name(report: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The least and the most that a model finds first by a name, of unseen and of known concepts, and by chance.

    Raises:
        ValueError: an interval of unseen concepts reaches down to chance, which the page denies.
    """
    found: dict[str, list[tuple[float, float, float]]] = {"unseen": [], "known": []}  # share, its lower end, chance
    for task, scores in zip(report["tasks"], model["scores"], strict=True):
        if task["task"].split("/")[1].startswith("text to "):
            share, low, _ = scores[task["metric"]]
            found[task["concepts"]].append((100 * share, 100 * low, 100 * task["chance"]))
    if any(low <= chance for _, low, chance in found["unseen"]):
        raise ValueError("docs/results/plume_tiny.md says above chance of unseen names: a task is not.")

    def span(values: Iterable[float]) -> str:
        values = sorted(values)
        return f"{values[0]:.1f} to {values[-1]:.1f} %"

    unseen, known = (span(share for share, *_ in found[concepts]) for concepts in ("unseen", "known"))
    chances = span(chance for *_, chance in found["unseen"])
    return f"it finds {unseen} first, above chance ({chances}) and far below known names ({known})"


def of_pictures_and_videos(model: Mapping[str, Any]) -> str:
    """Means of the meta-tasks of the miniature in a style without and with training."""
    of = {start: [100 * model["means"][meta][0] for meta in META_TASKS if meta.startswith(start)] for start in "IV"}
    pictures, videos = (sum(found) / len(found) for found in of.values())
    return f"{pictures:.1f} % on the four meta-tasks of still pictures, {videos:.1f} % on the four of videos"


def not_above_the_best_guess(report: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """The questions on which a model is not above the best answer to the question alone, known or unseen."""
    asked, level = 0, []
    for task, scores in zip(report["tasks"], model["scores"], strict=True):
        if task["meta"] in ("I-QA", "V-QA"):
            share, low, _ = scores[task["metric"]]
            asked += 1
            if low <= task["best_guess"]:
                guess = 100 * task["best_guess"]
                level.append(f"{task['task']} ({task['concepts']}: {100 * share:.1f}, the best guess {guess:.1f})")
    return [f"On {len(level)} of {asked} tasks of questions", ", ".join(level)]


def found_by_style(found: Mapping[str, Any]) -> list[str]:
    """How many bundled drawings plume-tiny finds by their name, in the style of training and in the other one."""
    trained, other = (found["by_style"][style] for style in ("noto", TEST_STYLE))
    first, five = (
        "{:.1f} % of the {} in Noto's style and {:.1f} % of the {} in Twemoji's".format(
            *(value for own in (trained, other) for value in (100 * own[name], own["pictures"]))
        )
        for name in ("names_hit_at_1", "names_hit_at_5")
    )
    return [first, five, f"{100 * found['names_hit_at_1']:.0f} and {100 * found['names_hit_at_5']:.0f} % of all"]


def paradigm_costs() -> str:
    """CPU time of a training step of explicit rationales behind what runs share, beside those of two other runs."""
    runs = read("training/plume_tiny/results/paradigms.json")

    def minutes_a_step(name: str) -> float:
        run = runs[name]
        return run["train_cpu_minutes"] / (run["recipe"]["curriculum"]["max_steps"] - run["steps_shared"])

    explicit, full, single = map(minutes_a_step, ("explicit_cot", "full", "single_pass"))
    of_full, of_single = explicit / full, explicit / single
    return f"some {of_full:.1f} times as much CPU time as those of `full` and {of_single:.1f} times those of"


def cold_shares() -> list[str]:
    """Which part of a search from cold is imports, and which the model and the query."""
    stages = read("benchmarks/results/cold_start.json")["cpu_seconds"]
    seconds = {name: found["median"] for name, found in stages.items()}
    whole = seconds["plume-embed search, whole"]
    imports = sum(spent for name, spent in seconds.items() if name.startswith("import "))
    asked = seconds["load plume-small and its processor"] + seconds["embed the query"]
    return [f"{100 * imports / whole:.0f} % of it is imports", f"query take {100 * asked / whole:.0f} %"]


def indexing_rounds() -> list[str]:
    """CPU time of a loop of sentence-transformers over that of `index`, in each round."""
    kinds = read("benchmarks/results/indexing.json")["kinds"]
    phrases = []
    for kind in ("photographs", "films"):
        turns = zip(kinds[kind]["sentence_transformers"], kinds[kind]["index"], strict=True)
        ratios = [f"{loop['cpu_seconds'] / own['cpu_seconds']:.2f}" for loop, own in turns]
        phrases.append(f"({', '.join(ratios[:-1])} and {ratios[-1]}")
    return phrases


def mixed_families() -> list[str]:
    """Differences to full by family of hops_mixed, in points: single passes, then fewer steps or other stages."""
    rows = read("training/ablations/results/hops_mixed.json")["rows"]

    def difference(name: str, family: str) -> dict:
        hits = (
            {seed: run["hit_at_1_by_family"][family] for seed, run in rows[n]["runs"].items()} for n in (name, "full")
        )
        return paired_difference(*hits) or {}

    def shown(name: str, family: str) -> str:
        return "{:+.1f} [{:+.1f}, {:+.1f}]".format(
            *(100 * difference(name, family)[key] for key in ("mean", "low", "high"))
        )

    others = [-100 * difference(name, "walk")["mean"] for name in ("k_2", "k_4", "k_6", "stages_6")]
    return [
        f"on walks ({shown('single_pass', 'walk')})",
        f"on counting ({shown('single_pass', 'count')})",
        f"({shown('single_pass_from_stage_0', 'count')})",
        f"by {min(others):.0f} to {max(others):.0f} points",
    ]


def hits_of(row: Mapping[str, Any]) -> str:
    """Hit@1 of each seed of a row."""
    *most, last = (f"{100 * run['hit_at_1']:.1f}" for _, run in sorted(row["runs"].items()))
    return f"{', '.join(most)} and {last} %" if most else f"{last} % (one seed)"


def thousand_photographs() -> str:
    """What an index of a thousand photographs takes."""
    run = next(run for run in read("benchmarks/results/photographs_memory.json")["runs"] if run["photographs"] == 1000)
    each, peak = run["index"]["cpu_seconds"] / 1000, run["index"]["peak_mib"] / 1024
    return f"take {each:.2f} CPU seconds each and up to {peak:.1f} GiB of memory"


def scene_hops() -> dict[str, list[str]]:
    """What the pages say of scene_hops: Hit@1 of four rows over the seeds that all of them have, of naming the picture
    at the start, of runs three times as long, and of queries with the latents of others."""
    rows = read("training/ablations/results/scene_hops.json")["rows"]
    runs = [rows[name]["runs"] for name in ("full_distilled", "single_pass", "full", "explicit_cot_stage_0")]
    seeds = set.intersection(*(set(own) for own in runs))
    means = (100 * sum(own[seed]["hit_at_1"] for seed in seeds) / len(seeds) for own in runs)
    distilled, single, full, written = (f"{mean:.1f} %" for mean in means)
    diagnostics = read("training/steps/results/scene_diagnostics.json")
    lost = -100 * diagnostics["scene_hops/full_distilled-0"]["causal"]["another query"]["difference"][0]
    twos = diagnostics["scene_hops, two instructions a picture/full_distilled-0"]["causal"]
    follows, own = 100 * twos["another query"]["follows"], 100 * twos["as they are"]["hit"][0]
    start, base = f"{100 * chance(held_out_queries())['start']:.1f} %", "training/scene_hops/checkpoint/training.json"
    difference = rows["full_distilled"]["difference_to_full"]
    held = read("training/ablations/results/scene_hops_held.json")["rows"]
    left_open = []
    for name, said in (
        ("no_shared_expert", "without the shared expert"),
        ("top_1", "top-1"),
        ("no_step_embedding", "without the step embedding"),
    ):
        mean, low, high = (f"{100 * held[name]['difference_to_full'][kind]:+.1f}" for kind in ("mean", "low", "high"))
        left_open.append(f"{said} {mean} ({low} to {high})")
    one, two, three, four = (f"{100 * held[f'jacobi_{count}']['mean']:.1f}" for count in range(1, 5))
    sweeps = f"({one}, {two} and {three} % in the mean), four follow part of the first one ({four} %)"
    plain = ("distilled", "full_rehearsed", "full_held", "full_steps_held", "full_embedding_held", "full_longer")
    named = [rows[name] for name in (*plain, "single_pass_longer")]
    by_seed = [hits_of(row) for row in (*named, *(held[name] for name in ("parallel", "no_adapter", "k_8", "k_4")))]
    fitting = [hits_of(held[name]) for name in ("stages_2", "stages_8", "stages_6_decoded")]
    by_stages = [*fitting, *(hits_of(held[name]) for name in ("stages_6", "stages_6_dealt"))]
    low, high = (100 * held["targets_with_steps"]["difference_to_full"][end] for end in ("low", "high"))
    return {
        "README.md": [
            f"{distilled} with steps held to the written rationale, against {single} in a single pass and {written} "
            f"with the rationale written out (means of {len(seeds)} seeds)",
            f"{full} in as many training steps, {100 * rows['full_longer']['mean']:.1f} % in three times as many",
            f"with the latents of another instruction, {follows:.1f} % get that one's, where {own:.1f} % are right",
        ],
        "docs/results/latents.md": [
            f"{single} in a single pass, {full} by the curriculum without `loss.distil`, {distilled} with it, and "
            f"{written} with the rationale written out (means of {len(seeds)} seeds)",
            f"always naming the picture at the start to {start}",
            f"{follows:.1f} % of the queries get that one's answer, where {own:.1f} % are right with their own",
            ", ".join(left_open),
            f"costs {-100 * held['no_adapter']['difference_to_full']['mean']:.1f} points on scene_hops",
            f"whose interval there is {100 * difference['low']:+.1f} to {100 * difference['high']:+.1f}",
            f"the interval is {low:+.1f} to {high:+.1f} points on scene_hops with `loss.distil`",
            sweeps,
            *by_seed,
            *by_stages,
        ],
        "docs/results/scene_hops.md": [
            f"Then {follows:.1f} % get the other instruction's answer, where {own:.1f} % are right",
            f"cost {lost:.0f} points",
            f"comes to {start}",
            f"{100 * read(base)['hit_at_1']:.1f} % (`{base}`)",
            hits_of(held["targets_with_steps"]),
            sweeps,
            *by_seed,
            *fitting,
            hits_of(held["k_4_decoded"]),
        ],
    }


def h100_figures() -> list[str]:
    """Overheads, loop and explicit chain of thought of the run on a GPU, as the documents say them."""
    parts = read(H100)["parts"]
    rows = [row for name, part in parts.items() if name.startswith("image 700") for row in part["rows"]]
    over = [row["ratio_to_single_pass"] for row in rows if row["name"] == "cuda_graph"]
    loop = next(row for row in rows if row["name"] == "rollout alone, cuda_graph")
    every, *longest = parts["kernels, batch 1"]["rows"]
    products = sum(row["ms"] for row in longest if row["name"].startswith("nvjet"))
    exact, half = (parts[f"equality in {dtype}"]["rows"] for dtype in ("float32", "bfloat16"))
    graph = next(row for row in half if row["name"] == "equality, cuda_graph")
    of_batch = next(row for row in rows if (row["name"], row["batch"]) == ("cuda_graph", 32))
    texts = [row for name, part in parts.items() if name.startswith("text 700") for row in part["rows"]]
    over_text = [row["ratio_to_single_pass"] for row in texts if row["name"] == "cuda_graph"]
    cot = {
        (row["name"].removeprefix("explicit CoT"), row["batch"]): row.get("times_ours")
        for n in (1, 32)
        for row in parts[f"explicit CoT, batch {n}"]["rows"]
    }
    return [
        "{:.2f}, {:.2f} and {:.2f} times a single pass at batch 1, 8 and 32".format(*over),
        "{:.2f}, {:.2f} and {:.2f} times for texts of 700 tokens".format(*over_text),
        f"{loop['ms_median']:.0f} ms at batch 1, {loop['times_limit']:.1f} times its limit",
        f"{every['ms']:.1f} ms of kernels",
        f"those with weights (`nvjet`) take {products:.1f} ms",
        f"reference's vectors within {max(row['worst_difference'] for row in exact):.1e}",
        f"a mean cosine of {1 - graph['error_of_reference']:.3f} to those in float32, and those of the graph at "
        f"{1 - graph['error']:.3f}",
        f"{cot[', growing cache', 1]:.0f} times what ours takes at batch 1 and {cot[', growing cache', 32]:.0f} times "
        "at batch 32",
        f"with a static cache {cot[', static cache', 1]:.0f} times at batch 1",
        f"cost {cot[' at the speed of our steps', 1]:.0f} times ours",
        f"{of_batch['samples_per_s']:.0f} such pictures a second",
    ]


def swapped_answers() -> float:
    """Percent of the queries of hops that get the answer of the query whose latents were put in, full curriculum."""
    results = read("training/steps/results/diagnostics.json")
    found = [
        entry["causal"]["another query"]["follows"] for name, entry in results.items() if name.startswith("hops/full-")
    ]
    return 100 * sum(found) / len(found)


def million_vectors() -> str:
    """Recall and time of the default ANN index with the candidates that `search` takes, beside the exact scan."""
    report = read("benchmarks/results/ann.json")
    (own,) = [found for found in report["variants"]["binary"]["searches"] if found["refine"] == 20]
    return (
        f"recall@10 {own['recall']:.3f} with {own['cpu_ms']:.0f} ms of CPU time; the exact scan takes "
        f"{report['exact']['cpu_ms']:,.0f} ms"
    )


def photographs_found() -> str:
    """What plume-small with its own K finds by the captions, and what the closed form does."""
    models = read("evaluation/results/photographs.json")["models"]
    steps = read("checkpoints/plume-small/config.json")["num_latent_steps"]
    own = next(m for m in models if (m["model"], m["num_latent_steps"]) == ("plume-small", steps))
    closed = next(m for m in models if m["model"] == "closed form")
    share = [100 * m["scores"]["captions -> photos"][k][0] for m in (own, closed) for k in ("R@1", "R@10")]
    return (
        f"{share[0]:.1f} % found first, {share[1]:.1f} % among ten; "
        f"{share[2]:.1f} and {share[3]:.1f} % by the closed form with its larger text model"
    )


def _interval(values: list[float]) -> str:
    middle, low, high = (f"{100 * value:+.1f}" for value in values)
    return f"{middle} [{low}, {high}]"
