"""What `init`, `convert` and `export` read, checked before anything is made of it: each error names the file."""

import json
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from plume_embed.model.arguments_plume import refuse_pickled_weights
from plume_embed.model.families_plume import SUPPORTED_BACKBONES, backbone_family, check_backbone
from plume_embed.model.sentence_transformers_plume import SENTENCE_TRANSFORMERS_FILES
from plume_embed.stored import naming, read_json, why_no_model

FETCH_AGAIN = "Fetch or make it again."
_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_TOKENIZER = "tokenizer.json"
_TOKENIZER_PARTS = ("vocab.json", "merges.txt")  # of which a tokenizer.json can be made
_OTHER_JSON = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json")
_JSON_FILES = ("config.json", _TOKENIZER, "vocab.json", *_OTHER_JSON, *PREPROCESSORS)


def is_folder(source: str | Path) -> bool:
    """Whether it means a folder, there or not, and no id of the Hub."""
    return isinstance(source, Path) or source.startswith((".", "/", "~")) or Path(source).exists()


def find_file(source: str | Path, name: str) -> Path | None:
    """A file of a folder, or of a model on the Hub, which is fetched; `None`: it has none."""
    if is_folder(source):
        file = Path(source) / name
        return file if file.is_file() else None
    found = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def read_backbone_config(source: str | Path, if_plume: str) -> PreTrainedConfig:
    """The config of a backbone; no code of its folder is run.

    Args:
        source (`str` or `Path`): Folder or Hub id.
        if_plume (`str`): What to say of a model of this package.

    Raises:
        ValueError: there is none, the Hub does not give it, it is damaged, its weights are pickles, or it is of no
            supported backbone.
    """
    if is_folder(source):
        refuse_pickled_weights(source)
        if find_file(source, "config.json") is None:
            raise ValueError(why_no_model(Path(source)))
    try:
        cached = cached_file(str(source), "config.json")
    except OSError as error:  # why the Hub does not give it, mostly without the name
        raise ValueError(
            f"{source} is no folder here, and the Hub does not give it: {error} Name a folder that holds the model, or "
            "an id of the Hub that can be reached."
        ) from error
    assert cached is not None
    file = Path(cached)
    values = read_json(file, FETCH_AGAIN)
    model_type = values.get("model_type") if isinstance(values, dict) else None
    if model_type == "plume":
        raise ValueError(f"{source} is a 'plume', {if_plume}")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{file} names the model type {model_type!r}, which is not supported; supported: "
            f"{', '.join(SUPPORTED_BACKBONES)}."
        )
    with naming(file, FETCH_AGAIN):
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        except StrictDataclassError as error:
            raise ValueError(str(error)) from error
    check_backbone(config)
    return config


