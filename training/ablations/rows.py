"""The rows of the paper's ablation tables 3 to 6, the baselines and ours: each a few settings on top of one recipe."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from plume_embed.training.recipe import Recipe, load_recipe
from plume_embed.training.resuming import settings_by_name
from training.hops import HOPS, HOPS_MIXED
from training.plume_tiny import TINY
from training.scene_hops import SCENE_HOPS

TUNED_STEPS = 1400  # of the tuned single pass: what a run of `hops` costs in the same time, and more
TUNED_RATES = (3e-4, 1e-3, 2e-3, 3e-3, 5e-3)
TUNING_SEED = 1000  # none of those that are reported


# What every row begins with, unless `--set` says otherwise. The recipe of scene_hops has it, as that does better there.
WITHOUT_DISTILLATION = ("loss.distil=0.0",)
TASKS = {"hops": HOPS, "hops_mixed": HOPS_MIXED, "tiny": TINY, "scene_hops": SCENE_HOPS}


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        name (`str`): Its name in results and folders.
        table (`str`): Where the paper has it: "3", "4", "5", "6"; "baselines", or "steps" for what only we ask.
        label (`str`): What it is called in a table.
        settings (`tuple[str]`): As behind `--set`.
        forks (`bool`): Whether its stage 0 is the full run's, and it goes on from there.
        paper (`float`, *optional*): The paper's mean over MMEB-v2 for the same change, in %.
    """

    name: str
    table: str
    label: str
    settings: tuple[str, ...] = ()
    forks: bool = True
    paper: float | None = None


