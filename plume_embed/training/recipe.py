"""Recipes: YAML files, read into typed settings, changed by `--set key=value`."""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from plume_embed.training.curriculum import Curriculum
from plume_embed.training.gates import GateSettings
from plume_embed.training.loss.batch_loss import LossWeights
from plume_embed.training.recipes import FOLDER, recipe_names

# The smallest value of a setting, or of each value in its list.
_LEAST = {
    **dict.fromkeys(("seed", "workers", "save_steps", "data.max_bad_lines", "pairs.max_negatives"), 0),
    **dict.fromkeys(("curriculum.num_latent_steps", "pairs.sampled_steps"), 0),
    **dict.fromkeys(("batch_size", "chunk_size", "logging_steps", "curriculum.max_steps", "pairs.truncate"), 1),
    **dict.fromkeys(("early_stopping.every", "early_stopping.patience", "lora.rank", "lora.alpha"), 1),
    **dict.fromkeys(("model.side", "model.vocab_size", "model.hidden_size", "model.layers"), 1),
    **dict.fromkeys(("model.intermediate_size", "model.vision_size", "model.vision_depth"), 1),
    **dict.fromkeys(("gates.explicit_queries", "gates.gen_nce_steps"), 1),
    **dict.fromkeys(("model.initializer_range", "gates.suffix_ce", "gates.gen_nce"), 0),
    **dict.fromkeys(("curriculum.num_segments", "loss.dimensions"), 1),
    **dict.fromkeys(("data.augment_up_to", "data.enlarge_to", "weight_decay", "max_grad_norm"), 0),
    **dict.fromkeys(("curriculum.warmup", "curriculum.shares", "curriculum.learning_rates"), 0),
    **dict.fromkeys(("loss.cross_entropy", "loss.gen", "loss.anchor", "loss.balance", "loss.distil", "loss.decode"), 0),
}
# These lie between 0 and a largest value, and the next ones stay below it.
_MOST = dict.fromkeys(("curriculum.answer_share", "curriculum.decay_share", "gates.explicit_hit_at_1"), 1)
_MOST |= {"loss.false_negative_margin": 2, "seed": 2**32 - 1}  # a difference of cosines, and what NumPy takes
_BELOW = {"lora.dropout": 1, "adam_beta2": 1}


@dataclass(frozen=True)
class ModelSettings:
    """A fresh small model, or a folder with a model.

    Args:
        path (`str`, *optional*): Folder from `plume-embed init`; then the sizes below do not count.
        backbone (`str`): Model type of the backbone of a fresh model, and of a dry run.
        side (`int`): Pictures are resized to about `side` x `side` pixels.
        vocab_size (`int`): Of the tokenizer, which is trained on the corpus.
        freeze_vision (`bool`): Whether the vision tower stays as it is; its merger is trained in any case.
        plume (`dict`): Fields of PlumeConfig that differ from the defaults, e.g. `{adapter_type: mlp}`.
    """

    path: str | None = None
    backbone: str = "qwen2_vl"
    side: int = 56
    vocab_size: int = 2048
    freeze_vision: bool = False
    hidden_size: int = 128
    layers: int = 2
    intermediate_size: int = 256
    vision_size: int = 64
    vision_depth: int = 2
    initializer_range: float = 0.04
    plume: dict = field(default_factory=dict)

    def fresh(self) -> dict:
        """What [`small_model.make_model`] takes of it."""
        names = ("hidden_size", "layers", "intermediate_size", "vision_size", "vision_depth", "initializer_range")
        return {name: getattr(self, name) for name in names} | self.plume


@dataclass(frozen=True)
class DataSettings:
    """The corpus: JSONL files, a folder, or a data set of the `datasets` library.

    Args:
        files (`tuple[str]`): JSONL files.
        folder (`str`, *optional*): What `make miniature` wrote, instead of files.
        dataset (`str`, *optional*): Instead of files, what `datasets.load_dataset` takes (a Hub id or a folder; its
            split "train"), or a folder of `save_to_disk`, with the columns qry, pos and dataset_name or those of pairs.
        augment_up_to (`int`): Pictures of up to this many pixels a side are changed a little at random; 0: none.
        enlarge_to (`int`): Half of those pictures are shown larger, up to this many pixels a side (augment.py); 0: no.
        augment_videos (`bool`): Whether videos are changed as well, all frames of one alike.
        never_augmented (`tuple[str]`): Sub-datasets whose pictures keep their look, such as those about colours.
        repeat (`dict`): How often an epoch goes through a sub-dataset, where more than once: `{I-RET-edit: 2}`;
            whole numbers.
        media_root (`str`): What media paths in them are relative to; for pairs, it is itself relative to the folder of
            each file.
        max_bad_lines (`int`): How many malformed lines, or rows of a data set, are reported and left out before the run
            is refused. A medium is opened when its step comes: one that cannot be read ends the run, naming its row.
    """

    files: tuple[str, ...] = ()
    folder: str | None = None
    dataset: str | None = None
    augment_up_to: int = 0
    enlarge_to: int = 0
    augment_videos: bool = False
    never_augmented: tuple[str, ...] = ()
    repeat: dict = field(default_factory=dict)
    media_root: str = "."
    max_bad_lines: int = 0