def read_tokenizer(source: str | Path, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone, checked against its config.

    Args:
        config: Of the backbone; its `vocab_size` is the number of rows of the embedding matrix.

    Raises:
        ValueError: a file is missing or damaged, or the tokenizer is another model's.
    """
    with naming(find_tokenizer(source), FETCH_AGAIN):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    check_tokenizer(tokenizer, config, source)
    return tokenizer


def find_tokenizer(source: str | Path) -> Path:
    """The file with a tokenizer's vocabulary.

    Raises:
        ValueError: there is none: the library would go on with the special tokens of tokenizer_config.json alone.
    """
    file = find_file(source, _TOKENIZER)
    if file is None:
        parts = [find_file(source, name) for name in _TOKENIZER_PARTS]
        file = parts[0] if all(parts) else None
    if file is None:
        raise ValueError(
            f"{source} lacks {_TOKENIZER} (or {' and '.join(_TOKENIZER_PARTS)}), without which all texts are the same; "
            "fetch it."
        )
    return file


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, source: str | Path) -> None:
    """Compares a tokenizer with the config of the backbone, whose `vocab_size` is the rows of the embedding matrix.

    Raises:
        ValueError: the placeholders of media have other ids, or the vocabulary has not the size of the matrix.
    """
    family, known = backbone_family(config.model_type), tokenizer.get_vocab()
    tokens = {family.image_token: config.image_token_id}
    if family.video_token != family.image_token:
        tokens[family.video_token] = config.video_token_id
    wrong = {token: (known.get(token), token_id) for token, token_id in tokens.items() if known.get(token) != token_id}
    if wrong:
        raise ValueError(
            f"The tokenizer and config.json of {source} disagree (tokenizer, config): {wrong}; take both "
            "from one model."
        )
    rows, largest = config.get_text_config().vocab_size, max(known.values())
    # A matrix is often padded to a round number, but not to twice the vocabulary.
    if not rows / 2 < largest + 1 <= rows:
        raise ValueError(
            f"The tokenizer of {source} has ids up to {largest}, and the embedding matrix {rows} rows; take both from "
            "one model."
        )
    padding = config.get_text_config().pad_token_id
    if padding is not None and padding >= rows:
        raise ValueError(
            f"The config.json of {source} has pad_token_id {padding}, and the embedding matrix {rows} rows; take both "
            "from one model."
        )


def check_files(folder: Path) -> None:
    """Reads the JSON files of a folder that libraries will read: they do not say which one was damaged.

    Raises:
        ValueError: one holds no JSON, the index of the weights has another form, or a file that it names is missing.
    """
    for file in (folder / name for name in (*_JSON_FILES, *SENTENCE_TRANSFORMERS_FILES)):
        if file.is_file():
            with naming(file, FETCH_AGAIN):
                kind = list if file.name == "modules.json" else dict
                if not isinstance(json.loads(file.read_bytes()), kind):
                    raise ValueError(f"it holds no {kind.__name__}")
    loaded_files(folder)


def loaded_files(folder: Path) -> list[Path]:
    """The files of weights that transformers loads from a folder: `model.safetensors`, else those of the index.

    Raises:
        ValueError: as [`_indexed_files`], where it is the index that counts.
    """
    first = _weights_or_index(folder)
    if first is None:
        return []
    return _indexed_files(folder) if first.name == _INDEX else [first]


def find_file_of(source: str | Path, tensor: str) -> Path | None:
    """The file from which transformers loads a tensor, of a folder or of a model on the Hub, which is fetched.

    Returns:
        `model.safetensors`, whether the tensor is in it or not, else what the index says; `None`: it says nothing.

    Raises:
        ValueError: as [`read_weight_map`].
    """
    first = _weights_or_index(source)
    if first is None or first.name != _INDEX:
        return first
    shard = read_weight_map(first).get(tensor)
    return None if shard is None else find_file(source, shard)


def _weights_or_index(source: str | Path) -> Path | None:
    """What transformers begins with: beside `model.safetensors` it does not look at an index, which may be old."""
    return find_file(source, _WEIGHTS) or find_file(source, _INDEX)


def _indexed_files(folder: Path) -> list[Path]:
    """The files that the index of the weights names, all of which are there.

    Raises:
        ValueError: the index is damaged, names what is no file of the folder, or a file is missing.
    """
    names = sorted(set(read_weight_map(folder / _INDEX).values()))
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise ValueError(f"{folder} lacks the shards {absent} that its index names; fetch them.")
    return [folder / name for name in names]


def read_weight_map(index: Path) -> dict[str, str]:
    """Name of a tensor -> name of its file, from an index of weights.

    Raises:
        ValueError: it has another form, or leads out of its folder.
    """
    with naming(index, FETCH_AGAIN):
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = set(weight_map.values())
        if not names:
            raise ValueError("its weight_map is empty")
        foreign = sorted(str(name) for name in names if not isinstance(name, str) or not _is_plain(name))
        if foreign:
            raise ValueError(f"it names {foreign}, which are no safetensors files beside it")
    return weight_map


def check_weights(files: Sequence[Path]) -> None:
    """Opens safetensors files, which compares each one's header with its size.

    Raises:
        ValueError: one is damaged.
    """
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged: {error}. {FETCH_AGAIN}") from error


def _is_plain(name: str) -> bool:
    return name.endswith(".safetensors") and not {"/", "\\"} & set(name)
