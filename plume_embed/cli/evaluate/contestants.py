"""The models of an evaluation: what --model, --peer and --steps name."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plume_embed.encode.encoder import Encoder
    from plume_embed.evaluation.embedders import Embedder

# A paradigm and its K; None is the model's own.
Variant = tuple[str, int | None]


@dataclass(frozen=True)
class ModelOptions:
    """The options that decide about models, alike for all of them."""

    device: str | None
    dtype: str
    max_new_tokens: int | None = None
    trust_remote_code: bool = False


def parse_steps(steps: str) -> list[Variant]:
    """`0,8,cot,anchor,z3` as paradigms with their K: 0 is a single pass, cot a rationale; z3 is read at z(3).

    What is named twice counts once.

    Raises:
        ValueError: another word.
    """
    return list(dict.fromkeys(_variant(word) for word in steps.split(",")))


def model_and_steps(given: str | None) -> tuple[str | None, str | None]:
    """`DIR@STEPS` as the model and its steps; an @ within the name of a folder that is there is none of these."""
    if given is not None and Path(given).expanduser().is_dir():
        return given, None
    name, at, steps = (given or "").rpartition("@")
    if at and re.fullmatch(r"(cot|anchor|z?\d+)(,(cot|anchor|z?\d+))*", steps):
        return name, steps
    return given, None


def check_options(options: ModelOptions, variants: Iterable[Variant], peers: Sequence[str]) -> None:
    """Refuses options that none of the models would read.

    Raises:
        ValueError: such an option, with the remedy.
    """
    if options.max_new_tokens is not None and all(paradigm != "cot" for paradigm, _ in variants):
        raise ValueError("--max-new-tokens is of a written rationale (cot), and none is asked for; leave it out.")
    if options.trust_remote_code and not peers:
        raise ValueError("--trust-remote-code lets a --peer run its own code, and there is none; leave it out.")


def load_contestants(
    models: Sequence[str | None], peers: Sequence[str], variants: Sequence[Variant], options: ModelOptions
) -> "tuple[list[Embedder], dict[str, str | int]]":
    """Loads the models, each once for all of its variants.

    Args:
        models: Values of --model, `DIR@STEPS` or without steps; None is the default model.
        peers: Models of sentence-transformers.
        variants: For models without steps of their own.
        options: See `ModelOptions`.

    Returns:
        The models in order, and what a latency depends on besides them.

    Raises:
        ValueError: a model that cannot be loaded, two that a table could not tell apart, or options that none of them
            would read.
    """
    from plume_embed.encode.encoder import Encoder
    from plume_embed.evaluation.embedders import PlumeEmbedder, SentenceTransformerEmbedder, check_names, column_name

    named = [(name, variants if own is None else parse_steps(own)) for name, own in map(model_and_steps, models)]
    check_options(options, [variant for _, own in named for variant in own], peers)
    embedders: list[Embedder] = []
    conditions: dict[str, str | int] = {}
    for name, chosen in named:
        encoder = Encoder(name, options.device, options.dtype)
        for paradigm, number in chosen:
            embedders.append(PlumeEmbedder(encoder, paradigm, number, max_new_tokens=options.max_new_tokens))
        conditions = conditions_of(encoder)
    embedders += [
        SentenceTransformerEmbedder(name, options.device, options.trust_remote_code, options.dtype) for name in peers
    ]
    check_names(embedders)
    of_each = {column_name(embedder): embedder.dtype for embedder in embedders}
    alike = len({*of_each.values()}) == 1
    conditions["dtype"] = embedders[0].dtype if alike else ", ".join(f"{n}: {d}" for n, d in of_each.items())
    return embedders, conditions


def conditions_of(encoder: "Encoder") -> dict[str, Any]:
    """What a latency depends on besides the model."""
    import torch
    import transformers

    is_cuda = encoder.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(encoder.device) if is_cuda else encoder.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _variant(word: str) -> Variant:
    if word.strip() in ("cot", "anchor"):
        return word.strip(), None
    try:
        number = int(word.strip().removeprefix("z"))
    except ValueError as error:
        raise ValueError(
            f"--steps takes whole numbers, cot, anchor and z1, z2 ... with commas between, got {word!r}."
        ) from error
    if not number:
        return "single", None
    return ("state" if "z" in word else "latent"), number