@dataclass(frozen=True)
class PairSettings:
    """Fine-tuning on pairs of one's own (`task: pairs`); the files are those of `data`.

    Args:
        held_out (`float`): Share of the pairs that are left out of training and evaluated on, drawn by `seed`; pairs
            that share an item stay together, which may make it more.
        validation (`float`): Share of the pairs that are kept for early stopping, which chooses the weights by them;
            nothing else is reported of them. Without early stopping they are trained on.
        held_out_files (`tuple[str]`): Files to evaluate on instead.
        max_negatives (`int`): Most given negatives of a query in a step, drawn anew each time.
        sampled_steps (`tuple[int]`): Numbers of latent steps, one of which is drawn for each step of the training; ():
            K of the curriculum always. The evaluation scores each of them.
        truncate (`tuple[int]`): Also evaluate with the first so many dimensions.
    """

    held_out: float = 0.1
    validation: float = 0.1
    held_out_files: tuple[str, ...] = ()
    max_negatives: int = 1
    sampled_steps: tuple[int, ...] = ()
    truncate: tuple[int, ...] = ()


@dataclass(frozen=True)
class EarlyStopping:
    """Evaluate now and then on `pairs.validation`, keep the best weights, and stop when nothing gets better.

    Args:
        every (`int`): Steps between evaluations, each of which writes a checkpoint.
        patience (`int`): Evaluations in a row without a better score that end the run.
        metric (`str`): Which number of the evaluation, e.g. "hit_at_1"; more is better.
    """

    every: int = 50
    patience: int = 3
    metric: str = "ndcg_at_10"


@dataclass(frozen=True)
class LoraSettings:
    """LoRA through peft. The adapter of PLUME is new and therefore trained in full.

    Args:
        rank, alpha (`int`), dropout (`float`): As in `peft.LoraConfig`.
        target_modules (`str`): Regular expression over module names.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str = r"backbone\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True)
class Recipe:
    """One run.

    Args:
        task (`str`): Which data: "corpus", "pairs", or MODULE:CLASS for a task of one's own (see `tasks.py`).
        output_dir (`str`): Checkpoints, log.jsonl, results.json and, at the end, `model/`; on a disk that all processes
            share.
        batch_size (`int`): Pairs an optimiser step, over all processes.
        chunk_size (`int`, *optional*): Rows of one side that run together; lower it if you run out of memory, the
            gradient stays the same. `None`: all.
        checkpoint_layers (`bool`): Whether the activations of each layer are recomputed in the backward pass: less
            memory, about a third more time, the same gradient.
        target_rollout (`bool`): Whether targets run through the rollout as queries do (paper), or in a single pass.
            Then the model is saved with `document_latent_steps` = 0, and a corpus costs what a single pass costs.
        workers (`int`): Processes that prepare batches.
        split (`str`): What the end of the run is evaluated on: "test", or "validation" where settings are chosen.
        save_steps (`int`): Steps between checkpoints; 0 for none.
        pairs (`PairSettings`): Of `task: pairs`.
        early_stopping (`EarlyStopping`, *optional*): Of `task: pairs`.
        lora (`LoraSettings`, *optional*): Train low-rank updates instead of the backbone; `--set lora.rank=16`.
        report_to (`str`): "none", or what transformers' Trainer reports to and is installed, e.g. "tensorboard".
    """

    task: str
    output_dir: str
    curriculum: Curriculum
    seed: int = 0
    batch_size: int = 128
    chunk_size: int | None = None
    checkpoint_layers: bool = False
    target_rollout: bool = True
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    bf16: bool = False
    workers: int = 0
    logging_steps: int = 10
    save_steps: int = 0
    report_to: str = "none"
    split: Literal["test", "validation"] = "test"
    data: DataSettings = field(default_factory=DataSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    early_stopping: EarlyStopping | None = None
    lora: LoraSettings | None = None
    loss: LossWeights = field(default_factory=LossWeights)
    gates: GateSettings = field(default_factory=GateSettings)
    model: ModelSettings = field(default_factory=ModelSettings)

    @property
    def document_latent_steps(self) -> int | None:
        """What the model is saved with: K of documents where it is another than that of queries."""
        return None if self.target_rollout or self.curriculum.num_latent_steps == 0 else 0

    @property
    def step_fields(self) -> dict[str, Any]:
        """Fields of the model's config that say for which numbers of latent steps it was trained."""
        steps = self.curriculum.num_latent_steps
        anytime = {*self.curriculum.anytime_steps, *self.pairs.sampled_steps} - {steps}
        return {
            "num_latent_steps": steps,
            "document_latent_steps": self.document_latent_steps,
            "anytime_steps": sorted(anytime) or None,
        }


