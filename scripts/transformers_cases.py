"""The cases of scripts/transformers_tests.py: PlumeConfig and PlumeModel under transformers' own common tests.

Collected by pytest in a process that `scripts.transformers_tests` has prepared; of no use on its own.
"""

import unittest
from typing import Any

import torch
from library_tests.test_configuration_common import ConfigTester
from library_tests.test_modeling_common import ModelTesterMixin

from plume_embed import PlumeConfig, PlumeModel
from plume_embed.training.small_model import make_model, make_processor

TEXTS = ["a red car", "two", "words of a tokenizer"]


class PlumeModelTester:
    """A model of two layers and a batch of texts; pictures of several rows share one tensor, which the library's tests
    would cut by rows."""

    num_hidden_layers, batch_size, is_training = 2, 3, True

    def __init__(self) -> None:
        self.processor = make_processor(TEXTS * 3, 420, 56)
        sizes = {"hidden_size": 64, "layers": 2, "intermediate_size": 64, "vision_size": 32, "vision_depth": 1}
        self.config = make_model(self.processor, **sizes, initializer_range=0.05, seed=0, num_latent_steps=2).config

    def prepare_config_and_inputs_for_common(self) -> tuple[PlumeConfig, dict[str, torch.Tensor]]:
        """What each common test starts from."""
        return PlumeConfig.from_dict(self.config.to_dict()), dict(self.processor(TEXTS))


class PlumeModelTest(ModelTesterMixin, unittest.TestCase):
    """Every test of the mixin; which do not apply stands in scripts/transformers_tests.py."""

    all_model_classes = (PlumeModel,)
    has_attentions = False  # the rollout gives none back
    _is_composite = True

    def setUp(self) -> None:
        self.model_tester = PlumeModelTester()
        self.config_tester = ConfigTester(
            self, config_class=PlumeConfig, has_text_modality=False, common_properties=["hidden_size"], **self.plain()
        )

    @staticmethod
    def plain() -> dict[str, Any]:
        return {"num_latent_steps": 3, "num_experts": 6, "adapter_type": "moe"}

    def test_config(self) -> None:
        """All of ConfigTester."""
        self.config_tester.run_common_tests()
