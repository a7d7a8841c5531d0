# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""PlumeConfig: everything that must travel with the weights so that the same input gives the same vector."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import AutoConfig, PreTrainedConfig

from .families_plume import check_backbone, make_backbone_config

_TOKEN_FIELDS = ("anchor_token_id", "latent_start_token_id", "latent_end_token_id", "embedding_token_id")


@strict
class PlumeConfig(PreTrainedConfig):
    r"""Configuration of a [`PlumeModel`]: a vision-language backbone plus the latent rollout over it.

    Every row of the paper's ablation tables is one value here. Field types are checked strictly: a wrong type raises.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`):
            Config of the vision-language backbone, told apart by its `model_type` (see families_plume.py).
        num_latent_steps (`int`, defaults to 8):
            K, the number of latent steps that `forward` runs unless told otherwise. 0 is a single pass.
        document_latent_steps (`int`, *optional*):
            K of documents, where it differs from that of queries: 0 for a model that was trained with documents in a
            single pass, in one space with queries that take their steps. `None`: as queries.
        anytime_steps (`list[int]`, *optional*):
            Smaller numbers of latent steps that the model was trained to serve as well, ascending; 0 is a single pass.
            They are a promise of the training and change nothing by themselves: any K may be chosen for a call.
        adapter_type (`"moe"`, `"mlp"` or `"none"`, defaults to `"moe"`):
            What refines the hidden state before each step: routed experts, one expert, or nothing.
        num_experts (`int`, defaults to 4): Me, the number of routed experts.
        num_experts_per_tok (`int`, defaults to 2): Kr, the number of routed experts used in each step.
        use_shared_expert (`bool`, defaults to `True`): Whether one more expert, E0, is always on.
        expert_expansion (`int`, defaults to 2): Inner width of an expert in multiples of the hidden size D.
        mlp_inner_size (`int`, *optional*):
            Inner width of the one expert of `adapter_type="mlp"`, for example to give it as many parameters as the
            routed experts have together. `None` is `expert_expansion` times D.
        adapter_dropout (`float`, defaults to 0.0): Dropout between an expert's two layers, in training only.
        router_context (`"anchor"`, `"prefix_last"` or `"none"`, defaults to `"anchor"`):
            Which prefix state steers the router: c(x), the state at the semantic anchor; z(0), the last prefix state;
            or no context.
        use_step_embedding (`bool`, defaults to `True`): Whether the router sees e(k), the embedding of the step.
        num_step_embeddings (`int`, defaults to 32): Size of the table of step embeddings, the largest possible K. The
            table is trained with the rest: of a model that has one, the size cannot be changed.
        position_mode (`"mrope"`, `"cache_length"` or `"released_training"`, defaults to `"mrope"`):
            Positions of the latent steps and the suffix, see `positions_plume.py`. `"mrope"` is the paper's
            p_slt + k. `"cache_length"` is what the released code runs at inference, so converted checkpoints carry it;
            `"released_training"` is what the released code trained with.
        vision_position_advance (`"max_hw"` or `"max_thw"`, defaults to `"max_hw"`):
            How far the position moves on after an image or a video: by the larger side of its merged grid, or by the
            largest of its three extents (the rule of the released code, for converted checkpoints).
        anchor_token_id (`int`): Id of `<disc_emb>`, the semantic anchor.
        latent_start_token_id (`int`): Id of `<bot>` (the paper's slt), the last token of every prefix.
        latent_end_token_id (`int`): Id of `<eot>` (the paper's elt), the first token of the suffix.
        embedding_token_id (`int`): Id of `<gen_emb>` (the paper's gen), where the embedding is read.
        suffix_token_ids (`list[int]`): The fixed tokens after the rollout. The embedding is read at the last one.

    Raises:
        ValueError: a value that cannot work, with what to change.
    """

    model_type = "plume"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    num_latent_steps: int = 8
    document_latent_steps: int | None = None
    anytime_steps: list[int] | None = None
    adapter_type: Literal["moe", "mlp", "none"] = "moe"
    num_experts: int = 4
    num_experts_per_tok: int = 2
    use_shared_expert: bool = True
    expert_expansion: int = 2
    mlp_inner_size: int | None = None
    adapter_dropout: float = 0.0
    router_context: Literal["anchor", "prefix_last", "none"] = "anchor"
    use_step_embedding: bool = True
    num_step_embeddings: int = 32
    position_mode: Literal["mrope", "cache_length", "released_training"] = "mrope"
    vision_position_advance: Literal["max_hw", "max_thw"] = "max_hw"
    anchor_token_id: int | None = None
    latent_start_token_id: int | None = None
    latent_end_token_id: int | None = None
    embedding_token_id: int | None = None
    suffix_token_ids: list[int] | None = None

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = {"model_type": "qwen2_vl"}
        if isinstance(self.backbone_config, dict):
            backbone = dict(self.backbone_config)
            if "model_type" not in backbone:
                raise ValueError("backbone_config has no model_type; use the backbone's own config.json as it stands.")
            self.backbone_config = make_backbone_config(backbone)
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """A config from the values of a config.json, and those that the caller of `from_pretrained` has instead.

        Raises:
            ValueError: a value that cannot work, with what to change; or the backbone's are not there. By default it
                would be a Qwen2-VL of 7 billion parameters.
        """
        if config_dict.get("backbone_config") is None and kwargs.get("backbone_config") is None:
            raise ValueError("config.json has no backbone_config; fetch or make the model's folder again.")
        try:
            loaded = super().from_dict(config_dict, **kwargs)
            config = loaded[0] if kwargs.get("return_unused_kwargs") else loaded
            config.validate()  # the library sets the caller's values on a config that it has checked before
        except (StrictDataclassClassValidationError, StrictDataclassFieldValidationError) as error:
            raise ValueError(" ".join(str(error.__cause__).split())) from error
        return loaded

    def validate_architecture(self):
        """Checks values against each other; called by `@strict` after every construction."""
        family = check_backbone(self.backbone_config)
        if self.vision_position_advance not in family.position_advances:
            raise ValueError(
                f"vision_position_advance={self.vision_position_advance!r} is not for {family.model_type}, which has "
                f"{', '.join(family.position_advances)}; leave it out."
            )
        largest = self.num_step_embeddings
        for name in ("num_latent_steps", "document_latent_steps"):
            steps = getattr(self, name)
            if steps is not None and not 0 <= steps <= largest:
                raise ValueError(f"{name} must lie in 0..{largest}, got {steps}{self._more_steps(steps)}.")
        anytime = self.anytime_steps or []
        if anytime != sorted({*anytime}) or not all(0 <= steps <= largest for steps in anytime):
            more = self._more_steps(max(anytime))
            raise ValueError(f"anytime_steps must ascend within 0..{largest}, got {anytime}{more}.")
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ValueError(
                f"num_experts_per_tok must lie in 1..num_experts={self.num_experts}, got {self.num_experts_per_tok}."
            )
        if self.expert_expansion < 1 or not 0.0 <= self.adapter_dropout < 1.0:
            raise ValueError(
                f"expert_expansion must be >= 1 and adapter_dropout in [0, 1), got {self.expert_expansion} and "
                f"{self.adapter_dropout}."
            )
        if self.mlp_inner_size is not None and (self.adapter_type != "mlp" or self.mlp_inner_size < 1):
            raise ValueError(
                f'mlp_inner_size={self.mlp_inner_size} is for adapter_type="mlp" and at least 1; leave it out for '
                f"adapter_type={self.adapter_type!r}."
            )
        self.check_token_ids()

    def check_token_ids(self) -> None:
        """Checks the token ids against each other and against the rows of the token embedding.

        Raises:
            ValueError: there is no embedding for one, or the suffix does not end where the embedding is read.
        """
        suffix = self.suffix_token_ids
        ids = {name: [getattr(self, name)] for name in _TOKEN_FIELDS} | {"suffix_token_ids": suffix or []}
        size = self.get_text_config().vocab_size  # also of a matrix that was resized
        for name, given in ids.items():
            beyond = [token_id for token_id in given if token_id is not None and not 0 <= token_id < size]
            if beyond:
                raise ValueError(
                    f"The backbone has {size} token embeddings, and {name} names {beyond[0]}; take the ids from the "
                    "model's own PlumeProcessor, or make the model again with `plume-embed init`."
                )
        if suffix is not None and (not suffix or suffix[-1] != self.embedding_token_id):
            raise ValueError(
                f"suffix_token_ids must end in embedding_token_id={self.embedding_token_id}, where the embedding is "
                f"read, got {suffix}; take them from PlumeProcessor.suffix_token_ids()."
            )

    def _more_steps(self, wanted: int) -> str:
        """What to do for more steps than there are embeddings of. They are weights: a trained model has no further."""
        if wanted <= self.num_step_embeddings:
            return ""
        return (
            f": there are num_step_embeddings={self.num_step_embeddings}. For more, make a new model with `plume-embed "
            f"init BACKBONE OUT --set num_step_embeddings={wanted}`, and train it"
        )

    def get_text_config(self, *args, **kwargs) -> PreTrainedConfig:
        """Config of the backbone's language model, where libraries look for the hidden size and the vocabulary."""
        return self.backbone_config.get_text_config(*args, **kwargs)

    @property
    def hidden_size(self) -> int:
        """D, the size of the hidden states and of the embeddings."""
        return self.get_text_config().hidden_size


PlumeConfig.register_for_auto_class()

__all__ = ["PlumeConfig"]