def load_recipe(name: str, assignments: list[str]) -> Recipe:
    """Reads a recipe and changes it.

    Args:
        name (`str`): One of [`recipe_names`], or the path of a YAML file.
        assignments (`list[str]`): "key=value" with dots for what is nested, values in YAML: "curriculum.stages=[0,4]".

    Raises:
        ValueError: no such recipe, key or type, naming it.
    """
    path = FOLDER / f"{name}.yaml" if name in recipe_names() else Path(name)
    if not path.is_file():
        raise ValueError(f"No recipe {name!r}; there are {', '.join(recipe_names())}, or give the path of a YAML file.")
    values = _from_yaml(path.read_bytes(), str(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no recipe: it must be a mapping of settings, got {values!r}.")
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise ValueError(f"--set takes KEY=VALUE, got {assignment!r}.")
        *groups, last = key.split(".")
        place = values
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ValueError(f"--set {key}: {group} has no keys of its own.")
        place[last] = _from_yaml(value, f"--set {key}")
    try:
        return recipe_from(values)
    except ValueError as error:
        raise error if name in recipe_names() else ValueError(f"{path}: {error}") from error


def _from_yaml(text: str | bytes, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not YAML: {error}") from error


def recipe_from(values: dict) -> Recipe:
    """A recipe from plain values, such as the `recipe` of a run's `results.json`.

    Raises:
        ValueError: a key or a type that is none of a recipe's, or a number that has no meaning there.
    """
    recipe = _build(Recipe, values, "")
    for at, least in _LEAST.items():
        for number in _numbers(recipe, at):
            if not least <= number < math.inf:  # which NaN is not either
                raise ValueError(f"{at} must be at least {least}{' and finite' * (number > least)}, got {number}.")
    for at, most in (_MOST | _BELOW).items():
        for number in _numbers(recipe, at):
            if not 0 <= number <= most or (at in _BELOW and number == most):
                raise ValueError(f"{at} must lie in 0..{most}{', below its end' * (at in _BELOW)}, got {number}.")
    for name, times in recipe.data.repeat.items():
        if not isinstance(times, int) or isinstance(times, bool) or times < 1:
            raise ValueError(f"data.repeat must be whole numbers of at least 1, got {name}: {times!r}.")
    if not 0 < recipe.loss.temperature < math.inf:
        raise ValueError(f"loss.temperature must be above 0, got {recipe.loss.temperature}.")
    if not any(recipe.curriculum.shares):
        raise ValueError(f"curriculum.shares must not all be 0, got {list(recipe.curriculum.shares)}.")
    if recipe.early_stopping is not None and recipe.task != "pairs":
        raise ValueError(
            f"early_stopping is for task: pairs, which keeps data to choose by; for {recipe.task} set it to null."
        )
    return recipe


def _numbers(settings: Any, at: str) -> tuple[float, ...]:
    """The value of a setting, or the values of a list; none where it or its group is not set."""
    for name in at.split("."):
        settings = None if settings is None else vars(settings)[name]
    if settings is None:
        return ()
    return settings if isinstance(settings, tuple) else (settings,)


def _build(cls: type, values: Any, at: str) -> Any:
    """A dataclass from plain values; every key and every type is checked."""
    if not isinstance(values, dict):
        raise ValueError(f"{at or 'The recipe'} must be a mapping, got {values!r}.")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"No such setting: {at}{unknown[0]}; there are {', '.join(at + name for name in hints)}.")
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
    missing = sorted(required - set(values))
    if missing:
        raise ValueError(f"Setting {at}{missing[0]} is missing; give it with --set {at}{missing[0]}=...")
    return cls(**{name: _convert(hints[name], value, f"{at}{name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, at: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{at}.")
    if origin is types.UnionType:
        return None if value is None else _convert(arguments[0], value, at)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{at} must be one of {', '.join(map(str, arguments))}, got {value!r}.")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{at} must be a list, got {value!r}.")
        return tuple(_convert(arguments[0], element, at) for element in value)
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 5e-5 as a string
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{at} must be a number, got {str(value)[:80]!r}.") from error
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{at} must be of type {hint.__name__}, got {value!r}.")
    return value
