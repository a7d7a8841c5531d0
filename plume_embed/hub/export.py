"""Export: a model -> a self-contained folder for the Hub, with a model card."""

import json
import shutil
from pathlib import Path

from huggingface_hub import ModelCardData

from plume_embed.encode.encoder import load_model, resolve_model
from plume_embed.hub.folders import new_folder
from plume_embed.hub.sources import check_files, find_tokenizer
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from plume_embed.stored import naming

PAPER = "https://arxiv.org/abs/2604.02073"
_SETTINGS = "config_sentence_transformers.json"  # prompts, similarity, dimensions
_HANDLER = Path(__file__).with_name("handler.py")
# What the model's files import, for an endpoint to install; a test compares it with pyproject.toml.
HANDLER_REQUIREMENTS = (
    "torch>=2.11",
    "torchvision>=0.26",
    "transformers>=5.17",
    "huggingface_hub>=1.5",
    "safetensors>=0.8",
    "timm>=1.0.20",
    "numpy>=2.2",
    "pillow>=11.0",
    "av>=14.0",
)
_TAGS = [
    "plume",
    "transformers",
    "sentence-transformers",
    "multimodal",
    "embeddings",
    "retrieval",
    "latent-reasoning",
    "custom_code",
]


def export_model(
    out: Path,
    model: str | Path | None = None,
    base_model: str | None = None,
    license_id: str = "apache-2.0",
) -> Path:
    """Writes weights, configuration, code, sentence-transformers files, a handler for Inference Endpoints and a card.

    No links, nothing else needed. What sentence-transformers has saved in the model is kept: prompts, similarity, the
    number of dimensions.

    Args:
        out (`Path`): Where to write; see [`new_folder`].
        model (`str` or `Path`, *optional*): Folder or Hub id; see [`resolve_model`].
        base_model (`str`, *optional*): Hub id of the backbone, for the card.
        license_id (`str`): Licence of the weights, in the Hub's spelling.

    Raises:
        ValueError: `out` is not empty, there is no such model, a file of it is damaged, or it has further modules of
            sentence-transformers.
    """
    out = Path(out)
    with new_folder(out) as folder:
        source = resolve_model(model)
        check_files(source)
        find_tokenizer(source)
        _refuse_further_modules(source)
        plume, processor = load_model(source), PlumeProcessor.from_pretrained(source)
        plume.save_pretrained(folder)
        if (source / _SETTINGS).is_file():  # the other files say how the model is called, which this version knows best
            shutil.copyfile(source / _SETTINGS, folder / _SETTINGS)
        processor.save_pretrained(folder)
        (folder / "handler.py").write_text(_HANDLER.read_text())
        (folder / "requirements.txt").write_text("".join(f"{one}\n" for one in HANDLER_REQUIREMENTS))
        (folder / "README.md").write_text(model_card(plume, processor, out.resolve().name, base_model, license_id))
    return out


def _refuse_further_modules(source: Path) -> None:
    """Raises for modules of sentence-transformers behind the model: nothing but that library would apply them."""
    file = source / "modules.json"
    if not file.is_file():
        return
    with naming(file):
        modules = [(one["path"], one["type"].rpartition(".")[2]) for one in json.loads(file.read_bytes())]
    further = [f"{path} ({kind})" for path, kind in modules if path or kind != "Transformer"]
    if further:
        raise ValueError(
            f"{file} has further modules: {', '.join(further)}. Only sentence-transformers applies them, so an export "
            "would be another model; push the folder as it is, or take them out of it."
        )


def model_card(model: PlumeModel, processor: PlumeProcessor, name: str, base_model: str | None, license_id: str) -> str:
    """The README.md of a model, in Markdown with the Hub's front matter."""
    config = model.config
    front_matter = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="feature-extraction",
        tags=_TAGS,
        base_model=base_model,
        license=license_id,
    ).to_yaml()
    frames = f"{processor.num_frames} evenly spaced frames"
    if processor.fps is not None:
        frames = f"{processor.fps:g} frames a second"
    of_documents = (
        "Vectors with different K are different embeddings:\nembed documents and queries with the same K."
        if config.document_latent_steps is None
        else f"Documents take K = {config.document_latent_steps},\nwhatever that of queries: `encode_document` of "
        "sentence-transformers does so by itself."
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    experts = {
        "moe": f"{config.num_experts} experts, {config.num_experts_per_tok} per step"
        + (", and a shared one" if config.use_shared_expert else ""),
        "mlp": "one expert",
        "none": "none",
    }[config.adapter_type]
    backbone = (
        f"[{base_model}](https://huggingface.co/{base_model})" if base_model else config.backbone_config.model_type
    )
    return _CARD.format(
        front_matter=front_matter,
        name=name,
        paper=PAPER,
        parameters=f"{parameters / 1e6:,.1f}M",
        dimension=config.hidden_size,
        backbone=backbone,
        steps=config.num_latent_steps,
        max_steps=config.num_step_embeddings,
        experts=experts,
        dtype=str(model.dtype).removeprefix("torch."),
        picture_limits=processor.family.describe_limits(processor),
        frames=frames,
        of_documents=of_documents,
        max_length=f"{processor.max_length:,}",
    )


_CARD = """\
---
{front_matter}
---

# {name}

A PLUME model ([paper]({paper})): it embeds texts, images, videos and their
combinations into one space. Before it gives the vector, it thinks in {steps} latent steps: hidden states that are fed
back, instead of a written rationale.

| | |
|---|---|
| backbone | {backbone} |
| parameters | {parameters}, {dtype} |
| dimension of a vector | {dimension}, unit norm, compared by cosine |
| latent steps (K) | {steps} by default, 0 to {max_steps} |
| adapter between the steps | {experts} |

## Use with transformers

```python
import torch
from transformers import AutoModel, AutoProcessor

name = "{name}"  # this folder, or its Hub id
model = AutoModel.from_pretrained(name, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)

items = ["a red bicycle", {{"image": "bicycle.jpg"}}, {{"image": "bicycle.jpg", "text": "the same in blue"}}]
with torch.inference_mode():
    vectors = model(**processor(items)).embeddings  # [3, {dimension}], unit norm
print(vectors @ vectors.T)
```

## Use with sentence-transformers

```python
from PIL import Image
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}", trust_remote_code=True)
vectors = model.encode(["a red bicycle", Image.open("bicycle.jpg")])
quick = model.encode(["a red bicycle"], num_latent_steps=0)
```

## Use as an endpoint

`handler.py` answers on Inference Endpoints: `{{"inputs": ["a red bicycle", {{"image": "<base64>"}}], "parameters":
{{"latent_steps": {steps}}}}}` gives one vector an item. `pip install "plume-embed[serve]"` and
`plume-embed serve --model {name}` give OpenAI's `/v1/embeddings` on a machine of your own.

## What K does

`num_latent_steps` (K) is a choice of the call: `model(**batch, num_latent_steps=4)`. More steps cost one short pass of
the backbone each; 0 is a single pass without a rollout. {of_documents}

## Limits

- {picture_limits}; of a video file {frames} are used.
- An input has at most {max_length} tokens, and a longer one raises an error: nothing is cut off silently.
  `max_seq_length` of sentence-transformers is this limit.
- `pipeline("feature-extraction")` of transformers would tokenise without the prompt, so the model refuses its batches.
- The scores rank, they are not probabilities, and they inherit the backbone's biases.
"""
