# Copyright 2026 The plume-embed authors. Licensed under the Apache License, Version 2.0.
"""PlumeModel: prefix -> K latent steps -> suffix -> embedding (PLUME, arXiv 2604.02073, section 3.3).

    system turn, user turn: [media] text \\n <disc_emb> \\n instruction        assistant turn: <think> <bot>
    |------------------------------------ prefix: one backbone pass ------------------------------------|
    z1 ... zK                      rollout: each z(k) is the backbone's state at one more position
    <eot> </think> \\n <gen_emb>   suffix: fixed tokens, the embedding is the state at the last one

This is the readable reference path, and the one to train through: the cache grows by concatenation, so gradients flow
through the whole rollout. Where no gradient is wanted, rollout_plume.py computes the same faster. The model keeps no
state between calls.
"""

import numbers
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, can_return_tuple

from .adapter_plume import TENSOR_FIELDS, PlumeAdapter, PlumeExperts
from .arguments_plume import (
    ANOTHER_SHAPE,
    check_number_of_layers,
    check_tensors,
    documented_signature,
    media_among,
    refuse_pickled_weights,
    refuse_weights,
    weights_that_do_not_fit,
)
from .configuration_plume import PlumeConfig
from .families_plume import MEDIA_ARGUMENTS, backbone_family
from .family_plume import BackboneFamily
from .positions_plume import CACHE_ARGUMENT, latent_positions, suffix_positions
from .prefix_plume import PlumePrefix, groups_by_length, join_prefixes
from .rollout_plume import ROLLOUT_IMPLEMENTATIONS, RolloutEngine, RolloutOutput, is_altered, rollout_engine


@dataclass
class PlumeOutput(ModelOutput):
    """Output of [`PlumeModel`].

    Args:
        embeddings (`torch.FloatTensor` of shape [B, D]): e_gen, float32, unit norm. What retrieval compares.
        anchor_embeddings (`torch.FloatTensor` of shape [B, D], *optional*): e_anc, float32, unit norm.
        latent_states (`torch.Tensor` of shape [B, K, D], *optional*): z(1) to z(K), as the backbone gave them.
        router_probs (`torch.FloatTensor` of shape [B, K, Me], *optional*): pi(1) to pi(K), over the routed experts.
    """

    embeddings: torch.FloatTensor | None = None
    anchor_embeddings: torch.FloatTensor | None = None
    latent_states: torch.Tensor | None = None
    router_probs: torch.FloatTensor | None = None


