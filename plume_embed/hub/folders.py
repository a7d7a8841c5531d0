"""What `init`, `convert` and `export` share: the folder that they make, the processor of a backbone, saving."""

import secrets
import shutil
from collections.abc import Iterator
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

# What a new repository of the Hub holds when it has been cloned; none of it is written here.
_OF_A_REPOSITORY = {".git", ".gitattributes"}
_NAMED = 3  # files or weights that an error names


@contextmanager
def new_folder(out_dir: Path) -> Iterator[Path]:
    """Yields a folder to write files to; they are `out_dir` when the block ends, and go away when it raises.

    `out_dir` must be absent or empty; an empty repository of Git, as cloned from the Hub, counts as empty.

    Raises:
        ValueError: `out_dir` holds anything else, or is no folder.
    """
    _check_free(out_dir)
    fills = out_dir.is_dir()  # it may be a mounted disk or a repository, so it stays, and the files move into it
    name = f".{out_dir.name}.{secrets.token_hex(4)}.partial"
    partial = out_dir / name if fills else out_dir.parent / name
    made = [folder for folder in partial.parents if not folder.exists()]
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                to_disk(file)
        if fills:
            _move_into(partial, out_dir)
        else:
            partial.rename(out_dir)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # somebody else has put something there
            for folder in made:
                folder.rmdir()
        raise


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
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise ValueError(
            f"Weights with values that are not finite: {', '.join(broken[:_NAMED])}{more}. Fetch or make them again."
        )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


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
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise ValueError(
            f"{out_dir} is not empty, it holds {', '.join(names[:_NAMED])}{more}; choose a folder that is new or empty."
        )


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
