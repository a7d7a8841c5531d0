"""What several tests share: the fixture's cases, random inputs, and a naive reference that caches nothing."""

import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

FIXTURES = Path(__file__).parent / "fixtures" / "released_layout_tiny"
CASES = json.loads((FIXTURES / "cases.json").read_text())
WORDS = ("a", "red", "bicycle", "near", "湖边", "naïve", "Ωmega", "12,345", "pages", "text!", "cats\nand", "dogs")


def expected() -> dict[str, torch.Tensor]:
    """The values that the released code gives, by "case.name"."""
    return load_file(FIXTURES / "expected.safetensors")


def case_item(case: dict) -> dict:
    """A case of the fixture as an item for PlumeProcessor."""
    item: dict = {}
    for part in case["content"]:
        if part["type"] == "text":
            item["text"] = part["text"]
        elif part["type"] == "image":
            item.setdefault("image", []).append(FIXTURES / part["path"])
        else:
            item.setdefault("video", []).append([FIXTURES / frame for frame in part["frames"]])
    return item


def random_image(rng: random.Random) -> Image.Image:
    """Noise of a random size, so that grids and visual token counts differ."""
    width, height = rng.randint(20, 130), rng.randint(20, 130)
    return Image.fromarray(
        np.random.default_rng(rng.random().as_integer_ratio()).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def random_video(rng: random.Random) -> list[Image.Image]:
    """One to nine frames of one size."""
    first = random_image(rng).resize((rng.randint(28, 90), rng.randint(28, 90)))
    return [first.rotate(15 * index) for index in range(rng.randint(1, 9))]


def random_item(rng: random.Random) -> dict:
    """A text, an image, several images, a video, or a combination."""
    item: dict = {}
    kind = rng.choice(("text", "image", "images", "video", "both"))
    if kind in ("image", "both"):
        item["image"] = random_image(rng)
    if kind == "images":
        item["image"] = [random_image(rng) for _ in range(rng.randint(2, 3))]
    if kind in ("video", "both"):
        item["video"] = random_video(rng)
    if kind == "text" or rng.random() < 0.5:
        item["text"] = " ".join(rng.choices(WORDS, k=rng.randint(0, 25)))
    return item


@torch.inference_mode()
def naive_embedding(model, batch: dict, num_latent_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """PLUME written down once more, for one row without padding: no cache, the whole sequence again for every step.

    The positions of the prefix are the library's own, those after it p_slt + 1, 2, ... (`position_mode="mrope"`,
    `vision_position_advance="max_hw"`); the experts run one by one.

    Returns:
        The embedding [D] and the latent states [K, D].
    """
    config, backbone = model.config, model.backbone
    ids = batch["input_ids"]
    types = (ids == config.backbone_config.image_token_id).int() + 2 * (ids == config.backbone_config.video_token_id)
    positions, _ = backbone.get_rope_index(
        ids,
        mm_token_type_ids=types,
        image_grid_thw=batch.get("image_grid_thw"),
        video_grid_thw=batch.get("video_grid_thw"),
    )  # [3, 1, L]
    embeds = backbone.get_input_embeddings()(ids)  # [1, L, D]
    for kind, token_id in (
        ("image", config.backbone_config.image_token_id),
        ("video", config.backbone_config.video_token_id),
    ):
        pixels = batch.get("pixel_values" if kind == "image" else "pixel_values_videos")
        if pixels is not None:
            features = backbone.visual(pixels, grid_thw=batch[f"{kind}_grid_thw"]).pooler_output
            embeds = embeds.masked_scatter((ids == token_id).unsqueeze(-1), features)

    def hidden_states(sequence: torch.Tensor) -> torch.Tensor:
        extra = sequence.shape[1] - positions.shape[2]
        after = positions[:, :, -1:] + 1 + torch.arange(extra)
        return backbone.language_model(
            inputs_embeds=sequence,
            position_ids=torch.cat((positions, after), dim=2),
            use_cache=False,
            attention_mask=torch.ones(sequence.shape[:2], dtype=torch.long),
        ).last_hidden_state[0]

    hidden = hidden_states(embeds)
    anchor, z, latents = hidden[ids[0].tolist().index(config.anchor_token_id)], hidden[-1], []
    for step in range(1, num_latent_steps + 1):
        refined = naive_adapter(model.adapter, z, anchor, step)
        embeds = torch.cat((embeds, refined[None, None]), dim=1)
        z = hidden_states(embeds)[-1]
        latents.append(z)
    if num_latent_steps == 0:
        return F.normalize(z, dim=0), torch.empty(0)
    suffix = backbone.get_input_embeddings()(torch.tensor([config.suffix_token_ids]))
    return F.normalize(hidden_states(torch.cat((embeds, suffix), dim=1))[-1], dim=0), torch.stack(latents)


def naive_adapter(adapter, z: torch.Tensor, anchor: torch.Tensor, step: int) -> torch.Tensor:
    """The paper's equation, expert by expert, for the full adapter (MoE, shared expert, anchor, step embedding)."""
    probs = torch.softmax(
        adapter.router.weight @ torch.cat((z + anchor, adapter.step_embedding.weight[step - 1])) + adapter.router.bias,
        dim=0,
    )
    u = F.layer_norm(z, z.shape, adapter.layer_norm.weight, adapter.layer_norm.bias)

    def expert(index: int) -> torch.Tensor:
        e = adapter.experts
        inner = F.gelu(u @ e.fc1_weight[index] + e.fc1_bias[index, 0])
        return inner @ e.fc2_weight[index] + e.fc2_bias[index, 0]

    out = z + expert(0)
    for index in probs.argsort(descending=True)[: adapter.num_experts_per_tok].tolist():
        out = out + probs[index] * expert(index + 1)
    return out