ROWS = (
    Row("full", "3", "full", paper=61.6),
    Row(
        "no_latent_transition",
        "3",
        "without latent transition: the same stages of text, embedding read off the last prefix token",
        ("curriculum.num_latent_steps=0", "curriculum.single_pass_text=true"),
        forks=False,
        paper=58.8,
    ),
    Row("single_mlp", "3", "single MLP instead of the experts", ("model.plume={adapter_type: mlp}",), paper=59.2),
    Row("single_mlp_matched", "3", "single MLP with as many parameters as the experts and the router"),
    Row("no_adapter", "3", "no adapter", ("model.plume={adapter_type: none}",)),
    Row("no_anchor", "3", "router without anchor", ("model.plume={router_context: none}",), paper=60.1),
    Row(
        "no_curriculum",
        "3",
        "without curriculum: stage 0, then straight to the last",
        ("curriculum.stages=[0,4]",),
        paper=54.8,
    ),
    Row("no_shared_expert", "4", "without shared expert", ("model.plume={use_shared_expert: false}",), paper=60.3),
    Row("top_1", "4", "top-1 instead of top-2", ("model.plume={num_experts_per_tok: 1}",), paper=60.8),
    Row(
        "no_step_embedding",
        "4",
        "router without step embedding",
        ("model.plume={use_step_embedding: false}",),
        paper=60.4,
    ),
    Row("k_2", "5", "K = 2", ("curriculum.num_latent_steps=2",)),
    Row("k_4", "5", "K = 4", ("curriculum.num_latent_steps=4",), paper=59.9),
    Row("k_6", "5", "K = 6", ("curriculum.num_latent_steps=6",), paper=61.1),
    Row("stages_2", "6", "2 stages", paper=59.0),
    Row("stages_6", "6", "6 stages", paper=61.4),
    Row("stages_8", "6", "8 stages", paper=60.9),
    Row("explicit_cot", "baselines", "explicit chain of thought, as many training steps", ("curriculum.stages=[0]",)),
    Row("explicit_cot_stage_0", "baselines", "explicit chain of thought, after stage 0"),
    Row(
        "single_pass",
        "baselines",
        "single pass, as many training steps",
        ("curriculum.num_latent_steps=0", "curriculum.stages=[0]"),
        forks=False,
    ),
    Row(
        "single_pass_from_stage_0",
        "baselines",
        "single pass, fine-tuned from stage 0",
        ("curriculum.num_latent_steps=0", "curriculum.stages=[0,4]"),
    ),
    Row(
        "single_pass_tuned",
        "baselines",
        f"single pass, {TUNED_STEPS:,} steps, rate chosen on validation",
        ("curriculum.num_latent_steps=0", "curriculum.stages=[0]", f"curriculum.max_steps={TUNED_STEPS}"),
        forks=False,
    ),
    Row("k_8", "steps", "K = 8", ("curriculum.num_latent_steps=8",)),  # on hops that is `full`
    Row("full_longer", "steps", "full, trained three times as long", forks=False),
    Row(
        "single_pass_longer",
        "steps",
        "single pass, trained three times as long",
        ("curriculum.num_latent_steps=0", "curriculum.stages=[0]"),
        forks=False,
    ),
    Row("anytime", "steps", "any K: the loss also read behind two of 1 to K - 1 steps"),
    Row(
        "targets_with_steps",
        "steps",
        "targets with latent steps as well",
        ("target_rollout=true",),
        forks=False,
    ),
    Row(
        "stages_6_dealt",
        "steps",
        "6 stages, segments as long as their share of the steps",
        ("curriculum.dealing=by_latents",),
    ),
    Row(
        "k_6_dealt",
        "steps",
        "K = 6, segments as long as their share of the steps",
        ("curriculum.num_latent_steps=6", "curriculum.dealing=by_latents"),
    ),
    Row(
        "parallel",
        "steps",
        "K learned tokens in one pass",
        ("model.plume={rollout: parallel, adapter_type: none}",),
    ),
    Row(
        "pause",
        "steps",
        "one learned token K times in one pass, no text",
        (
            "model.plume={rollout: parallel, adapter_type: none, shared_slot: true}",
            "curriculum.stages=[4]",
            "loss.cross_entropy=0.0",
        ),
        forks=False,
    ),
    Row(
        "distilled",
        "steps",
        "stage 0, then all steps at once, held to the states of the written rationale",
        ("curriculum.stages=[0,4]", "loss.distil=1.0"),
    ),
    Row("full_distilled", "steps", "full, each step held to the states of the written rationale", ("loss.distil=1.0",)),
    Row(
        "full_held",
        "steps",
        "full, each step held to the states of the written rationale, which is not trained to the end",
        ("loss.distil=1.0", "loss.rehearse=false"),
    ),
    Row(
        "full_steps_held",
        "steps",
        "full, each step held to the states of the written rationale, but not the embedding",
        ("loss.distil=1.0", "loss.distil_to=steps"),
    ),
    Row(
        "full_embedding_held",
        "steps",
        "full, the embedding held to the last state of the written rationale, but no step",
        ("loss.distil=1.0", "loss.distil_to=embedding"),
    ),
    # The distance weighs nothing: what is left is the cross-entropy of the whole rationale, in every stage.
    Row("full_rehearsed", "steps", "full, the written rationale trained to the end", ("loss.distil=1.0e-9",)),
    Row("stages_6_decoded", "steps", "6 stages, each step read by a decoder", ("loss.decode=1.0",)),
    Row(
        "k_4_decoded",
        "steps",
        "K = 4, each step read by a decoder",
        ("curriculum.num_latent_steps=4", "loss.decode=1.0"),
    ),
    *(
        Row(
            f"jacobi_{sweeps}",
            "steps",
            f"Jacobi, T = {sweeps}",
            (f"model.plume={{rollout: jacobi, sweeps: {sweeps}}}",),
        )
        for sweeps in (1, 2, 3, 4)
    ),
)
TRUNK_ROW = "explicit_cot_stage_0"  # the trunk itself, evaluated


def row_names() -> list[str]:
    """Names of all rows, in the order of the tables."""
    return [row.name for row in ROWS]


def rows_called(names: str) -> list[str]:
    """Names of the rows that a command line asks for.

    Args:
        names (`str`): Names with commas between them; "paper", all but the table "steps"; or "all".

    Raises:
        ValueError: no such row.
    """
    if names in ("all", "paper"):
        return [row.name for row in ROWS if names == "all" or row.table != "steps"]
    return [row_named(name).name for name in names.split(",")]


def row_named(name: str) -> Row:
    """The row of a name.

    Raises:
        ValueError: no such row.
    """
    found = [row for row in ROWS if row.name == name]
    if not found:
        raise ValueError(f"No row {name!r}; there are {', '.join(row_names())}.")
    return found[0]


