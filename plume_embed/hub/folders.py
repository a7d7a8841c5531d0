"""What `init`, `convert` and `export` share: the folder that they make, the processor of a backbone, saving."""

import fnmatch
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from transformers import AddedToken, PreTrainedConfig

from plume_embed.atomic import to_disk
from plume_embed.hub.sources import PREPROCESSORS, is_folder, read_tokenizer
from plume_embed.model.families_plume import backbone_family
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.model.prompt_plume import PLUME_TOKENS
from plume_embed.stored import read_json

# What a new repository of the Hub holds when it has been cloned; none of it is written here.
_OF_A_REPOSITORY = {".git", ".gitattributes"}
_NAMED = 3  # files or weights that an error names
# What a published PLUME model consists of, of this version of the libraries or an older one.
_OF_A_MODEL = (
    *("*config*.json", "*token*.json", "modules.json", "chat_template.jinja", "*_plume.py"),
    *("*.safetensors", "*.safetensors.index.json", "training.json", "README.md"),
)


@contextmanager
def new_folder(out_dir: Path, replaces_model: bool = False) -> Iterator[Path]:
    """Yields a folder to write files to; they are `out_dir` when the block ends, and go away when it raises.

    `out_dir` must be absent or empty; an empty repository of Git, as cloned from the Hub, counts as empty.

    Args:
        out_dir (`Path`): What the folder is to be called.
        replaces_model (`bool`): Whether it may also hold a PLUME model, which is removed once the new one is whole.

    Raises:
        ValueError: `out_dir` holds anything else, or is no folder.
    """
    replaces = replaces_model and check_replaceable(out_dir)
    if replaces:
        out_dir = out_dir.resolve()  # of a link, the folder is exchanged
    else:
        _check_free(out_dir)
    fills = not replaces and out_dir.is_dir()  # perhaps a mounted disk or a repository: it stays, and is filled
    name = f".{out_dir.name}.{secrets.token_hex(4)}.partial"
    partial = out_dir / name if fills else out_dir.parent / name
    made = [folder for folder in partial.parents if not folder.exists()]
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                to_disk(file)
        if replaces:
            _exchange(partial, out_dir)
        elif fills:
            _move_into(partial, out_dir)
        else:
            partial.rename(out_dir)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # somebody else has put something there
            for folder in made:
                folder.rmdir()
        raise


def check_replaceable(out_dir: Path) -> bool:
    """Refuses a folder that a new model must neither fill nor replace.

    Returns:
        Whether it holds a PLUME model, which is to be replaced, and nothing else; False for one that is free.

    Raises:
        ValueError: it holds anything else, or is no folder.
    """
    config = out_dir / "config.json"
    saved = read_json(config, "Choose another folder.") if config.is_file() else None
    if not isinstance(saved, dict) or saved.get("model_type") != "plume":
        _check_free(out_dir)
        return False
    others = sorted(path.name for path in out_dir.iterdir() if not _is_of_a_model(path))
    if others:
        raise ValueError(
            f"{out_dir} holds {_named(others)} beside a model, and would be replaced; move that away, or choose "
            "another folder."
        )
    return True


def make_processor(backbone_config: PreTrainedConfig, source: str | Path, **attributes) -> PlumeProcessor:
    """The processor over the tokenizer and the media processors of `source`, which may lack the latter.

    Args:
        backbone_config: Of the backbone; see [`read_tokenizer`].
        source (`str` or `Path`): Folder or Hub id of the backbone.
        attributes: Of [`PlumeProcessor`].
    """
    family = backbone_family(backbone_config.model_type)
    tokenizer = read_tokenizer(source, backbone_config)
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in PLUME_TOKENS if t not in known])
    if not is_folder(source) or any((Path(source) / name).is_file() for name in PREPROCESSORS):
        image_processor, video_processor = family.load_processors(source)
    else:
        image_processor, video_processor = family.make_processors(backbone_config)
    return PlumeProcessor(
        image_processor,
        tokenizer,
        video_processor,
        backbone_type=family.model_type,
        backbone_settings=family.settings(backbone_config),
        **attributes,
    )


def save_model(model: PlumeModel, processor: PlumeProcessor, folder: Path) -> None:
    """Writes both.

    Raises:
        ValueError: a weight has values that are not finite: no vector of such a model would be one.
    """
    broken = [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"Weights with values that are not finite: {_named(broken)}. Fetch or make them again.")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _named(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _check_free(out_dir: Path, but: str | None = None) -> None:
    """Refuses a folder with anything in it, beside an entry of the name `but`."""
    if not out_dir.is_dir():
        if out_dir.exists() or out_dir.is_symlink():
            raise ValueError(f"{out_dir} is no folder; choose another name.")
        return
    names = sorted(path.name for path in out_dir.iterdir() if path.name not in _OF_A_REPOSITORY | {but})
    if "config.json" in names:
        raise ValueError(f"{out_dir} holds a model already; choose another folder.")
    if names:
        raise ValueError(f"{out_dir} is not empty, it holds {_named(names)}; choose a folder that is new or empty.")


def _is_of_a_model(path: Path) -> bool:
    return not path.is_dir() and any(fnmatch.fnmatch(path.name, pattern) for pattern in _OF_A_MODEL)


def _exchange(partial: Path, out_dir: Path) -> None:
    """Gives `partial` the name of the model in `out_dir`. A kill between the renames leaves both, whole, beside it."""
    check_replaceable(out_dir)  # something may have come meanwhile
    old = out_dir.with_name(f".{out_dir.name}.{secrets.token_hex(4)}.old")
    out_dir.rename(old)
    try:
        partial.rename(out_dir)
    except BaseException:
        old.rename(out_dir)
        raise
    shutil.rmtree(old)


def _move_into(partial: Path, out_dir: Path) -> None:
    _check_free(out_dir, but=partial.name)
    names = [file.name for file in partial.iterdir()]
    names.sort(key="config.json".__eq__)  # it comes last: a folder without it is no model
    try:
        for name in names:
            (partial / name).rename(out_dir / name)
        partial.rmdir()
    except BaseException:
        for name in names:
            (out_dir / name).unlink(missing_ok=True)
        raise
