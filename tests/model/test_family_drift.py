"""The library's side of the seam, pinned: what fails here after an update has to be read before anything is trusted.

The library's position functions are compared value by value in test_families.py.
"""

import inspect
import re
from pathlib import Path

import pytest
from families import BACKBONES, config_of, tiny
from huggingface_hub.errors import StrictDataclassError

from plume_embed import PlumeConfig
from plume_embed.model.families_plume import FAMILIES
from plume_embed.model.positions_plume import CACHE_ARGUMENT

ROOT = Path(__file__).parent.parent.parent
COMMON = {"input_ids", "attention_mask", "position_ids", "inputs_embeds", CACHE_ARGUMENT}
# May be there or not in the versions that were read (5.17 to 5.24); PLUME passes none of them but use_cache.
OPTIONAL = {"use_cache", "mm_encoder_outputs", "kwargs", "rope_deltas", "cache_position", "return_dict"}
OPTIONAL |= {"output_attentions", "output_hidden_states", "labels", "logits_to_keep"}
OWN = {
    "qwen2_vl": {"mm_token_type_ids"},
    "qwen2_5_vl": {"mm_token_type_ids", "second_per_grid_ts"},
    "qwen3_vl": {"mm_token_type_ids"},
    "qwen3_vl_moe": {"mm_token_type_ids"},
    "fast_vlm": {"vision_feature_layer", "vision_feature_select_strategy"},
}
LAYER = {"hidden_states", "attention_mask", "position_embeddings", CACHE_ARGUMENT}
ROPE_INDEX = ["input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw"]


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_backbones_forward_takes_what_the_family_passes_and_nothing_new(name):
    found, family = parameters(tiny(name).model.backbone.forward), FAMILIES[name]
    needed = COMMON | set(family.media_arguments) | OWN[name]
    assert needed <= found, f"gone: {sorted(needed - found)}"
    assert found <= needed | OPTIONAL, f"new: {sorted(found - needed - OPTIONAL)}"


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_decoder_layer_takes_what_the_engine_passes(name):
    decoder = tiny(name).model.backbone.get_decoder()
    assert parameters(decoder.layers[0].forward) >= LAYER
    assert list(inspect.signature(decoder.rotary_emb.forward).parameters)[:2] == ["x", "position_ids"]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "fast_vlm"])
def test_the_librarys_position_function_takes_what_it_took(name):
    found = list(inspect.signature(tiny(name).model.backbone.get_rope_index).parameters)
    assert found[:4] == ROPE_INDEX and set(found) <= {*ROPE_INDEX, "second_per_grid_ts", "attention_mask", "kwargs"}


@pytest.mark.parametrize("name", BACKBONES)
def test_what_a_family_reads_of_the_config_is_there(name):
    config = PlumeConfig(backbone_config=config_of(name)).backbone_config
    family = FAMILIES[config.model_type]
    assert family.ties_embeddings(config) is True
    assert all(value is not None for value in family.settings(config).values())


@pytest.mark.parametrize("model_type", ["qwen3_5", "qwen3_5_moe"])
def test_layers_with_another_state_than_keys_and_values_are_refused_by_name(model_type):
    with pytest.raises(
        StrictDataclassError, match=f"'{model_type}' has layers of type linear_attention: they keep another state"
    ):
        PlumeConfig(backbone_config={"model_type": model_type})


LONG = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64} | LONG,
    ],
    ids=lambda settings: settings["rope_type"],
)
@pytest.mark.parametrize("name", ["fast_vlm", "qwen3_vl"])
def test_rotary_frequencies_that_depend_on_the_longest_row_are_refused_by_name(name, settings):
    def with_rope(values: dict) -> dict:
        config = config_of(name)
        rope = (config["text_config"].get("rope_parameters") or {"rope_theta": 1e4}) | values
        return config | {"text_config": config["text_config"] | {"rope_parameters": rope}}

    with pytest.raises(StrictDataclassError, match=f"'{name}' has rotary positions of type {settings['rope_type']}: "):
        PlumeConfig(backbone_config=with_rope(settings))
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    assert PlumeConfig(backbone_config=with_rope(yarn)).backbone_config.model_type == name


def test_the_documented_family_is_the_file():
    page = (ROOT / "docs" / "backbones.md").read_text()
    (name, shown) = re.search(r"<!-- file: (\w+\.py) -->\n```py\n(.*?)```\n<!-- end -->", page, re.DOTALL).groups()
    assert shown == (ROOT / name).read_text()
    smallest = min(ROOT.glob("family_*_plume.py"), key=lambda file: file.stat().st_size)
    assert smallest.name == name
