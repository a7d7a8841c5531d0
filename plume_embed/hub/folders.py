"""What `init` and `convert` share: checks of folders, the processor of a backbone, saving."""

from pathlib import Path

from transformers import AddedToken, AutoTokenizer, PreTrainedConfig

from plume_embed.model.families_plume import backbone_family
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.model.prompt_plume import PLUME_TOKENS

_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def checked_folders(source: Path | None, out_dir: Path) -> tuple[Path | None, Path]:
    """Both as paths.

    Raises:
        ValueError: `out_dir` holds a model, or `source` none.
    """
    out_dir = Path(out_dir)
    if (out_dir / "config.json").exists():
        raise ValueError(f"{out_dir} holds a model already; choose another folder.")
    if source is not None and not (Path(source) / "config.json").is_file():
        raise ValueError(f"{source} is no checkpoint folder: it has no config.json.")
    return Path(source) if source is not None else None, out_dir


def make_processor(backbone_config: PreTrainedConfig, source: str | Path, **attributes) -> PlumeProcessor:
    """The processor over the tokenizer and the media processors of `source`, which may lack the latter.

    Args:
        backbone_config: Of the backbone.
        source (`str` or `Path`): Folder or Hub id of the backbone.
        attributes: Of [`PlumeProcessor`].
    """
    family = backbone_family(backbone_config.model_type)
    tokenizer = AutoTokenizer.from_pretrained(source)
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in PLUME_TOKENS if t not in known])
    is_folder = Path(source).is_dir()
    if not is_folder or any((Path(source) / name).is_file() for name in _PREPROCESSORS):
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


def save_model(model: PlumeModel, processor: PlumeProcessor, out_dir: Path) -> Path:
    """Writes both; returns `out_dir`."""
    model.save_pretrained(out_dir)
    processor.save_pretrained(out_dir)
    return out_dir