class PlumeModel(PreTrainedModel):
    """A vision-language backbone, an adapter, and the latent rollout that joins them.

    `model(**processor(items)).embeddings` is the whole API for one batch. A row's vector does not depend on the other
    rows of the batch, their order or the padding.

    Attributes:
        rollout_implementation (`str`, defaults to `"auto"`): How the rollout is computed in eval mode where gradients
            are off: `"static"`, `"compiled"`, `"cuda_graph"`, or `"auto"`, which is `"cuda_graph"` on CUDA and
            `"static"` elsewhere. `"reference"` is the loop of this file, which runs in all other cases, and where a
            faster one cannot, for a reason that is logged. All give the same vectors. It is not saved with the model.
        groups_prefixes (`bool`, defaults to `False`): Whether rows of like length have a prefix pass of their own where
            that saves padding, in eval mode where gradients are off and there are no media. The vectors are the same.
            For CPUs: elsewhere a pass more costs more than padding. Every process must make as many passes where a
            model is sharded over several, so leave it off there. It is not saved with the model.
    """

    config_class = PlumeConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("text", "image", "video")
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    rollout_implementation = "auto"
    groups_prefixes = False
    # Checkpointing a layer drops its cache entry, and a rollout without its cache is another function.
    supports_gradient_checkpointing = False

    def __init__(self, config: PlumeConfig):
        super().__init__(config)
        config.validate()  # it may have been changed since it was made
        self.backbone = self.family.build(config.backbone_config)
        self.adapter = PlumeAdapter(config)
        text = config.get_text_config()
        is_tied = self.family.ties_embeddings(config.backbone_config)
        self.lm_head = None if is_tied else nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *model_args,
        use_safetensors: bool | None = True,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        **kwargs,
    ):
        """Loads a model from safetensors files, all of it: where a weight is missing, transformers would draw it.

        Where the caller asks for another adapter (`adapter_type="none"`), its weights need not be those of the files.
        `num_step_embeddings` makes no other adapter of it: the table of the files is taken, or none.

        Raises:
            ValueError: a value that cannot work; or weights are damaged, missing, left over or of another shape; or
                they are pickles (.bin, .pt), with the reason and the remedy.
        """
        if use_safetensors is False:
            raise ValueError("use_safetensors=False would load pickles, which can run any code; leave it out.")
        if pretrained_model_name_or_path is not None:
            refuse_pickled_weights(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they come back in the report, by name
                **kwargs,
            )
        except SafetensorError as error:
            raise ValueError(
                f"The weights in {pretrained_model_name_or_path} are damaged: {error}. Fetch or make them again."
            ) from error
        wrong = weights_that_do_not_fit(info, ignore_mismatched_sizes)
        if wrong and pretrained_model_name_or_path is not None:
            saved, _ = cls.config_class.get_config_dict(pretrained_model_name_or_path, **kwargs)
            before = {field: saved.get(field, getattr(PlumeConfig, field)) for field in TENSOR_FIELDS}
            changed = {field for field in TENSOR_FIELDS if before[field] != getattr(model.config, field)}
            if changed == {"num_step_embeddings"} and wrong.get("adapter.step_embedding.weight") == ANOTHER_SHAPE:
                raise ValueError(
                    f"num_step_embeddings={model.config.num_step_embeddings}: the model in "
                    f"{pretrained_model_name_or_path} has {before['num_step_embeddings']} of them, trained with the "
                    "rest. Leave it out; for more latent steps make a new model with `plume-embed init`, and train it."
                )
            if changed - {"num_step_embeddings"}:
                wrong = {name: kind for name, kind in wrong.items() if not name.startswith("adapter.")}
        refuse_weights(wrong, pretrained_model_name_or_path)
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Saves the model with its config and code.

        Raises:
            ValueError: the config is of another model, see [`PlumeAdapter.check_config`].
        """
        self.adapter.check_config(self.config)
        return super().save_pretrained(save_directory, *args, **kwargs)

    def _apply(self, fn, recurse=True):
        """What `to`, `half`, `bfloat16` and the like do, except that constants, the frequencies of the rotary positions
        among them, stay in float32: so they are when a model is loaded in another precision."""
        constants = [
            (module, name, buffer)
            for module in self.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if name in module._non_persistent_buffers_set
        ]
        super()._apply(fn, recurse)
        for module, name, constant in constants:
            cast = module.get_buffer(name)
            if cast.dtype != constant.dtype:
                setattr(module, name, constant.to(cast.device))
        return self

    @property
    def family(self) -> BackboneFamily:
        """What is particular to the kind of backbone."""
        return backbone_family(self.config.backbone_config.model_type)

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, PlumeExperts):
            std = self.config.get_text_config().initializer_range
            for name, parameter in module.named_parameters():
                torch.nn.init.zeros_(parameter) if name.endswith("bias") else torch.nn.init.normal_(parameter, std=std)

    def get_input_embeddings(self):
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.backbone.set_input_embeddings(value)

    def freeze_vision(self) -> None:
        """Keeps the vision tower as it is in training; what joins it to the language model is trained."""
        for modules, is_trained in (
            (self.family.vision_modules(self.backbone), False),
            (self.family.merger_modules(self.backbone), True),
        ):
            for module in modules:
                module.requires_grad_(is_trained)

    def next_token_logits(self, states: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., V], by the input embedding or, where the backbone has one of its own, by `lm_head`."""
        if self.lm_head is not None:
            return self.lm_head(states)
        embedding = self.get_input_embeddings()
        if type(embedding) is nn.Embedding and not is_altered(embedding):
            return F.linear(states, embedding.weight)
        # What a LoRA adds, and weights that lie offloaded, come with the call alone.
        ids = torch.arange(len(embedding.weight), device=states.device)
        return F.linear(states, embedding(ids))

    def prefix(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, **media: torch.Tensor
    ) -> PlumePrefix:
        """One backbone pass over everything up to the start token; all pixels enter here and only here.

        Args:
            input_ids, attention_mask (`torch.Tensor` of shape [B, L]): Left-padded, each row ends in the start token.
            position_ids (`torch.Tensor` of shape [B, 3, L]): From PlumeProcessor.
            media: Those of the family's `media_arguments` that there are.
        """
        cache = self._empty_cache()
        hidden = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=self.family.to_backbone_positions(position_ids),
            use_cache=True,
            **{CACHE_ARGUMENT: cache},
            **media,
        ).last_hidden_state  # [B, L, D]
        anchor_index = (input_ids == self.config.anchor_token_id).int().argmax(dim=1)  # [B]
        return PlumePrefix(
            cache=cache,
            attention_mask=attention_mask,
            start_position=position_ids[:, :, -1],  # [B, 3]
            length=attention_mask.sum(dim=1),  # [B]
            anchor=hidden[torch.arange(len(hidden), device=hidden.device), anchor_index],  # [B, D]
            z0=hidden[:, -1].contiguous(),  # [B, D]
        )

    def _prefix_in_groups(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        media: dict[str, torch.Tensor],
    ) -> PlumePrefix:
        """[`prefix`], in a pass for each group of rows of like length where the model is told to group."""
        rows = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        may_group = self.groups_prefixes and not (self.training or torch.is_grad_enabled() or media)
        if not may_group or torch.compiler.is_compiling():
            return self.prefix(**rows, **media)
        lengths, cache = attention_mask.long().sum(dim=1).tolist(), self._empty_cache()
        groups = groups_by_length(lengths)
        # What a sliding window has dropped of a short row cannot be put beside a longer one.
        if len(groups) <= 1 or any(layer.is_sliding for layer in cache.layers):
            return self.prefix(**rows)
        parts = []
        for group in groups:
            length = lengths[group[0]]
            parts.append(self.prefix(**{name: tensor[group][..., -length:] for name, tensor in rows.items()}))
        return join_prefixes(parts, groups, attention_mask, cache)

    def _empty_cache(self) -> DynamicCache:
        return DynamicCache(config=self.config.get_text_config())

    def latent_step(self, z: torch.Tensor, prefix: PlumePrefix, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """z(k) = backbone(z~(k-1) at position p_slt + k, cache C(k-1)); the cache grows by one entry a row.

        Args:
            z (`torch.Tensor` of shape [B, D]): z(k-1).
            prefix ([`PlumePrefix`]): Its cache holds the prefix and the k - 1 steps before this one.
            step (`int`): k, from 1.

        Returns:
            z(k) [B, D] and the routing probabilities [B, Me] (`None` without a router).
        """
        refined, router_probs = self.adapter(z, prefix.anchor, prefix.z0, step)  # [B, D], [B, Me]
        positions = latent_positions(self.config.position_mode, prefix.start_position, prefix.length, step)
        hidden = self.extend(prefix, refined.unsqueeze(1), positions, num_cached_steps=step - 1)  # [B, 1, D]
        return hidden[:, 0], router_probs

    def latents(
        self, prefix: PlumePrefix, num_latent_steps: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
        """z(1) to z(K) [B, D] and pi(1) to pi(K) [B, Me], step by step; the cache then holds all K.

        Args:
            prefix ([`PlumePrefix`]): Its cache holds the prefix and nothing else.
            num_latent_steps (`int`): K; with 0 both lists are empty.
        """
        z, states, router_probs = prefix.z0, [], []
        for step in range(1, num_latent_steps + 1):
            z, probs = self.latent_step(z, prefix, step)
            states.append(z)
            router_probs.append(probs)
        return states, router_probs

    def suffix(self, prefix: PlumePrefix, num_latent_steps: int, token_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states [B, S, D] at the tokens after the rollout.

        Args:
            prefix ([`PlumePrefix`]): Its cache holds the prefix and K = `num_latent_steps` steps.
            token_ids (`torch.Tensor` of shape [B, S], *optional*): Tokens after the rollout, padded on the right if at
                all. Defaults to the fixed suffix of inference, whose last token is the embedding token.
        """
        if token_ids is None:
            ids = torch.tensor(self.config.suffix_token_ids, device=prefix.z0.device)
            token_ids = ids.expand(len(prefix.z0), -1)  # [B, S]
        positions = suffix_positions(
            self.config.position_mode, prefix.start_position, prefix.length, num_latent_steps, token_ids.shape[1]
        )
        embeds = self.get_input_embeddings()(token_ids)  # [B, S, D]
        return self.extend(prefix, embeds, positions, num_cached_steps=num_latent_steps)

    def extend(
        self, prefix: PlumePrefix, inputs_embeds: torch.Tensor, position_ids: torch.Tensor, num_cached_steps: int
    ) -> torch.Tensor:
        """Hidden states [B, n, D] of n more positions behind the prefix and the steps that its cache holds.

        Args:
            prefix ([`PlumePrefix`]): Its cache grows by n entries a row.
            inputs_embeds (`torch.Tensor` of shape [B, n, D]): What stands at the new positions.
            position_ids (`torch.Tensor` of shape [B, 3, n]): From `positions_plume.py`.
            num_cached_steps (`int`): Entries that the cache holds behind the prefix.
        """
        new_entries = num_cached_steps + inputs_embeds.shape[1]
        # Always the mask of the whole cache: a short one would be padded on the wrong side, without an error.
        attention_mask = F.pad(prefix.attention_mask, (0, new_entries), value=1)  # [B, L + new_entries]
        return self.backbone(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=self.family.to_backbone_positions(position_ids),
            use_cache=True,
            **{CACHE_ARGUMENT: prefix.cache},
        ).last_hidden_state

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        num_latent_steps: int | None = None,
        output_anchor_embeddings: bool = False,
        output_latent_states: bool = False,
        output_router_probs: bool = False,
        return_dict: bool | None = None,
        task: str | None = None,
        **media: Any,
    ) -> PlumeOutput:
        """Embeds one batch from PlumeProcessor.

        Args:
            input_ids, attention_mask (`torch.Tensor` of shape [B, L]): Left-padded, each row ends in the start token.
            position_ids (`torch.Tensor` of shape [B, 3, L]): From PlumeProcessor.
            num_latent_steps (`int`, *optional*): K, by default the config's. 0 is a single pass: the embedding is read
                at the last prefix token.
            task (`str`, *optional*): `"document"` takes the config's `document_latent_steps` by default; everything
                else is a query. sentence-transformers passes it on from `encode_document`. In training it must be said
                where the two numbers differ.
            output_anchor_embeddings, output_latent_states, output_router_probs (`bool`): What else to return.
            media (`torch.Tensor`, *optional*): The backbone's arguments for pictures and films, all of the batch in the
                order of the rows. Families with patches: `pixel_values`, `pixel_values_videos` [patches, patch size]
                with `image_grid_thw`, `video_grid_thw` [images or videos, 3]; others: `pixel_values` [N, 3, H, W].
                What libraries pass to every model, such as `inputs_embeds` and `output_hidden_states`, may be there as
                `None` or `False` and is refused otherwise.

        Returns:
            [`PlumeOutput`]

        Raises:
            ValueError: an input that cannot give the right vector, with the remedy.
        """
        num_steps = self._num_steps(num_latent_steps, task)
        media = media_among(media)
        # A graph of fixed shapes has no place for checks of values; what it is traced with has been checked in eager.
        if not torch.compiler.is_compiling():
            rows = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
            check_tensors(rows | media)
            self._check_inputs(input_ids, attention_mask, position_ids, media)

        prefix = self._prefix_in_groups(input_ids, attention_mask, position_ids, media)
        rollout = self._rollout(prefix, num_steps) if num_steps > 0 else None
        gen_state = prefix.z0 if rollout is None else rollout.gen_state  # [B, D]
        return PlumeOutput(
            embeddings=F.normalize(gen_state.float(), dim=-1),
            anchor_embeddings=F.normalize(prefix.anchor.float(), dim=-1) if output_anchor_embeddings else None,
            latent_states=rollout.latent_states if output_latent_states and rollout is not None else None,
            router_probs=rollout.router_probs if output_router_probs and rollout is not None else None,
        )

    def _num_steps(self, num_latent_steps: int | None, task: str | None) -> int:
        of_documents = self.config.document_latent_steps if task == "document" else None
        default = self.config.num_latent_steps if of_documents is None else of_documents
        has_two = self.config.document_latent_steps not in (None, self.config.num_latent_steps)
        if self.training and has_two and task is None and num_latent_steps is None:
            raise ValueError(
                f"Queries of this model take {self.config.num_latent_steps} latent steps and documents "
                f"{self.config.document_latent_steps}: say in training which these are, with task='query' or "
                "task='document'. For the trainer of sentence-transformers: router_mapping={'COLUMN': 'query', "
                "'OTHER COLUMN': 'document'} in its arguments, for every column."
            )
        num_steps = default if num_latent_steps is None else num_latent_steps
        largest = self.config.num_step_embeddings
        if not isinstance(num_steps, numbers.Integral) or isinstance(num_steps, bool) or not 0 <= num_steps <= largest:
            raise ValueError(f"num_latent_steps must be a whole number in 0..{largest}, got {num_steps!r}.")
        return int(num_steps)

    @property
    def rollout_engine(self) -> RolloutEngine:
        """Holds the buffers and graphs of the fast rollout; `release()` frees them."""
        return rollout_engine(self)

    def _rollout(self, prefix: PlumePrefix, num_steps: int) -> RolloutOutput:
        """K latent steps and the suffix, by the engine where it can and by this loop where it cannot."""
        if self.rollout_implementation not in ROLLOUT_IMPLEMENTATIONS:
            raise ValueError(
                f"rollout_implementation must be one of {', '.join(ROLLOUT_IMPLEMENTATIONS)}, got "
                f"{self.rollout_implementation!r}."
            )
        wants_fast = self.rollout_implementation != "reference" and not torch.compiler.is_compiling()
        if wants_fast and not self.training and not torch.is_grad_enabled():
            rollout = self.rollout_engine.run(self, prefix, num_steps, self.rollout_implementation)
            if rollout is not None:
                return rollout
        latent_states, router_probs = self.latents(prefix, num_steps)
        return RolloutOutput(
            gen_state=self.suffix(prefix, num_steps)[:, -1],  # [B, D]
            latent_states=torch.stack(latent_states, dim=1),  # [B, K, D]
            router_probs=torch.stack(router_probs, dim=1) if self.config.adapter_type == "moe" else None,
        )

    def _check_inputs(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        media: dict[str, torch.Tensor],
    ) -> None:
        """Refuses what would silently give another vector. One synchronisation with the host, before the prefix."""
        config, batch = self.config, "pass the whole batch: model(**processor(items))"
        self.adapter.check_config(config)
        check_number_of_layers(self.backbone.get_decoder().layers, config.get_text_config())
        if input_ids.ndim != 2 or not len(input_ids) or attention_mask.shape != input_ids.shape:
            raise ValueError(
                "input_ids and attention_mask must be [batch, length] with a row at least, got "
                f"{list(input_ids.shape)} and {list(attention_mask.shape)}; {batch}."
            )
        unknown = sorted(set(media) - set(self.family.media_arguments))
        if unknown:
            raise ValueError(
                f"forward takes no {', '.join(unknown)}: the media of {self.family.model_type} are "
                f"{', '.join(self.family.media_arguments)}; {batch}."
            )
        config.check_token_ids()
        unset = [n for n in ("anchor_token_id", "latent_start_token_id") if getattr(config, n) is None]
        if unset or config.suffix_token_ids is None:
            raise ValueError(
                f"The config lacks {', '.join(unset) or 'suffix_token_ids'}; make the model with `plume-embed init` or "
                "`plume-embed convert`, which take the token ids from the tokenizer."
            )
        if any(m.gradient_checkpointing for m in self.modules() if isinstance(m, GradientCheckpointingLayer)):
            raise ValueError(
                "Gradient checkpointing of the layers is on: it drops the cache, and the rollout would be computed "
                "without its prefix. In training arguments leave gradient_checkpointing out; else call "
                "gradient_checkpointing_disable() on the model and on its backbone."
            )
        if position_ids.shape != (input_ids.shape[0], 3, input_ids.shape[1]):
            raise ValueError(
                f"position_ids must be [batch, 3, length] = {[input_ids.shape[0], 3, input_ids.shape[1]]}, got "
                f"{list(position_ids.shape)}; {batch}."
            )
        is_start = input_ids[:, -1] == config.latent_start_token_id  # [B]
        num_anchors = ((input_ids == config.anchor_token_id) & attention_mask.bool()).sum(dim=1)  # [B]
        checks = {
            "The padding must be on the left and the rows must not be empty; do not change the padding side of "
            "PlumeProcessor.": (attention_mask[:, -1] == 1) & (attention_mask.long().diff(dim=1) >= 0).all(dim=1),
            "attention_mask must hold 0 and 1 alone; make it with PlumeProcessor.": (attention_mask == 0)
            | (attention_mask == 1),
            "Every row must end in the start token; a row was cut, so switch truncation off (max_seq_length in "
            "sentence-transformers), or was not made by PlumeProcessor.": is_start,
            "Every row must hold exactly one anchor token; make the rows with PlumeProcessor, which neutralises "
            "control tokens in user text.": num_anchors == 1,
        }
        checks |= self.family.media_checks(config.backbone_config, input_ids, media)
        checks |= {
            f"{name} holds values that are not finite; make it with PlumeProcessor.": tensor.isfinite()
            for name, tensor in media.items()
            if tensor.is_floating_point()
        }
        passed = torch.stack([check.all() for check in checks.values()]).tolist()
        for message, good in zip(checks, passed, strict=True):
            if not good:
                raise ValueError(message)


PlumeModel.forward.__signature__ = documented_signature(PlumeModel.forward, MEDIA_ARGUMENTS)
PlumeModel.register_for_auto_class("AutoModel")

__all__ = ["PlumeModel", "PlumeOutput", "PlumePrefix"]
