"""The handler of Inference Endpoints. `plume-embed export` copies this file into a model's folder as handler.py.

There it stands beside the model and nothing else: it imports what transformers' users have, and no package of ours.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoModel, AutoProcessor

_KEYS = {"text", "image", "video"}
_PARAMETERS = {"latent_steps", "dimensions", "batch_size", "input_type"}
_INPUT_TYPES = ("query", "document")
_BATCH_SIZE = 16


class EndpointHandler:
    """A PLUME model as an endpoint calls it: `EndpointHandler(path)` once, then `handler(data)` for each request.

    Args:
        path (`str`): Folder of the model.

    Raises:
        ValueError: weights are missing in the folder.
    """

    def __init__(self, path: str = ""):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModel.from_pretrained(path, trust_remote_code=True, dtype="auto").to(device).eval()
        self.processor = AutoProcessor.from_pretrained(path, trust_remote_code=True)
        settings = Path(path) / "config_sentence_transformers.json"
        self.prompts = json.loads(settings.read_text()).get("prompts", {}) if settings.is_file() else {}

    def __call__(self, data: dict[str, Any]) -> list[list[float]]:
        """Vectors of unit norm, one for each item.

        Args:
            data (`dict`): "inputs" holds an item or a list of items. An item is a text, a PIL picture (what an endpoint
                makes of a request with a picture as its body), or an object with text, image and video. A picture or
                film in it is base64 or a data URL; a list of pictures under video are frames; `None` is not there.
                "parameters" may hold latent_steps (K), dimensions (the first so many values, normalised again),
                batch_size, and input_type: "query" or "document", with the prompt of that name in front and by
                default the K that the model has for it, as in `encode_query` and `encode_document`.

        Raises:
            ValueError: no valid request, with the remedy; where an item cannot be embedded, with its place in the list.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError('A request is {"inputs": an item or a list of items, "parameters": {...}}.')
        parameters = _parameters(data.get("parameters") or {})
        inputs = data["inputs"]
        prompt = self.prompts.get(parameters.get("input_type"), "")
        given = inputs if isinstance(inputs, list) else [inputs]
        items = [_prompted(prompt, self._item(place, one)) for place, one in enumerate(given)]
        if not items:
            raise ValueError("inputs is empty: there is nothing to embed.")
        vectors = self._vectors(items, parameters)
        dimensions = parameters.get("dimensions", vectors.shape[1])
        if not 1 <= dimensions <= vectors.shape[1]:
            raise ValueError(f"This model has vectors of {vectors.shape[1]} dimensions, got {dimensions}.")
        return F.normalize(vectors[:, :dimensions], dim=-1).tolist()

    def _item(self, place: int, given: Any) -> dict[str, Any]:
        try:
            return _item(given)
        except ValueError as error:
            raise self.processor.item_error(str(error), index=place) from error

    @torch.inference_mode()
    def _vectors(self, items: list[dict[str, Any]], parameters: dict[str, Any]) -> torch.Tensor:
        """[N, D], float32; pictures are batched with pictures and texts with texts, so that little is padding."""
        options = {"num_latent_steps": parameters.get("latent_steps"), "task": parameters.get("input_type")}
        size = parameters.get("batch_size", _BATCH_SIZE)
        places = sorted(range(len(items)), key=lambda place: (sorted(items[place]), len(items[place].get("text", ""))))
        found: dict[int, torch.Tensor] = {}
        for start in range(0, len(places), size):
            some = places[start : start + size]
            try:
                batch = self.processor([items[place] for place in some]).to(self.model.device)
            except self.processor.item_error as error:
                error.index = some[error.index]  # its place in the request, not in the batch
                raise
            found |= zip(some, self.model(**batch, **options).embeddings.float().cpu(), strict=True)
        return torch.stack([found[place] for place in range(len(items))])


def _parameters(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"parameters is an object with {', '.join(sorted(_PARAMETERS))}, got {_shown(given)}.")
    if unknown := set(given) - _PARAMETERS:
        raise ValueError(f"parameters holds {', '.join(sorted(unknown))}; it takes {', '.join(sorted(_PARAMETERS))}.")
    found = {name: value for name, value in given.items() if value is not None}
    for name, value in found.items():
        if name == "input_type":
            if value not in _INPUT_TYPES:
                raise ValueError(f"input_type must be {' or '.join(_INPUT_TYPES)}, got {_shown(value)}.")
        elif isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} must be a whole number, got {value!r}.")
    if found.get("batch_size", _BATCH_SIZE) < 1:
        raise ValueError(f"batch_size must be at least 1, got {found['batch_size']}.")
    return found


def _item(given: Any) -> dict[str, Any]:
    """An item for the processor. A string in a request never opens a file of the endpoint."""
    if isinstance(given, str):
        return {"text": given}
    if isinstance(given, Image.Image):
        return {"image": given}
    if not isinstance(given, dict) or not given or set(given) - _KEYS:
        raise ValueError(f"An item is a text or an object with {', '.join(sorted(_KEYS))}, got {_shown(given)}.")
    item: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:  # not there, as for the processor
            continue
        if key == "text":
            if not all(isinstance(text, str) for text in (value if isinstance(value, list) else [value])):
                raise ValueError(f"text must be a string or a list of strings, got {_shown(value)}.")
            item[key] = value
        elif isinstance(value, list):
            item[key] = list(_files(key, value))
        else:
            item[key] = next(_files(key, [value]))
    if not item:
        raise ValueError("The item is empty; an empty text is ''.")
    return item


def _prompted(prompt: str, item: dict[str, Any]) -> dict[str, Any]:
    """The item with the prompt in front of its text, or of its first one."""
    if not prompt:
        return item
    text = item.get("text", [])
    first, *others = [text] if isinstance(text, str) else text or [""]
    return item | {"text": [prompt + first, *others]}


def _files(key: str, values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Image.Image):
            yield value
        elif isinstance(value, str) and "://" not in value:
            try:
                yield base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value, validate=True)
            except ValueError as error:  # that of base64, or of letters outside ASCII
                raise ValueError(f"{key} holds no valid base64: {error}.") from error
        else:
            raise ValueError(f"{key} takes base64 or a data URL; addresses are not fetched. Got {_shown(value)}.")


def _shown(value: Any) -> str:
    return repr(value)[:60]
