"""A checkpoint in the released layout over every family of backbones: its tensors and its processor arrive."""

import random
from pathlib import Path

import pytest
import torch
from common import random_item
from model.families import NAMES, Tiny, make_tiny
from safetensors.torch import save_file

from plume_embed.hub.convert import convert_released
from plume_embed.model.modeling_plume import PlumeModel
from plume_embed.model.processing_plume import PlumeProcessor


def released_tensors(model: PlumeModel) -> dict[str, torch.Tensor]:
    """The state dict under the names of the released code, its experts one by one."""
    found = {}
    for name, tensor in model.state_dict().items():
        room, _, rest = name.partition(".")
        if name.startswith("adapter.experts."):
            layer, kind = rest.removeprefix("experts.").split("_")
            for index, one in enumerate(tensor):
                expert = "shared_expert" if index == 0 else f"experts.{index - 1}"
                one = one.T if kind == "weight" else one.squeeze(0)
                found[f"latent_moe_transition.{expert}.{layer}.{kind}"] = one.contiguous()
        elif room == "adapter":
            rest = rest.replace("layer_norm.", "ln.").replace("step_embedding.", "step_embed.")
            found[f"latent_moe_transition.{rest}"] = tensor
        else:
            found[f"model.{rest}" if room == "backbone" else name] = tensor
    return {name: tensor.clone() for name, tensor in found.items()}


def write_released(folder: Path, made: Tiny) -> Path:
    folder.mkdir()
    save_file(released_tensors(made.model), folder / "model.safetensors")
    made.model.config.backbone_config.save_pretrained(folder)
    for part in (made.processor.tokenizer, made.processor.image_processor, made.processor.video_processor):
        part.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_of_a_released_checkpoint_arrives_and_the_folder_embeds(name: str, tmp_path: Path):
    made = make_tiny(name, num_latent_steps=8)
    out = convert_released(write_released(tmp_path / "released", made), tmp_path / "converted")
    model, processor = PlumeModel.from_pretrained(out).eval(), PlumeProcessor.from_pretrained(out)
    expected = made.model.state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())
    assert model.config.num_latent_steps == 8 and processor.backbone_type == made.processor.backbone_type
    rng = random.Random(0)
    batch = processor([random_item(rng) for _ in range(3)])
    with torch.inference_mode():
        embeddings = model(**batch).embeddings
        made.model.config.position_mode = model.config.position_mode
        torch.testing.assert_close(embeddings, made.model(**batch).embeddings, atol=1e-5, rtol=0)