def recipe_of(row: Row, task: str, seed: int, output_dir: str, settings: list[str]) -> Recipe:
    """A row's recipe.

    Args:
        task (`str`): The recipe that all rows change: a key of `TASKS`, or the path of a YAML file. Rows begin
            without `loss.distil`, whatever it says, unless `settings` or the row have it.
        settings (`list[str]`): Changes to every row, such as fewer steps.
    """
    own = [f"seed={seed}", f"output_dir={output_dir}", "workers=0"]
    recipe = load_recipe(TASKS.get(task, task), [*WITHOUT_DISTILLATION, *settings, *row.settings, *own])
    if row.name == "single_mlp_matched":
        plume = {"adapter_type": "mlp", "mlp_inner_size": matched_inner_size(recipe.model.hidden_size)}
        return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, plume=plume))
    if row.name == "anytime":
        early = tuple(range(1, recipe.curriculum.num_latent_steps))
        if len(early) < recipe.curriculum.anytime_reads:
            raise ValueError(
                f"The row anytime reads {recipe.curriculum.anytime_reads} numbers of steps below K; with "
                f"curriculum.num_latent_steps={recipe.curriculum.num_latent_steps} there are {len(early)}."
            )
        return dataclasses.replace(recipe, curriculum=dataclasses.replace(recipe.curriculum, anytime_steps=early))
    if row.name.endswith("_longer"):
        curriculum = dataclasses.replace(recipe.curriculum, max_steps=3 * recipe.curriculum.max_steps)
        return dataclasses.replace(recipe, curriculum=curriculum)
    if row.name == "pause":  # its last stage is its only one, so it learns as others do at the beginning
        return with_rate(recipe, recipe.curriculum.learning_rates[0])
    if row.name.startswith("stages_"):
        return with_segments(recipe, int(row.name.split("_")[1]))
    return recipe


def changes_of(row: Row, task: str, settings: Sequence[str] = ()) -> list[str]:
    """What a row, under these changes to every row, changes in the recipe of the task, as behind `--set`; also what is
    worked out from the recipe."""
    own = recipe_of(row, task, 0, "runs", list(settings))
    plain = load_recipe(TASKS.get(task, task), ["seed=0", "output_dir=runs", "workers=0"])
    changed, was = settings_by_name(own), settings_by_name(plain)
    return [f"{name}={json.dumps(value)}" for name, value in changed.items() if value != was[name]]


def recipe_behind(task: str, settings: Sequence[str]) -> Recipe:
    """The recipe of a row in a results file.

    Args:
        task (`str`): Of the file.
        settings (`Sequence[str]`): Of the row: what [`changes_of`] gave, changes to every row among them.
    """
    return load_recipe(TASKS.get(task, task), list(settings))


def with_rate(recipe: Recipe, rate: float) -> Recipe:
    """The recipe with one learning rate for all stages."""
    rates = (rate,) * len(recipe.curriculum.learning_rates)
    return dataclasses.replace(recipe, curriculum=dataclasses.replace(recipe.curriculum, learning_rates=rates))


def with_segments(recipe: Recipe, count: int) -> Recipe:
    """The recipe with its rationale in `count` segments: the steps of the middle stages are shared among fewer or more
    of them, the first and the last stage stay as they are."""
    old = recipe.curriculum
    middle, rate = sum(old.shares[1:-1]) / (count - 1), old.learning_rates[1]
    return dataclasses.replace(
        recipe,
        curriculum=dataclasses.replace(
            old,
            num_segments=count,
            stages=tuple(range(count + 1)),
            shares=(old.shares[0], *(middle for _ in range(count - 1)), old.shares[-1]),
            learning_rates=(old.learning_rates[0], *(rate for _ in range(count - 1)), old.learning_rates[-1]),
        ),
    )


def matched_inner_size(
    hidden_size: int, num_experts: int = 5, expansion: int = 2, num_routed: int = 4, num_step_embeddings: int = 32
) -> int:
    """Inner width at which one MLP has as many parameters as the paper's adapter at this hidden size, to within half
    a unit of width: experts, router and step embeddings."""
    inner = expansion * hidden_size
    experts = num_experts * (2 * hidden_size * inner + inner + hidden_size)
    router = num_routed * (2 * hidden_size + 1) + num_step_embeddings * hidden_size
    return round((experts + router - hidden_size) / (2 * hidden_size + 1))
